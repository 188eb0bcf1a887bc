"""Scores of a network of any family while it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from kaleidoscene.evaluation.held_out import read_objects
from kaleidoscene.evaluation.protocols import ESCHERNET_GSO
from kaleidoscene.evaluation.run import evaluate, means, splits_of
from kaleidoscene.evaluation.samples import write_samples
from kaleidoscene.training.task import Task
from kaleidoscene.training.trainer import Validate

_COUNTS, _MOST_OBJECTS = [1, 3, 5], 16
_SHOWN_COUNT = 3


@runtime_checkable
class ValidatesItself(Protocol):
    """A task whose networks are scored in a way of their own, since they render no cameras."""

    def validation(self, folder: Path) -> Validate:
        """Scores of a network on what is in a folder."""
        ...


def validation(task: Task, folder: Path) -> Validate:
    """PSNR on held-out captures with 1, 3 and 5 references, by the model's own way of rendering, and pictures with 3.

    Args:
        task: Makes a system of the network.
        folder: Captures, of which up to 16 are taken.
    """
    if isinstance(task, ValidatesItself):
        return task.validation(folder)
    objects = read_objects(folder, task.system(task.model))[:_MOST_OBJECTS]

    splits = splits_of(objects, ESCHERNET_GSO, _COUNTS)

    def validate(model: nn.Module, pictures: Path | None) -> dict[str, float]:
        scores = evaluate(task.system(model).renderer, objects, ESCHERNET_GSO, _COUNTS)
        if pictures is not None:
            write_samples(pictures, objects, splits, [score for score in scores if score.references == _SHOWN_COUNT])
        return {f"psnr_{count}": numbers["psnr"] for count, numbers in means(scores).items()}

    return validate
