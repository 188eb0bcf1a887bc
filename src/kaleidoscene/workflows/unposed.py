"""Images without cameras: a single one, whose camera users place, or several, of which a model estimates them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from kaleidoscene.api import Model
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.photos import intrinsics_of
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.poses import beside_object
from kaleidoscene.rendering.system import TellsCameras

DISTANCE, ELEVATION = 1.85, 20.0
"""Where nobody says it: in lengths of the object's longest side from its middle, and degrees above it."""
# AUC@30 in percent below which users are told not to build on estimated cameras.
_RELIABLE = 35.0


def check_place(distance: float, elevation: float) -> None:
    """Raise unless a camera can stand there.

    Raises:
        KaleidosceneError: The option that is out of range.
    """
    if not 0 < distance < math.inf:
        raise KaleidosceneError(f"--distance must be above 0, got {distance}.")
    if not -90 <= elevation <= 90:
        raise KaleidosceneError(f"--elevation must be from -90 to 90 degrees, got {elevation}.")


@dataclass(frozen=True)
class Place:
    """Where the camera of a single photograph stands.

    Attributes:
        distance: From the object's middle, in lengths of its longest side.
        elevation: Above it, degrees.
        given: Options by which users said so.
    """

    distance: float = DISTANCE
    elevation: float = ELEVATION
    given: tuple[str, ...] = ()

    @classmethod
    def of(cls, distance: float | None, elevation: float | None) -> Place:
        """Of options, None where they were not given.

        Raises:
            KaleidosceneError: One is out of range.
        """
        options = {"--distance": distance, "--elevation": elevation}
        distance = DISTANCE if distance is None else distance
        elevation = ELEVATION if elevation is None else elevation
        check_place(distance, elevation)
        return cls(distance, elevation, tuple(name for name, value in options.items() if value is not None))

    def refuse(self, why: str) -> None:
        """Raise if it was given, since nothing asks for it.

        Raises:
            KaleidosceneError: With ``why``, a sentence that begins with what there is instead.
        """
        if self.given:
            raise KaleidosceneError(f"{self.given[0]} places the camera of a single photograph: {why}.")

    def __str__(self) -> str:
        return f"{self.distance:g} object lengths away, {self.elevation:g} degrees up"

    def posed(self, capture: Capture, focal_over_side: float | None) -> Capture:
        """A capture of one image with its camera there.

        Args:
            capture: The image.
            focal_over_side: Focal length over its shorter side; None leaves the lens as it is.
        """
        frame = replace(capture.frames[0], world_from_cam=beside_object(self.distance, self.elevation))
        if focal_over_side is not None:
            assert frame.image_size is not None
            focal = focal_over_side * min(frame.image_size)
            frame = replace(frame, intrinsics=intrinsics_of(focal, frame.image_size))
        return replace(capture, frames=(frame,), centred="object")


def with_cameras(capture: Capture, source: Path, place: Place, model: Model, *, masked: bool) -> tuple[Capture, str]:
    """Images without cameras with some: estimated by the model, if it does that, or one that is placed.

    Args:
        capture: The images.
        source: Where they lie, for messages.
        place: Of the camera of a single image.
        model: That will render.
        masked: Lay masks on white.

    Returns:
        The capture, and a sentence for users.

    Raises:
        KaleidosceneError: The model needs cameras, and there are several images; or a place is given in vain.
    """
    if model.capabilities.estimates_cameras:
        place.refuse(f"{model.system.family} estimates cameras itself, in a world where the first one is at distance 1")
        posed = model.estimate_cameras(capture, masked=masked).upright()
        known = sum(frame.intrinsics is not None and not frame.guessed_focal for frame in capture.frames)
        lenses = f" The lenses of {known} are known, and kept." if known else ""
        note = f"{capture.name}: {len(capture)} images without cameras; {model.system.family} estimates them.{lenses}"
        return posed, note + _trust_in_cameras(model, len(capture))
    if len(capture) == 1:
        return _place_single_image(capture, place, model)
    place.refuse(f"{capture.name} has {len(capture)} images")
    try:
        model.require("estimates_cameras", f"{capture.name}, {len(capture)} images without cameras,")
    except KaleidosceneError as error:
        raise KaleidosceneError(
            f"{error} Estimate them with 'kaleidoscene pose {source} --out CAPTURE' first, or give a single image."
        ) from error
    raise AssertionError("required above")


def _trust_in_cameras(model: Model, views: int) -> str:
    """What to make of estimated cameras, as a further sentence; of one view there is nothing to be wrong about."""
    measured = model.system.held_out_auc30 if isinstance(model.system, TellsCameras) else None
    if measured is None or views == 1:
        return ""
    guesses = ": they are guesses, and views are right beside the first image alone" if measured < _RELIABLE else ""
    return f" Those of held-out objects came to {measured:g} % (AUC@30){guesses}."


def _place_single_image(capture: Capture, place: Place, model: Model) -> tuple[Capture, str]:
    """A camera for a single image: the model's own lens, looking at the middle of an object of size 1."""
    focal = model.system.focal_over_height * model.image_size[0] / min(model.image_size)
    angle = math.degrees(2 * math.atan(0.5 / focal))
    note = (
        f"{capture.name}: a single image: its camera is taken to be {place}, with the model's field of view of "
        f"{angle:.1f} degrees."
    )
    return place.posed(capture, focal), note
