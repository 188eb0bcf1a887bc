"""Run a protocol on captures with a renderer: PSNR and SSIM for every object and number of references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from anyview.errors import AnyViewError
from anyview.evaluation.metrics.image import psnr, ssim
from anyview.evaluation.protocols import Protocol, check_references, nearest_reference
from anyview.geometry.cameras import Cameras
from anyview.rendering.renderer import Renderer


@dataclass(frozen=True, eq=False)
class HeldOutObject:
    """One capture at the size of the model, object centre at the world's origin."""

    name: str
    images: Float[Tensor, "views 3 h w"]
    cameras: Cameras


@dataclass(frozen=True, eq=False)
class Score:
    """Means over the targets of one object at one number of references."""

    object: str
    references: int
    psnr: float
    ssim: float
    copy_psnr: float
    """Of copying the nearest reference."""
    copy_ssim: float
    images: Float[Tensor, "targets 3 h w"]


def evaluate(
    renderer: Renderer,
    objects: Sequence[HeldOutObject],
    protocol: Protocol,
    counts: list[int],
    *,
    seed: int = 0,
    independent: bool = True,
    on_object: Callable[[int], None] | None = None,
) -> list[Score]:
    """Score every object with every number of references.

    Args:
        renderer: Of any family.
        objects: Captures with ``protocol.views`` views each.
        protocol: Which views are targets.
        counts: Numbers of references.
        seed: Of the noise.
        independent: Render every target alone; else all targets of an object see each other.
        on_object: Called with the number of objects done.

    Raises:
        AnyViewError: An object has too few views, or references would overlap with targets.
    """
    check_references(protocol, counts)
    if not objects:
        raise AnyViewError("There is nothing to evaluate: no objects.")
    scores = []
    for done, thing in enumerate(objects):
        if len(thing.cameras) < protocol.views:
            raise AnyViewError(
                f"{thing.name}: {len(thing.cameras)} views, protocol {protocol.name} needs {protocol.views}."
            )
        scores += [_score(renderer, thing, protocol, count, seed, independent) for count in counts]
        if on_object is not None:
            on_object(done + 1)
    return scores


def _score(
    renderer: Renderer, thing: HeldOutObject, protocol: Protocol, count: int, seed: int, independent: bool
) -> Score:
    targets = list(protocol.targets)
    truth, cameras = thing.images[targets], thing.cameras[targets]
    references, at = thing.images[:count], thing.cameras[:count]
    scene = renderer.encode(references[None], at.reshape(1, count))
    seeds = [seed * 1_000_003 + target for target in targets]
    images = (
        renderer.render(scene, cameras.reshape(1, len(targets)), seeds=seeds, independent=independent).images[0].cpu()
    )
    copies = references[nearest_reference(at, cameras)]
    return Score(
        thing.name, count, float(psnr(images, truth).mean()), float(ssim(images, truth).mean()),
        float(psnr(copies, truth).mean()), float(ssim(copies, truth).mean()), images,
    )  # fmt: skip


def means(scores: Sequence[Score]) -> dict[int, dict[str, float]]:
    """Means over objects for every number of references."""
    out: dict[int, dict[str, float]] = {}
    for count in sorted({score.references for score in scores}):
        group = [score for score in scores if score.references == count]
        names = ("psnr", "ssim", "copy_psnr", "copy_ssim")
        out[count] = {name: torch.tensor([getattr(s, name) for s in group]).mean().item() for name in names}
    return out
