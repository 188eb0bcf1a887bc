"""Frozen dataclasses of plain values to JSON and back, strictly: no key is ignored, none is guessed."""

import dataclasses
import hashlib
import json
import os
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from kaleidoscene.errors import KaleidosceneError, unknown_name

T = TypeVar("T")


def write_aside(path: Path, text: str) -> None:
    """Write a text file so that its name always stands for a whole one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def save_aside(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """Write a binary file so that its name always stands for a whole one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        save(file)
    os.replace(partial, path)


def write_json(path: Path, document: Any) -> None:
    """Write JSON so that its name always stands for a whole file.

    Raises:
        ValueError: A number is not finite.
    """
    write_aside(path, json.dumps(document, indent=1, allow_nan=False))


def to_plain(value: Any) -> Any:
    """Nested dataclasses, tuples and plain values as JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    return value


def from_plain(cls: type[T], plain: Any, where: str) -> T:
    """Build a dataclass from JSON types.

    Args:
        cls: The dataclass.
        plain: What ``json.load`` gave.
        where: Place for messages, for example ``"config.json: model"``.

    Raises:
        KaleidosceneError: A key is unknown (its near match is named) or missing, or a value has the wrong type or
            range.
    """
    if not isinstance(plain, dict):
        raise KaleidosceneError(f"{where}: expected an object with the keys of {cls.__name__}, got {plain!r}.")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in plain:
        if key not in fields:
            raise unknown_name(f"key in {where}", key, fields)
    values = {}
    for name, field in fields.items():
        if name in plain:
            values[name] = _convert(hints[name], plain[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise KaleidosceneError(f"{where}: the key {name!r} is missing.")
    try:
        return cls(**values)
    except ValueError as error:
        raise KaleidosceneError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:  # noqa: PLR0911, PLR0912  one return a kind of hint
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where)  # pyright: ignore[reportArgumentType]
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(next(option for option in options if option is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise unknown_name(f"value of {where}", str(value), map(str, typing.get_args(hint)))
        return value
    if hint is Any:
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise KaleidosceneError(f"{where}: expected an object, got {value!r}.")
        kind = typing.get_args(hint)[1]  # keys are names: JSON has no other
        return {key: _convert(kind, item, f"{where}.{key}") for key, item in value.items()}
    if origin is tuple:
        if not isinstance(value, list):
            raise KaleidosceneError(f"{where}: expected a list, got {value!r}.")
        args = typing.get_args(hint)
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) != len(value):
            raise KaleidosceneError(f"{where}: expected {len(kinds)} values, got {len(value)}.")
        return tuple(_convert(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if hint is float and type(value) is int:
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise KaleidosceneError(f"{where}: expected {hint.__name__}, got {value!r}.")
    return value


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
