"""Whether a run that goes on is the run that was begun."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import from_plain, to_plain
from kaleidoscene.training.config import TrainConfig, recipe_identity


class RunIdentity:
    """What a resumed run must have in common with its beginning.

    Args:
        description: ``config.json`` of the task, which has its settings under ``settings``.
        settings: The same settings as the dataclass that they are. Fields of it with the metadata ``of_training=False``
            say how weights are used, may change, and are not compared.
        train: Length, precision, sharding; what does not touch the numbers may change.
        others: More of it by name, dataclasses or plain values.
    """

    def __init__(
        self, description: dict[str, Any], settings: Any, train: TrainConfig, others: Mapping[str, Any]
    ) -> None:
        self._settings, self._others = type(settings), dict(others)
        self.plain: dict[str, Any] = to_plain(
            {"settings": description, **recipe_identity(train), **{key: to_plain(x) for key, x in others.items()}}
        )

    def differences(self, before: dict[str, Any]) -> list[str]:
        """What differs from what a checkpoint says, as ``place: before, now``.

        Keys that did not exist when it was written count as their defaults, which is what there was before them.
        """
        return _differences(self._of_training(self._completed(before)), self._of_training(self.plain))

    def _of_training(self, plain: dict[str, Any]) -> dict[str, Any]:
        described = plain.get("settings")
        if not (dataclasses.is_dataclass(self._settings) and isinstance(described, dict) and "settings" in described):
            return plain
        free = {x.name for x in dataclasses.fields(self._settings) if not x.metadata.get("of_training", True)}
        kept = {key: value for key, value in described["settings"].items() if key not in free}
        return {**plain, "settings": {**described, "settings": kept}}

    def _completed(self, before: dict[str, Any]) -> dict[str, Any]:
        out = dict(before)
        known = {field.name for field in dataclasses.fields(TrainConfig)}
        theirs = _filled(TrainConfig, {key: value for key, value in before.items() if key in known})
        now = self.plain.keys()
        out |= {key: value for key, value in theirs.items() if key in now}
        for key, value in self._others.items():
            if dataclasses.is_dataclass(value) and key in before:
                out[key] = _filled(type(value), before[key])
        described = before.get("settings")
        if isinstance(described, dict) and "settings" in described and dataclasses.is_dataclass(self._settings):
            out["settings"] = {**described, "settings": _filled(self._settings, described["settings"])}
        return out

    def check(self, before: dict[str, Any], run: Path, *, force: bool) -> None:
        """Refuse to go on with another recipe or other data: the losses would not be those of an unbroken run.

        Raises:
            KaleidosceneError: With what is different.
        """
        different = self.differences(before)
        if different and not force:
            raise KaleidosceneError(
                f"{run}: this run was started with another recipe: {'; '.join(different[:5])}. "
                "Give another folder or the same recipe, or --force-recipe to go on all the same."
            )


def _filled(cls: Any, plain: Any) -> Any:
    """JSON of a dataclass with defaults where keys are missing; as it is, if it cannot be read."""
    try:
        return to_plain(from_plain(cls, plain, cls.__name__))
    except KaleidosceneError:
        return plain


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two JSON values, as ``place: before, now``."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        inner = [(f"{where}.{key}" if where else key, before.get(key), now.get(key)) for key in keys]
        return [text for place, a, b in inner for text in _differences(a, b, place)]
    return [] if before == now else [f"{where} was {str(before)[:60]}, is {str(now)[:60]}"]
