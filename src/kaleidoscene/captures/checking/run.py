"""All checks of a capture, in the order of what depends on what."""

from __future__ import annotations

from dataclasses import replace

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.conventions import convention_findings
from kaleidoscene.captures.checking.files import file_findings
from kaleidoscene.captures.checking.lenses import lens_findings
from kaleidoscene.captures.checking.poses import pose_findings
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.verification import frame_findings
from kaleidoscene.errors import KaleidosceneError

_ORDER = {"error": 0, "warning": 1, "note": 2}


def check_capture(capture: Capture) -> list[Finding]:
    """Everything that is wrong or doubtful with a capture as ``scan_capture`` gave it, errors first.

    Poses are compared with each other only among frames whose own camera is sound.
    """
    findings = [finding for number, frame in enumerate(capture.frames) for finding in frame_findings(number, frame)]
    findings += capture.findings
    findings += file_findings(capture)
    findings += lens_findings(capture)
    if not any(frame.world_from_cam is not None for frame in capture.frames):
        findings.append(Finding(
            "note", "no-cameras", None, "there are no cameras", "a single image can be rendered from, several cannot",
            "estimate cameras with 'kaleidoscene pose'",
        ))  # fmt: skip
    else:
        findings += _on_sound_frames(capture, findings)
    findings += [Finding("note", "reader", None, note, "none if it is right", "see --format") for note in capture.notes]
    return sorted(findings, key=lambda finding: _ORDER[finding.severity])


def _on_sound_frames(capture: Capture, findings: list[Finding]) -> list[Finding]:
    sound = sound_frames(capture, findings)
    if len(sound) < 2:
        return []
    part = replace(capture, frames=tuple(capture.frames[number] for number in sound))
    try:
        cameras = part.exact_cameras
    except KaleidosceneError as error:
        return [Finding("error", "cameras", None, str(error).rstrip("."), "nothing can be rendered", "see above")]
    found = [*pose_findings(part, cameras), *convention_findings(part, cameras)]
    return [f if f.frame is None else replace(f, frame=sound[f.frame]) for f in found]


def sound_frames(capture: Capture, findings: list[Finding]) -> list[int]:
    """Frames with a camera and without an error of their own."""
    broken = {finding.frame for finding in findings if finding.severity == "error"}
    return [number for number, frame in enumerate(capture.frames) if frame.is_posed and number not in broken]
