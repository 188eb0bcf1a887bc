"""What a configuration may hold: a bad name or number is refused where it is given, not where it is used."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterable
from typing import Any

from kaleidoscene.errors import unknown_name


def check_choices(config: Any) -> None:
    """Raise if a field of a dataclass is not one of the names of its ``Literal`` type; for its ``__post_init__``.

    Raises:
        KaleidosceneError: With the nearest name.
    """
    for name, allowed in _choices(type(config)).items():
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one not in allowed:
                known = [str(choice) for choice in allowed if choice is not None]
                raise unknown_name(f"{name} of {type(config).__name__}", str(one), known)


def check_range(config: Any, low: float | int, high: float | int, *names: str, above: bool = False) -> None:
    """Raise if a number of a dataclass is out of its range, or none at all; for its ``__post_init__``.

    Args:
        config: The dataclass.
        low: Least value.
        high: Largest value; infinity for none, which is no value itself.
        names: Of its fields; None and tuples of numbers may be in them.
        above: ``low`` itself is out.

    Raises:
        ValueError: With the field and what it may be.
    """
    for name in names:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and not ((low < one if above else low <= one) and one <= high and abs(one) < math.inf):
                least = f"above {low:g}" if above else f"at least {low:g}"
                most = "" if high == math.inf else f" and at most {high:g}"
                raise ValueError(f"{name} must be {least}{most}, got {one}.")


def given(options: Any, names: Iterable[str]) -> list[str]:
    """Fields of a dataclass that do not have their default, of some; what a request asks for in vain is refused."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    return [name for name in names if getattr(options, name) != defaults[name]]


@functools.cache
def _choices(cls: type) -> dict[str, tuple[Any, ...]]:
    """Allowed values of the fields that have some."""
    found = {name: _allowed(hint) for name, hint in typing.get_type_hints(cls).items()}
    return {name: allowed for name, allowed in found.items() if allowed}


def _allowed(hint: Any) -> tuple[Any, ...]:
    """Of a ``Literal``, of one that may be None, or of a tuple of them; empty for all else."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    parts = typing.get_args(hint)
    literals = [part for part in parts if typing.get_origin(part) is typing.Literal]
    if not literals or any(part not in (*literals, type(None), Ellipsis) for part in parts):
        return ()
    return (*(choice for part in literals for choice in typing.get_args(part)), *((None,) * (type(None) in parts)))
