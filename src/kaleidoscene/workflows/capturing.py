"""From ordinary photographs to a capture that renders: taken in, chosen, given cameras, checked, in one folder."""

from __future__ import annotations

import html
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kaleidoscene.api import load
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.report import write_findings
from kaleidoscene.captures.checking.run import check_capture
from kaleidoscene.captures.conversion.images import write_images
from kaleidoscene.captures.conversion.tools import to_nerfstudio
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.formats.registry import BARE, find_posed, read_capture, scan_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_frames
from kaleidoscene.captures.intake import sharpest, take_in
from kaleidoscene.captures.posing import NoCamerasError, PoseConfig, PoseResult, estimate_poses
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import whole_folder
from kaleidoscene.reconstruction.cutting import CutOutConfig
from kaleidoscene.reconstruction.grab_cut import opencv
from kaleidoscene.serialisation import write_aside
from kaleidoscene.workflows.cutting import SHEET, Masked, cut_out_capture, masks_of, take_masks
from kaleidoscene.workflows.unposed import Place

PAGE = "capture.html"
_FEW = 0.7
_CAMERAS = '<h2>Cameras</h2><p><a href="frusta.html">turn them</a></p><img src="frusta.png" alt="cameras">'
_CUT = f'<h2>Cut out</h2><img src="{SHEET}" alt="photographs, and what is left of them">'
_STYLE = (
    "body{font-family:sans-serif;margin:24px;max-width:900px}img{max-width:100%}td,th{padding:4px 10px;text-align:left}"
)


@dataclass(frozen=True)
class Captured:
    """What came of it.

    Attributes:
        images: That were looked at.
        posed: Of them, that have cameras.
        masked: Whether they have masks.
        moves: Whether cameras stand at several places, or look at something at a distance.
        steps: What was done, as sentences.
        advice: What would make it better, likewise.
        findings: Of the check.
    """

    images: int
    posed: int
    masked: bool
    moves: bool
    steps: tuple[str, ...]
    advice: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class CapturingJob:
    """What is taken in, and how.

    Attributes:
        source: Folder of photographs, archive, film or one picture.
        out: Folder of the capture.
        frames: Of a film, how many are taken.
        pose: How cameras are estimated.
        pose_model: A model that tells cameras in place of structure from motion.
        place: Of the camera of a single picture.
        cut: Cut the object out, and how; None: leave pictures as they are.
        masks: Folder of masks of others, which are taken.
        panoramas: See :func:`kaleidoscene.captures.intake.take_in`.
        overwrite: Replace the folder.
    """

    source: Path
    out: Path
    frames: int = 40
    pose: PoseConfig = PoseConfig()
    pose_model: str | None = None
    place: Place = Place()
    cut: CutOutConfig | None = None
    masks: Path | None = None
    panoramas: bool = False
    overwrite: bool = False

    def run(self, on_stage: Callable[[str], None]) -> Captured:
        """Make the capture.

        Args:
            on_stage: Called with what is being done.

        Raises:
            KaleidosceneError: Nothing is read, there are cameras already, or none can be estimated. Where cameras were
                estimated and no object could be cut out, the capture is written all the same.
        """
        if self.frames < 2:
            raise KaleidosceneError(f"--frames must be at least 2, got {self.frames}.")
        if self.cut is not None and self.masks is not None:
            raise KaleidosceneError("--cut-out and --masks were both given; masks come from one of them.")
        nothing_cut = ""
        with (
            tempfile.TemporaryDirectory() as scratch,
            whole_folder(self.out, overwrite=self.overwrite, sources=[self.source, self.masks]) as folder,
        ):
            on_stage("reading")
            capture, steps = self._take_in(Path(scratch))
            given = capture.format not in BARE
            is_posed = self.source.is_dir() and find_posed(self.source) is not None
            if is_posed and self.cut is None and self.masks is None:
                raise KaleidosceneError(
                    f"{self.source}: a {capture.format} capture, which has cameras already; render it as it is."
                )
            self._check_ways(capture, given=given)
            if capture.format == "video":
                on_stage("looking for sharp frames")
                capture = sharpest(capture, self.frames)
            steps += [f"{note[0].upper()}{note[1:]}." for note in capture.notes]
            self._check_masks(capture)
            if given:
                to_nerfstudio(capture, folder)
                posed, more, advice = len(capture), [], []
            else:
                posed, more, advice = self._give_cameras(capture, folder, on_stage)
            if self.cut is not None or self.masks is not None:
                on_stage("cutting out")
                masked, nothing_cut = self._masked(folder, keep=not given)
                more, advice = [*more, *masked.steps], [*advice, *masked.advice]
            on_stage("checking")
            made = scan_capture(folder)
            findings = check_capture(made)
            is_masked = all(frame.mask is not None for frame in made.frames)
            moves = float((made.cameras.centres - made.origin().to(made.cameras.centres)).norm(dim=-1).amax()) > 0
            written = write_findings(folder, made, findings)
            captured = Captured(len(capture), posed, is_masked, moves, (*steps, *more), tuple(advice), tuple(findings))
            shown = [*written, *([SHEET] if (folder / SHEET).is_file() else [])]
            write_aside(folder / PAGE, _page(self.source.name, captured, shown))
        read_capture(self.out)  # what was written is what 'render' takes
        if nothing_cut:
            raise KaleidosceneError(
                f"{self.out}: the capture is written with its cameras, without masks: {nothing_cut}"
            )
        return captured

    def _take_in(self, scratch: Path) -> tuple[Capture, list[str]]:
        """As :func:`kaleidoscene.captures.intake.take_in`; what is wrong is told of the source, not of copies."""
        try:
            return take_in(self.source, scratch, panoramas=self.panoramas)
        except KaleidosceneError as error:
            kinds = "|".join(map(re.escape, ("unpacked", "converted", "cut")))
            said = re.sub(rf"{re.escape(str(scratch))}/(?:{kinds})/[^/]+", str(self.source), str(error))
            raise KaleidosceneError(said) from error

    def _check_ways(self, capture: Capture, *, given: bool) -> None:
        """Raise if cameras are asked for in a way that does not come to pass."""
        what = "cameras already" if given else "one picture" if len(capture) == 1 else f"{len(capture)} pictures"
        if given or len(capture) > 1:
            self.place.refuse(f"{self.source} has {what}")
        if self.pose_model is not None and (given or len(capture) == 1):
            raise KaleidosceneError(f"--pose-model tells cameras of several pictures: {self.source} has {what}.")

    def _check_masks(self, capture: Capture) -> None:
        """Raise if masks could not be had in the end, before cameras are estimated, which takes minutes."""
        if self.cut is not None:
            opencv()
        if self.masks is not None:
            masks_of(capture, self.masks)

    def _masked(self, folder: Path, *, keep: bool) -> tuple[Masked, str]:
        """What was written so far, with masks in its transforms.json; with ``keep`` without them, and why, if no object
        was found.
        """
        capture = read_capture(folder, format="transforms")
        try:
            if self.masks is not None:
                masked = take_masks(capture, self.masks, folder)
            else:
                masked = cut_out_capture(capture, folder, self.cut or CutOutConfig())
        except KaleidosceneError as error:
            if not keep or self.masks is not None:
                raise
            return Masked(capture, ()), str(error)
        points = "points.ply" if (folder / "points.ply").is_file() else None
        write_frames(folder / "transforms.json", masked.capture, points=points)
        return masked, ""

    def _give_cameras(
        self, capture: Capture, folder: Path, on_stage: Callable[[str], None]
    ) -> tuple[int, list[str], list[str]]:
        """Write the capture with its cameras; how many views have one, what was done, what would help."""
        if len(capture) == 1:
            write_frames(folder / "transforms.json", self.place.posed(write_images(capture, folder), None))
            said = f"One picture: its camera was put {self.place}; it looks at the middle of the object."
            return 1, [said], ["Pictures from several sides show what one cannot."]
        started = time.perf_counter()
        if self.pose_model is not None:
            on_stage("asking the model for cameras")
            told = self._told_cameras(capture, write_images(capture, folder), self.pose_model)
            write_frames(folder / "transforms.json", replace(told, centred="object"))
            said = f"The cameras of {len(told)} images are told by {self.pose_model}, about one object before white."
            return len(told), [said], ["Look at the cameras before you use them: what a model tells is a guess."]
        try:
            result = estimate_poses(capture, folder, self.pose, on_stage=on_stage)
        except NoCamerasError as error:
            raise NoCamerasError(f"{error} --pose-model rng has a model guess them.") from error
        seconds = time.perf_counter() - started
        said = (
            f"{result.registered} of {result.images} images have cameras by structure from motion, {result.points} "
            f"points, mean reprojection error {result.reprojection_error:.2f} px, in {seconds:.0f} s."
        )
        if result.principal_point is not None:
            x, y = result.principal_point
            said += f" The optical axis meets the pictures {x:+.1f} px right and {y:+.1f} px below their middle."
        return result.registered, [said], _advice(result)

    def _told_cameras(self, capture: Capture, written: Capture, model: str) -> Capture:
        """Copies of images with the cameras that a model tells of them, on white where there are masks."""
        frames = written.frames
        if self.masks is not None:
            frames = tuple(replace(f, mask=mask) for f, mask in zip(frames, masks_of(capture, self.masks), strict=True))
        masked = all(frame.mask is not None for frame in frames)
        told = load(model).estimate_cameras(replace(written, frames=frames), masked=masked).upright()
        kept = [replace(new, mask=old.mask) for new, old in zip(told.frames, written.frames, strict=True)]
        return replace(told, frames=tuple(kept))  # masks of others are copied later


def _advice(result: PoseResult) -> list[str]:
    advice = []
    if result.registered < _FEW * result.images:
        advice.append("Few images were placed: take sharp pictures of a still scene, with half of each in the next.")
    if result.others:
        advice.append(
            f"{result.others} images hang together among themselves alone; pictures between them and the rest help."
        )
    if result.reprojection_error > 1.5:
        advice.append(
            "Points miss their pixels by more than is usual: the zoom may have changed (--pose.shared-camera False), "
            "or things moved."
        )
    return advice


def _page(name: str, captured: Captured, written: list[str]) -> str:
    """What was done, where the cameras are, what is wrong, what would help."""

    def items(sentences: tuple[str, ...] | list[str]) -> str:
        return "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)

    shown = [finding for finding in captured.findings if finding.severity != "note"]
    cells = [(f.severity, f.value, f.effect, f.remedy) for f in shown]
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in cells)
    found = f"<table><tr><th></th><th>what</th><th>effect</th><th>what to do</th></tr>{rows}</table>" if shown else (
        "<p>No errors and no warnings.</p>"
    )  # fmt: skip
    advice = f"<h2>What would make it better</h2><ul>{items(captured.advice)}</ul>" if captured.advice else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(name)}</title>'
        f"<style>{_STYLE}</style>"
        f"<h1>{html.escape(name)}</h1><p>{captured.posed} of {captured.images} images have cameras.</p>"
        f"<h2>What was done</h2><ul>{items(captured.steps)}</ul>{advice}<h2>Findings</h2>{found}"
        f"{_CUT if SHEET in written else ''}{_CAMERAS if 'frusta.html' in written else ''}</html>\n"
    )
