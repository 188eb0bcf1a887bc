"""Where weights that others trained lie: a folder, or a repository on the hub."""

from __future__ import annotations

from pathlib import Path


def locate(source: str) -> tuple[str, str]:
    """What ``from_pretrained`` of the hub's libraries takes: a name, and a folder below it or "".

    Args:
        source: A folder; ``OWNER/NAME``; or ``OWNER/NAME/FOLDER`` for weights that lie deeper in a repository.
    """
    parts = source.split("/")
    if Path(source).is_dir() or len(parts) < 3 or parts[0] in ("", ".", "..", "~"):
        return source, ""
    return "/".join(parts[:2]), "/".join(parts[2:])
