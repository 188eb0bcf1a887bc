"""What a rendering is asked for: which views are references, and where the new cameras are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from kaleidoscene.api import Model
from kaleidoscene.captures.camera_paths import read_any_camera_path
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.registry import read_capture, scan_capture
from kaleidoscene.captures.frame_files import frame_size
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry import trajectories
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.selection import evenly_spaced, select_views
from kaleidoscene.workflows.unposed import Place, with_cameras

_MOST_INDICES = 1_000_000
_MOST_FRAMES = 1_000_000
_REFERENCES = 3


def parse_indices(text: str, what: str) -> list[int]:
    """``"0,8,16"`` or ``"0-4"`` or a mix, as numbers.

    Raises:
        KaleidosceneError: The text is no such list.
    """
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            if dash and first and last and int(last) < int(first):
                raise KaleidosceneError(f"{what}: {part.strip()} runs backwards; write {last}-{first}.")
            if dash and int(last) - int(first) > _MOST_INDICES:
                raise ValueError
            numbers += range(int(first), int(last) + 1) if dash else [int(first)]
    except KaleidosceneError:
        raise
    except ValueError:
        raise KaleidosceneError(f"{what}: expected numbers such as 0,8,16 or 0-4, got {text!r}.") from None
    if not numbers:
        raise KaleidosceneError(f"{what}: the list is empty.")
    return numbers


def parse_references(text: str) -> list[int]:
    """Numbers of ``--references``, each of them once.

    Raises:
        KaleidosceneError: The text is no list of numbers, or names one twice.
    """
    numbers = parse_indices(text, "--references")
    if (twice := next((number for number in numbers if numbers.count(number) > 1), None)) is not None:
        raise KaleidosceneError(f"--references: view {twice} is named twice; name every reference once.")
    return numbers


def describe_sizes(references: Capture) -> list[str]:
    """What is done with references of several sizes, as sentences for users."""
    sizes = {frame_size(frame) for frame in references.frames}
    if len(sizes) == 1:
        return []
    h, w = references.common_size
    reduced = any(references.framing(frame).reduced != frame_size(frame) for frame in references.frames)
    how = "reduced to a like resolution and cropped" if reduced else "cropped"
    return [f"References of {len(sizes)} sizes are {how} about their middle to the smallest sides, {h}x{w}."]


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """References and targets."""

    capture: tyro.conf.Positional[Path]
    """Folder of any supported capture format, or a single image."""
    format: str | None = None
    """Read the capture as this format instead of detecting it."""
    references: str | None = None
    """Views of the capture to render from, for example 0,8,16 or 0-4."""
    num_references: int | None = None
    """How many views to choose as references where none are named; by default 3, or all where there are fewer."""
    select: Literal["spread", "nearest", "kmeans"] = "spread"
    """How they are chosen: far from each other, near to the targets, or one for each cluster."""
    targets: str | None = None
    """Views of the capture to render (and compare with), for example 10-24, or 'rest': all but the references."""
    trajectory: str = "orbit"
    """Preset: orbit, sphere, spiral, lemniscate, dolly, dolly-zoom, pan, roll, move, with parameters if wanted
    (orbit:degrees=180,elevation=30), or spline: smoothly through the references in the order given."""
    camera_path: Path | None = None
    """JSON camera path (ours or nerfstudio's), instead of a trajectory."""
    cameras_of: Path | None = None
    """Another capture (or RealEstate10K camera file) whose cameras are rendered, in the same world."""
    frames: int = 24
    """Frames of the trajectory."""
    score_references: bool = False
    """Count targets that are also references in the scores; by default they are left out of means."""
    masked: bool = False
    """Lay the capture's masks on white."""
    elevation: float | None = None
    """Of the camera of a single image above the object's middle, degrees (else 20)."""
    distance: float | None = None
    """Of the camera of a single image from the middle of the object, in lengths of its longest side (else 1.85)."""


@dataclass(frozen=True, eq=False)
class RenderRequest:
    """A request that is resolved against its capture.

    Attributes:
        references: The capture with the references alone.
        indices: Which views of the capture they are.
        cameras: To render.
        truth: The capture's views at ``cameras``, if they are some of its own.
        scored: Which of the targets are scored against the truth: all that are no references, unless it is asked for.
        masked: Whether masks are laid on white.
        notes: What there is to be said before anything runs.
    """

    references: Capture
    indices: list[int]
    cameras: Cameras
    truth: Capture | None
    scored: tuple[int, ...]
    masked: bool
    notes: tuple[str, ...]


def check_frames(frames: int) -> None:
    """Raise unless a path can have so many frames.

    Raises:
        KaleidosceneError: With the range.
    """
    if not 1 <= frames <= _MOST_FRAMES:
        raise KaleidosceneError(f"--frames must be from 1 to {_MOST_FRAMES}, got {frames}.")


def resolve_request(options: RequestOptions, model: Model, capture: Capture | None = None) -> RenderRequest:
    """Read the capture, choose references and place the targets.

    Args:
        options: What was asked for.
        model: That will render.
        capture: The capture of the options, where it is read already.

    Raises:
        KaleidosceneError: A view is out of range, two ways of giving targets contradict, or the capture has no cameras.
    """
    check_frames(options.frames)
    place = Place.of(options.distance, options.elevation)
    given = [name for name in ("targets", "camera_path", "cameras_of") if getattr(options, name) is not None]
    if len(given) > 1:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise KaleidosceneError(f"{flags} were both given; the new views come from one of them.")
    capture = capture or read_capture(options.capture, format=options.format)
    notes, views = [f"{capture.name}: {note}." for note in capture.notes], len(capture)
    if capture.is_posed:
        place.refuse(f"{capture.name} has cameras")
    fixed = None if options.references is None else parse_references(options.references)
    alone = not capture.is_posed and model.capabilities.estimates_cameras and options.targets is None
    if alone:  # their world is that of the first reference, of whose camera no other photograph has a say
        fixed = fixed or _without_cameras(options, capture)
        capture = capture.select(fixed)
    if not capture.is_posed:
        capture, note = with_cameras(capture, options.capture, place, model, masked=options.masked)
        notes.append(note)
    cameras, own = _targets_before_references(options, capture, model)
    indices = fixed or _choose(options, capture, cameras, own)
    references = capture if alone else capture.select(indices)
    if options.targets == "rest":
        own = [number for number in range(len(capture)) if number not in indices]
        if not own:
            raise KaleidosceneError(
                f"{capture.name}: there is nothing to render: all {len(capture)} views are references."
            )
        cameras = _as_rendered(capture.cameras[own], model)
    if cameras is None:
        cameras = _path(options, references, model)
    shown = ", ".join(map(str, indices[:12])) + (" ..." if len(indices) > 12 else "")
    notes.append(f"{capture.name}: {views} views, {len(indices)} as references ({shown}).")
    notes += describe_sizes(references)
    truth = None if own is None else capture.select(own)
    both = [place for place, number in enumerate(own or []) if number in indices and not options.score_references]
    if both:
        shown = ", ".join(str((own or [])[place]) for place in both)
        notes.append(
            f"Targets that are references too ({shown}) are left out of the mean score: they are copies "
            "(--score-references counts them)."
        )
    between = [place for place, number in enumerate(own or []) if capture.frames[number].interpolated]
    if between:
        notes.append(f"{len(between)} targets were put between others ('interpolate') and are left out of the score.")
    scored = tuple(place for place in range(len(own or [])) if place not in (*both, *between))
    return RenderRequest(references, indices, cameras, truth, scored, options.masked, tuple(notes))


def _as_rendered(cameras: Cameras, model: Model) -> Cameras:
    """Real cameras, whose lenses may differ: where the model has one of its own, their truth is cropped to it."""
    if model.capabilities.any_lens:
        return cameras
    return replace(cameras, intrinsics=cameras.intrinsics[:1].expand_as(cameras.intrinsics))


def _path(options: RequestOptions, references: Capture, model: Model) -> Cameras:
    if options.trajectory == "spline":
        return trajectories.spline(_as_rendered(references.cameras, model), options.frames)
    return trajectories.preset(options.trajectory, references, options.frames)


def _targets_before_references(
    options: RequestOptions, capture: Capture, model: Model
) -> tuple[Cameras | None, list[int] | None]:
    """Targets that do not depend on the references, and which views of the capture they are, if they are any."""
    if options.targets is not None and options.targets != "rest":
        own = parse_indices(options.targets, "--targets")
        return _as_rendered(capture.select(own).cameras, model), own
    if options.camera_path is not None:
        return read_any_camera_path(options.camera_path, capture.root), None
    if options.cameras_of is not None:
        return _as_rendered(scan_capture(options.cameras_of).cameras, model), None
    return None, None


def references_of(options: RequestOptions, capture: Capture) -> list[int]:
    """Views that are named as references, or chosen where none are.

    Raises:
        KaleidosceneError: The list is none, or there are not so many.
    """
    if options.references is not None:
        return parse_references(options.references)
    return _choose(options, capture, None, None)


def _choose(options: RequestOptions, capture: Capture, targets: Cameras | None, own: list[int] | None) -> list[int]:
    """References that are not named; views that are targets are not among them."""
    known = [number for number, frame in enumerate(capture.frames) if not frame.interpolated]
    free = [number for number in known if number not in (own or [])]
    if not free:
        raise KaleidosceneError(f"{capture.name}: every view is a target, so that none is left as a reference.")
    count = _count(options, capture, len(free))
    if options.select == "nearest" and targets is None:
        raise KaleidosceneError("--select nearest needs targets: give --targets 10-24, --camera-path or --cameras-of.")
    return [free[place] for place in select_views(options.select, capture.cameras[free], count, targets)]


def _without_cameras(options: RequestOptions, capture: Capture) -> list[int]:
    """References among photographs without cameras, by their order."""
    if options.select != "spread":
        raise KaleidosceneError(f"--select {options.select}: {capture.name} has no cameras to choose by.")
    return evenly_spaced(len(capture), _count(options, capture, len(capture)))


def _count(options: RequestOptions, capture: Capture, free: int) -> int:
    """References that are asked for, of so many views."""
    count = min(_REFERENCES, free) if options.num_references is None else options.num_references
    if count < 1:
        raise KaleidosceneError(
            f"{count} references were asked for, at least 1 is needed ('kaleidoscene generate' draws scenes of none)."
        )
    if count > free:
        raise KaleidosceneError(f"--num-references {count}: {capture.name} has {free} views to choose from.")
    return count
