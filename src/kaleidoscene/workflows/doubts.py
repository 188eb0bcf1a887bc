"""What may spoil a rendering, said before it begins: backgrounds, and views that no reference is near to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.api import Model
from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.coverage import coverage
from kaleidoscene.rendering.system import Magnifying
from kaleidoscene.workflows.request import RenderRequest

# Share of the outermost pixels that may be coloured: objects do touch the border here and there.
_COLOURED_BORDER, _NOT_WHITE = 0.25, 12 / 255
_FAR = 60.0
# Lenses are others where they are wider, or narrower, by this factor.
_OTHER_LENS = 1.15
_LOOKED_AT = 12
# Share of the distance to the object: training has cameras around it, two of which lie 0.5 of it apart and more.
_TOGETHER = 0.3
# Of the nearest and the farthest reference's distance: cameras beyond are inside the object or meant otherwise.
_INSIDE, _OUTSIDE = 0.3, 5.0
# A view of which less is shown is a guess.
_UNSEEN = 0.1


@dataclass(frozen=True, eq=False)
class Forecast:
    """What can be said of a rendering before it begins.

    Attributes:
        padding: How references are fitted to the lens of the model.
        doubts: What these weights were not made for.
        expected: How much references show, and what such views came out at.
        coverage: Share of each new view that references show.
    """

    padding: list[str]
    doubts: list[str]
    expected: list[str]
    coverage: Float[Tensor, " targets"]

    @property
    def warnings(self) -> list[str]:
        """All that may spoil it."""
        return [*self.padding, *self.doubts]

    @property
    def lines(self) -> list[str]:
        """For users."""
        return [*self.padding, *self.expected, *warnings_of(self.doubts)]

    def refuse(self) -> None:
        """Raise if there is any warning, as ``--strict`` asks.

        Raises:
            KaleidosceneError: With all of them.
        """
        if self.warnings:
            raise KaleidosceneError(f"--strict: {' '.join(self.warnings)}")


def warnings_of(doubts: list[str]) -> list[str]:
    """Doubts as lines for users."""
    return [f"warning: {doubt}" for doubt in doubts]


def forecast_of(model: Model, request: RenderRequest) -> Forecast:
    """What can be said of a request before it is rendered.

    Args:
        model: To render with, for the shape of the references.
        request: Its references and new views.
    """
    references, cameras = request.references, request.cameras
    shown = coverage(references.cameras, cameras, references.origin())
    return Forecast(
        padding=model.describe_fit(references),
        doubts=doubts_of(model, references, cameras, masked=request.masked),
        expected=expectations(model, shown),
        coverage=shown,
    )


def doubts_of(model: Model, references: Capture, cameras: Cameras, *, masked: bool = False) -> list[str]:
    """Sentences on what of a request these weights were not made for; empty if nothing is known to be wrong.

    Args:
        model: To render with.
        references: What it is given.
        cameras: The new views, in the world of the references.
        masked: Whether masks are laid on white.
    """
    lenses = lens_doubts(model, references.cameras, cameras) if references.is_posed else []
    far = _far_views(references, cameras) or _unseen_views(references, cameras)
    of_cameras = [*lenses, *_unit_doubts(model, references, cameras), *_misplaced_views(references, cameras), *far]
    return [*background_doubts(model, references, masked=masked), *_size_doubts(model, references), *of_cameras]


def expectations(model: Model, shown: Float[Tensor, " targets"]) -> list[str]:
    """What is to be expected of new views, by how much of them references show (``geometry/coverage.py``)."""
    low, high, mean = float(shown.min()), float(shown.max()), float(shown.mean())
    sentence = (
        f"The references show {100 * low:.0f} to {100 * high:.0f} % of the new views, as far as cameras tell (mean "
        f"{100 * mean:.0f} %, least in view {int(shown.argmin())})."
    )
    bands = model.system.held_out_psnr
    band = next((band for band in bands if mean <= band[0]), None)
    if band is None:
        return [sentence]
    return [f"{sentence} Half of such views of held-out scenes came out at {band[1]:.0f} to {band[2]:.0f} dB."]


def background_doubts(model: Model, references: Capture, *, masked: bool = False) -> list[str]:
    """Whether weights that know objects on white alone are given pictures with a background.

    Args:
        model: To render with.
        references: What it is given; of many some are looked at.
        masked: Whether masks are laid on white.
    """
    if model.system.background != "white":
        return []
    every = -(-len(references) // _LOOKED_AT)
    share = coloured_border(references.images(masked=masked, only=range(0, len(references), every)))
    if share <= _COLOURED_BORDER:
        return []
    how = "lay the masks on white with --masked" if references.frames[0].mask else "cut them out (alpha or masks)"
    return [
        f"{100 * share:.0f} % of the border of the references is not white; these weights know objects on white alone, "
        f"and smear backgrounds: {how}."
    ]


def _size_doubts(model: Model, references: Capture) -> list[str]:
    """Whether references are smaller than the views that are to be copied from them."""
    system, size, asked = model.system, max(references.common_size), max(model.image_size)
    if size >= asked or not isinstance(system, Magnifying) or system.magnification == 1:
        return []
    return [f"the references have {size} pixels on their longer side: views of {asked} show no more than they do."]


def _unit_doubts(model: Model, references: Capture, cameras: Cameras) -> list[str]:
    """Whether a model whose unit is how far cameras lie apart is given cameras that lie together."""
    if not model.capabilities.unit_of_cameras or not references.is_posed:
        return []
    first = references.cameras.centres[0].double()
    apart = float((torch.cat([references.cameras.centres, cameras.centres]).double() - first).norm(dim=-1).max())
    share = apart / max(float((references.origin().double() - first).norm()), 1e-9)
    if share >= _TOGETHER:
        return []
    return [
        f"all cameras lie within {100 * share:.0f} % of the distance to the object: these weights take how far cameras "
        "lie apart as their unit, and know cameras around objects; depths will be of another scale, and what moves "
        "sideways may come out badly. Add views from elsewhere to the path or the references."
    ]


def lens_doubts(model: Model, *views: Cameras) -> list[str]:
    """Whether a model that takes any lens is given, or asked for, lenses far from those it was trained with."""
    trained = model.system.lenses
    if trained is None or not model.capabilities.any_lens:
        return []
    angles = torch.cat([angles_of_longer_side(model.lens(some)) for some in views])
    if float(angles.min()) > trained[0] / _OTHER_LENS and float(angles.max()) < trained[1] * _OTHER_LENS:
        return []
    known = f"{trained[0]:.0f}" if trained[0] == trained[1] else f"{trained[0]:.0f} to {trained[1]:.0f}"
    return [
        f"the views are {float(angles.min()):.0f} to {float(angles.max()):.0f} degrees wide, these weights were "
        f"trained with lenses of {known}: others may come out badly."
    ]


def angles_of_longer_side(cameras: Cameras) -> Float[Tensor, " views"]:
    """Angles of view in degrees over the longer side of the image."""
    h, w = cameras.image_size
    focal = cameras.intrinsics[..., 1, 1] if h >= w else cameras.intrinsics[..., 0, 0]
    return torch.rad2deg(2 * torch.atan(0.5 * max(h, w) / focal.double()))


def coloured_border(images: Float[Tensor, "views 3 h w"]) -> float:
    """Share of the outermost pixels (a fiftieth of the shorter side, at least one) that are not white."""
    h, w = images.shape[-2:]
    width = max(1, min(h, w) // 50)
    inside = torch.zeros(h, w, dtype=torch.bool)
    inside[width : h - width, width : w - width] = True
    coloured = (1 - images).amax(1) > _NOT_WHITE
    return float(coloured[:, ~inside].float().mean())


def _misplaced_views(references: Capture, cameras: Cameras) -> list[str]:
    """New views of an object from inside of it, or from so far that they must be meant in another world or unit."""
    if references.centred != "object" or not references.is_posed:
        return []
    origin = references.origin().double()
    known, asked = ((some.centres.double() - origin).norm(dim=-1) for some in (references.cameras, cameras))
    near, far = asked < _INSIDE * known.min(), asked > _OUTSIDE * known.max()
    cases = ((near, asked.min() / known.min(), "inside of it, or "), (far, asked.max() / known.max(), ""))
    return [
        f"{int(odd.sum())} of {len(cameras)} new views ({_listed(odd.nonzero().flatten().tolist())}) stand at up to "
        f"{float(worst):.2g} of the references' distance from the middle of the object: {inside}the path is of another "
        "world or unit than the references."
        for odd, worst, inside in cases if bool(odd.any())
    ]  # fmt: skip


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "")


def _far_views(references: Capture, cameras: Cameras) -> list[str]:
    """New views of an object that look at a side of it which no reference shows."""
    if references.centred != "object":
        return []
    angles = degrees_to_nearest(references.cameras, cameras, references.origin())
    far = (angles > _FAR).nonzero().flatten().tolist()
    if not far:
        return []
    return [
        f"{len(far)} of {len(cameras)} new views ({_listed(far)}) look from more than {_FAR:.0f} degrees beside every "
        f"reference (up to {float(angles.max()):.0f}): what no reference shows is guessed."
    ]


def _unseen_views(references: Capture, cameras: Cameras) -> list[str]:
    """New views of a place that show next to nothing which a reference shows."""
    if references.centred != "scene" or not references.is_posed:
        return []
    shown = coverage(references.cameras, cameras, references.origin())
    unseen = (shown < _UNSEEN).nonzero().flatten().tolist()
    if not unseen:
        return []
    return [
        f"{len(unseen)} of {len(cameras)} new views ({_listed(unseen)}) look at what no reference shows, as far as "
        "cameras tell: it is guessed."
    ]


def degrees_to_nearest(references: Cameras, cameras: Cameras, origin: Float[Tensor, " 3"]) -> Float[Tensor, " targets"]:
    """Angle at the middle of the object between each camera and the reference nearest to it."""
    ways = [
        torch.nn.functional.normalize(some.centres.double() - origin.double(), dim=-1) for some in (references, cameras)
    ]
    cosines = (ways[1] @ ways[0].T).clamp(-1, 1).amax(dim=1)
    return cosines.acos() * 180 / math.pi
