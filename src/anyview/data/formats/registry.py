"""All capture formats; a new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from anyview.data.captures import Capture
from anyview.data.formats import eschernet, transforms_json
from anyview.errors import AnyViewError, unknown_name


class Format(NamedTuple):
    """How a format is recognised and read."""

    find: Callable[[Path], Path | None]
    read: Callable[[Path], Capture]
    expects: str


FORMATS: dict[str, Format] = {
    "transforms": Format(transforms_json.find, transforms_json.read, "transforms*.json (nerfstudio, Blender)"),
    "eschernet": Format(eschernet.find, eschernet.read, "NNN.png with NNN.npy (EscherNet)"),
}


def read_capture(path: str | Path, *, format: str | None = None) -> Capture:
    """Read a capture of any supported format; the format is detected unless it is named.

    Args:
        path: Folder of the capture, or its file of cameras.
        format: One of ``FORMATS``.

    Raises:
        AnyViewError: Nothing is there, no format fits, or what is there is bad.
    """
    path = Path(path)
    if not path.exists():
        raise AnyViewError(f"{path}: no such file or folder.")
    if path.is_dir() and not any(path.iterdir()):
        raise AnyViewError(f"{path}: the folder is empty.")
    if format is not None and format not in FORMATS:
        raise unknown_name("capture format", format, FORMATS)
    names = [format] if format else list(FORMATS)
    for name in names:
        if (found := FORMATS[name].find(path)) is not None:
            return FORMATS[name].read(found)
    expected = ", or ".join(FORMATS[name].expects for name in names)
    raise AnyViewError(f"{path}: no capture of a known format here (expected {expected}).")
