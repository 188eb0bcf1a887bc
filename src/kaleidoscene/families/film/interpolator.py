"""Frames between frames with a network at hand: any size, any number, any time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.film.checkpoint import load_model
from kaleidoscene.families.film.config import FilmSettings
from kaleidoscene.families.film.model import Film


class Interpolator:
    """Puts frames between two frames (method A.14).

    Args:
        model: A trained network.
        settings: Of its checkpoint.
    """

    def __init__(self, model: Film, settings: FilmSettings) -> None:
        self.model, self.settings = model, settings

    @torch.no_grad()
    def between(
        self, first: Float[Tensor, "3 h w"], second: Float[Tensor, "3 other_h other_w"], time: float = 0.5
    ) -> Float[Tensor, "3 h w"]:
        """The frame at a time between two.

        Args:
            first: RGB in [0, 1], of any size.
            second: Of the same size.
            time: In [0, 1]; other than one half is ours.

        Raises:
            ValueError: The frames differ in size.
        """
        if first.shape != second.shape:
            raise ValueError(f"Frames of two sizes: {tuple(first.shape[-2:])} and {tuple(second.shape[-2:])}.")
        h, w = first.shape[-2:]
        below, right = -h % self.settings.model.multiple, -w % self.settings.model.multiple
        device = next(self.model.parameters()).device
        both = torch.stack([first, second]).to(device)
        # What lies beyond the border is the border, as where motion looks out of the picture.
        both = F.pad(both, (0, right, 0, below), mode="replicate")
        made = self.model(both[:1], both[1:], time)[0, :, :h, :w]
        return made.clamp(0, 1).to(first.device)

    def doubled(
        self, first: Float[Tensor, "3 h w"], second: Float[Tensor, "3 h w"], doublings: int
    ) -> list[Float[Tensor, "3 h w"]]:
        """The ``2 ** doublings - 1`` frames between two, each from its two nearest (recursion, as the paper)."""
        if not doublings:
            return []
        middle = self.between(first, second)
        before = self.doubled(first, middle, doublings - 1)
        return [*before, middle, *self.doubled(middle, second, doublings - 1)]

    def denser(
        self, frames: Iterable[tuple[float, Float[Tensor, "3 h w"], bool]], doublings: int
    ) -> Iterator[tuple[float, Float[Tensor, "3 h w"], bool]]:
        """A film with ``2 ** doublings - 1`` frames between two of its frames.

        Args:
            frames: Time, picture, and whether another shot begins with it; over a cut the frame before it stays.
            doublings: How many times the number of frames is doubled.

        Yields:
            Time, picture, whether it was made.
        """
        parts = 2**doublings
        source = iter(frames)
        before = next(source, None)
        for after in source:
            assert before is not None
            (start, first, _), (end, second, is_cut) = before, after
            yield start, first, False
            between = [first] * (parts - 1) if is_cut else self.doubled(first, second, doublings)
            for number, picture in enumerate(between, start=1):
                yield start + (end - start) * number / parts, picture, not is_cut
            before = after
        if before is not None:
            yield before[0], before[1], False

    def at(
        self, frames: Iterable[tuple[float, Float[Tensor, "3 h w"], bool]], times: Iterable[float]
    ) -> Iterator[tuple[float, Float[Tensor, "3 h w"], bool]]:
        """A film at other times.

        Args:
            frames: Time, picture, and whether another shot begins with it, in ascending order; over a cut nothing is
                put together: what was there last stays.
            times: Ascending, none before the first frame; those behind the last one end the film.

        Yields:
            Time, picture, whether it was made.
        """
        source = iter(frames)
        before = next(source, None)
        after = next(source, None)
        for time in times:
            while before is not None and after is not None and after[0] <= time:
                before, after = after, next(source, None)
            if before is None or (after is None and time > before[0] + 1e-9):
                return
            if after is None or time - before[0] < 1e-9 or after[2]:
                yield time, before[1], False
                continue
            share = (time - before[0]) / (after[0] - before[0])
            yield time, self.between(before[1], after[1], share), True


def load_interpolator(name: str | Path, device: str = "cpu") -> Interpolator:
    """A trained interpolator.

    Args:
        name: Shipped weights, a checkpoint or run folder, or a hub id.
        device: Where it computes.

    Raises:
        KaleidosceneError: There is none of that name, or it is of another family.
    """
    return Interpolator(*load_model(resolve(name), device))
