"""What the verbs share: parsing, the machine-readable last line."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(cls: type[T], argv: list[str], verb: str, default: T | None = None) -> T:
    """Options of a verb; a bad flag ends the program with tyro's message and its near match."""
    if default is None:
        return tyro.cli(cls, args=argv, prog=f"kaleidoscene {verb}", description=cls.__doc__)
    return tyro.cli(cls, args=argv, prog=f"kaleidoscene {verb}", description=cls.__doc__, default=default)


def print_json(document: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(document))
