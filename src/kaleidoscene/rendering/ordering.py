"""Which targets go into which call: all at once, in chunks, or one after the other as new references."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.choices import check_choices
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.rendering.renderer import TARGET_SEEDS, OnStep, Renderer, Scene

RenderMode = Literal["joint", "independent", "autoregressive"]


@dataclass(frozen=True, kw_only=True)
class RenderPlan:
    """How the targets of a scene are rendered.

    Attributes:
        mode: ``joint``: the targets of a chunk see each other (paper). ``independent``: each sees references only.
            ``autoregressive``: as ``joint``, and what was rendered becomes reference for the next chunk.
        chunk: Targets in one call; None is all at once (``autoregressive``: one; ``independent``: eight, since chunks
            change nothing there but memory and what is shown of progress).
        order: ``trajectory`` keeps the order of the targets; ``nearest`` always takes next the targets nearest to any
            reference (``autoregressive`` only).
        max_references: Bound on the references of a call; given ones stay, generated ones leave oldest first.
    """

    mode: RenderMode = "joint"
    chunk: int | None = None
    order: Literal["trajectory", "nearest"] = "trajectory"
    max_references: int = 12

    def __post_init__(self) -> None:
        check_choices(self)
        if self.chunk is not None and self.chunk < 1:
            raise KaleidosceneError(f"A chunk holds at least one target, got {self.chunk}.")
        if self.max_references < 1:
            raise KaleidosceneError(f"max_references must be at least 1, got {self.max_references}.")

    def in_one_call(self, targets: int) -> int:
        """How many of so many targets go into one call, at most."""
        return min(targets, self.chunk or {"autoregressive": 1, "independent": 8, "joint": targets}[self.mode])

    def changed(
        self,
        *,
        mode: RenderMode | None = None,
        chunk: int | None = None,
        order: Literal["trajectory", "nearest"] | None = None,
        max_references: int | None = None,
    ) -> RenderPlan:
        """What of it is asked for otherwise; another mode does not keep the chunks of this one."""
        plan = self if mode in (None, self.mode) else RenderPlan(mode=mode or self.mode)
        given = {"chunk": chunk, "order": order, "max_references": max_references}
        return replace(plan, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, eq=False)
class Chunk:
    """Targets that came out of one call.

    Attributes:
        indices: Their places in the request.
        images: RGB in [0, 1].
        depths: Along the optical axis in world units, 0 where nothing is met; None where not wanted, or not known.
        is_new: False where an earlier run had rendered them.
    """

    indices: list[int]
    images: Float[Tensor, "targets 3 h w"]
    depths: Float[Tensor, "targets h w"] | None = None
    is_new: bool = True


Finished = Callable[[list[int]], Chunk | None]
"""Targets that an earlier run rendered, None if one of them is missing."""


def render_in_order(
    renderer: Renderer,
    scene: Scene,
    reference_cameras: Cameras,
    cameras: Cameras,
    plan: RenderPlan,
    *,
    seed: int,
    depth: bool = True,
    on_step: OnStep | None = None,
    finished: Finished | None = None,
) -> Iterator[Chunk]:
    """Render the targets of one scene, chunk by chunk; memory does not grow with their number.

    The noise of a target depends on ``seed`` and its place in the request only.

    Args:
        renderer: Of any family.
        scene: Of batch 1.
        reference_cameras: Of the scene's references, ``(refs,)``.
        cameras: Of the targets, ``(targets,)``.
        plan: Order and grouping.
        seed: Any number.
        depth: Depths are wanted as well, of renderers that know them.
        on_step: Progress inside a call.
        finished: What need not be rendered again.

    Raises:
        KaleidosceneError: There are no targets, or more given references than the plan allows.
    """
    if not len(cameras):
        raise KaleidosceneError("There is nothing to render: zero targets.")
    given = len(reference_cameras)
    if plan.mode == "autoregressive" and given > plan.max_references:
        raise KaleidosceneError(f"{given} references were given, max_references is {plan.max_references}.")
    scene = renderer.expect(scene, cameras.reshape(1, len(cameras)))
    size = plan.in_one_call(len(cameras))
    known = reference_cameras.centres
    left = list(range(len(cameras)))
    while left:
        if plan.mode == "autoregressive" and plan.order == "nearest":
            distance = torch.cdist(cameras.centres[left], known).amin(dim=1)
            left = [left[i] for i in distance.argsort(stable=True).tolist()]
        indices, left = left[:size], sorted(left[size:])
        chosen = cameras[indices].reshape(1, len(indices))
        done = finished(indices) if finished is not None else None
        if done is None:
            rendering = renderer.render(
                scene, chosen, seeds=[seed * TARGET_SEEDS + i for i in indices],
                independent=plan.mode == "independent", depth=depth, on_step=on_step,
            )  # fmt: skip
            depths = None if rendering.depths is None else rendering.depths[0]
            done = Chunk(indices, rendering.images[0], depths)
        yield done
        if plan.mode == "autoregressive" and left:
            scene = _grow(renderer, scene, done.images[None], chosen, given, plan.max_references)
            generated = torch.cat([known[given:], cameras.centres[indices]])
            room = min(plan.max_references - given, len(generated))
            known = torch.cat([known[:given], generated[len(generated) - room :]])


def _grow(renderer: Renderer, scene: Scene, images: Tensor, cameras: Cameras, given: int, bound: int) -> Scene:
    """Take generated views in as references, the oldest generated ones out."""
    new = min(images.shape[1], bound - given)
    if new < 1:
        return scene
    generated = list(range(given, scene.num_references))
    room = bound - given - new
    keep = list(range(given)) + (generated[len(generated) - min(room, len(generated)) :] if room else [])
    return renderer.extend(scene, images[:, -new:], cameras[:, -new:], keep=keep)
