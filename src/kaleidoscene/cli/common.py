"""What the verbs share: parsing, the machine-readable last line."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeVar

import tyro

from kaleidoscene.errors import KaleidosceneError

T = TypeVar("T")


def parse(cls: type[T], argv: list[str], verb: str, default: T | None = None) -> T:
    """Options of a verb; a bad flag ends the program with tyro's message and its near match."""
    more: dict[str, Any] = {} if default is None else {"default": default}
    more |= {"args": argv, "prog": f"kaleidoscene {verb}", "description": inspect.cleandoc(cls.__doc__ or "")}
    if {"-h", "--help"} & set(argv):
        return tyro.cli(cls, **more)
    said = io.StringIO()
    try:
        with redirect_stderr(said), _unwrapped():
            return tyro.cli(cls, **more)
    except SystemExit:
        print(f"kaleidoscene {verb}: {error_sentence(said.getvalue())}", file=sys.stderr)
        raise


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Lines of messages are as long as they are: nothing is cut out of a path."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def error_sentence(box: str) -> str:
    """What the parser of options says in a box, as one sentence.

    Args:
        box: Its lines: a title, and sections with rules between them.
    """
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:
        text = line.strip().strip("│").strip()
        if text and set(text) <= set("-─╭╮╰╯"):
            sections.append([])
        elif text:
            sections[-1].append(text)
    first, *others = [section for section in sections if section] or [[box.strip()]]
    options = [text for text in first if text.startswith(("--", "{")) or text.isupper()]
    if first[0].startswith("Missing from"):
        names = " and ".join(text.split(" (")[0] for text in options)
        return f"{names} must be given; --help tells what for."
    text = " ".join(first)
    text = re.sub(r"^Error parsing (--\S+): ", r"\1: ", text)
    text = re.sub(r"^Error parsing [\w.]+: ", "", text)
    text = re.sub(r"invalid literal for int\(\) with base \d+: ", "expected a whole number, got ", text)
    text = re.sub(r"could not convert string to float: ", "expected a number, got ", text)
    near = [line.split()[0] for section in others if section[0].startswith("Perhaps") for line in section[1:]
            if line.startswith("--")]  # fmt: skip
    return f"{text.rstrip('.')}." + (f" Perhaps you meant {' or '.join(near)}." if near else "")


def check_rate(fps: float) -> None:
    """Raise unless a video can have so many frames a second.

    Raises:
        KaleidosceneError: With the range.
    """
    if not 0 < fps <= 1000:
        raise KaleidosceneError(f"--fps must be above 0 and at most 1000, got {fps}.")


def check_seed(seed: int) -> None:
    """Raise unless generators take a seed.

    Raises:
        KaleidosceneError: It is negative, or has more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise KaleidosceneError(f"--seed must be from 0 to {2**63 - 1}, got {seed}.")


def print_json(document: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(document))
