"""Folders that appear when all is written, and never replace what they are made from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kaleidoscene.errors import KaleidosceneError

FRUSTA = "frusta.png"
"""Picture of a dry run, which nobody misses."""


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool, sources: Sequence[Path | None] = ()) -> Iterator[Path]:
    """A folder to write to that takes its name only when all is done; what fails leaves nothing behind.

    Args:
        folder: Its name.
        overwrite: Replace what is there.
        sources: What is read for it, which it must not replace.

    Raises:
        KaleidosceneError: ``folder`` is there and not empty (and ``overwrite`` is off), is a file, holds a source, or
            cannot be made.
    """
    shown, folder = folder, folder.resolve()
    protect(shown, sources)
    if folder.exists() and not folder.is_dir():
        raise KaleidosceneError(f"{shown}: the output folder is a file.")
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise KaleidosceneError(f"{shown}: the output folder is the one we are in, or above it; give another.")
    if folder.is_dir() and not _replaceable(folder) and not overwrite:
        raise KaleidosceneError(f"{folder}: the output folder is not empty; give --overwrite to replace it.")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise KaleidosceneError(f"{folder}: the output folder cannot be made ({error.strerror}).") from error
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def protect(folder: Path, sources: Sequence[Path | None]) -> None:
    """Raise if writing a folder anew would take away what it is made from.

    Raises:
        KaleidosceneError: A source is the folder or lies below it.
    """
    target = folder.resolve()
    for source in sources:
        if source is None or not source.exists():  # the name of shipped weights, or what will be refused later
            continue
        if target == source.resolve() or target in source.resolve().parents:
            raise KaleidosceneError(
                f"{folder}: the output would replace the capture or file {source}; give another folder."
            )


def _replaceable(folder: Path) -> bool:
    """Whether nothing is lost with a folder: it is empty, or has the picture of a dry run alone."""
    return all(path.name == FRUSTA for path in folder.iterdir())
