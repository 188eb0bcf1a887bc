"""Weights by name into a model, strictly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor, nn

from kaleidoscene.errors import KaleidosceneError, unknown_name


def check_names(where: Path | str, found: Iterable[str], expected: Iterable[str]) -> None:
    """Refuse names that are missing or left over.

    Raises:
        KaleidosceneError: With their number and the first of them.
    """
    found, expected = set(found), set(expected)
    if missing := sorted(expected - found):
        raise KaleidosceneError(f"{where}: {len(missing)} tensors are missing, the first is {missing[0]!r}.")
    if extra := sorted(found - expected):
        raise KaleidosceneError(
            f"{where}: {len(extra)} tensors do not belong to this model, the first is {extra[0]!r}."
        )


def check_weights(
    model: nn.Module, tensors: dict[str, Tensor], where: Path | str, *, fresh: Sequence[str] = ()
) -> None:
    """Refuse tensors that are not exactly the parameters of a model.

    Args:
        model: What they are for.
        tensors: By name.
        where: They come from, for messages.
        fresh: Parts of the model, by name (``head``, ``head.layer``), that they must not hold.

    Raises:
        KaleidosceneError: Tensors are missing, left over or of the wrong shape; the message names the first.
    """
    for part in fresh:
        if not part or part not in dict(model.named_modules()):
            raise unknown_name("part of the network", part, dict(model.named_children()))
    expected = {
        name: tuple(p.shape)
        for name, p in model.named_parameters()
        if not any(name.startswith(f"{part}.") for part in fresh)
    }
    check_names(where, tensors, expected)
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise KaleidosceneError(f"{where}: {name!r} has shape {list(tensors[name].shape)}, expected {list(shape)}.")


def load_weights(model: nn.Module, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Copy tensors into a model; every name and shape must match.

    Raises:
        KaleidosceneError: See :func:`check_weights`.
    """
    check_weights(model, tensors, where)
    model.load_state_dict(tensors)


def freeze_all_but(model: nn.Module, children: Sequence[str]) -> None:
    """Keep gradients to these children of a model; of none named, all learn.

    Raises:
        KaleidosceneError: The model has no such child.
    """
    known = dict(model.named_children())
    for name in children:
        if name not in known:
            raise unknown_name("part of the network", name, known)
    for name, p in model.named_parameters():
        p.requires_grad_(not children or name.split(".")[0] in children)
