"""What the verbs share: parsing, lists of numbers, the machine-readable last line."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import tyro

from kaleidoscene.errors import KaleidosceneError

T = TypeVar("T")
_MOST_INDICES = 1_000_000


def parse(cls: type[T], argv: list[str], verb: str, default: T | None = None) -> T:
    """Options of a verb; a bad flag ends the program with tyro's message and its near match."""
    if default is None:
        return tyro.cli(cls, args=argv, prog=f"kaleidoscene {verb}", description=cls.__doc__)
    return tyro.cli(cls, args=argv, prog=f"kaleidoscene {verb}", description=cls.__doc__, default=default)


def parse_indices(text: str, what: str) -> list[int]:
    """``"0,8,16"`` or ``"0-4"`` or a mix, as numbers.

    Raises:
        KaleidosceneError: The text is no such list.
    """
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            if dash and int(last) - int(first) > _MOST_INDICES:
                raise ValueError
            numbers += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise KaleidosceneError(f"{what}: expected numbers such as 0,8,16 or 0-4, got {text!r}.") from None
    if not numbers:
        raise KaleidosceneError(f"{what}: the list is empty.")
    return numbers


def print_json(document: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(document))
