"""What recipes that distil have in common: a student needs a teacher, its weights, and to be built as it is."""

from __future__ import annotations

from typing import Any

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.flow.distillation import Distillation
from kaleidoscene.serialisation import file_sha256, to_plain

NO_DISTILLATION = Distillation()
"""Ordinary training."""


def identity_of(distil: Distillation) -> dict[str, Any]:
    """What a resumed run must have in common with its beginning: not where its teacher lies, which may move."""
    if distil.teacher is None:
        return {}
    weights = file_sha256(resolve(distil.teacher) / "model.safetensors")
    return {"distil": {**to_plain(distil), "teacher": weights}}


def check_student(distil: Distillation, init: str | None, *, resumes: bool) -> None:
    """Raise if there is no teacher for what is asked, or nothing to begin from.

    Raises:
        KaleidosceneError: With what is missing.
    """
    if distil.teacher is None and distil != NO_DISTILLATION:
        raise KaleidosceneError("--distil needs its teacher: give --distil.teacher RUN.")
    if distil.teacher is not None and init is None and not resumes:
        raise KaleidosceneError("A student starts from its teacher's weights: give --init as well.")


def check_teacher(distil: Distillation, theirs: object, ours: object) -> None:
    """Raise if a teacher's architecture is not the student's.

    Raises:
        KaleidosceneError: It is not.
    """
    if theirs != ours:
        raise KaleidosceneError(
            f"{distil.teacher}: another network than the recipe's; a student is built like its teacher."
        )
