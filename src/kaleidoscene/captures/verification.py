"""What can be wrong with a frame and its camera, found one by one; the first error refuses a capture."""

from __future__ import annotations

from collections.abc import Iterator

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import intrinsics_fault, pose_fault
from kaleidoscene.images.files import image_size

_POSE_EFFECT = {
    "not-finite": "nothing can be projected with it",
    "last-row": "it is no rigid transform; perhaps the matrix is transposed",
    "not-rigid": "views through it are sheared or scaled",
    "mirrored": "views through it are mirror images, so nothing matches between frames",
}


def verify(capture: Capture) -> Capture:
    """The capture, if every frame is sound.

    Raises:
        KaleidosceneError: The first error among the findings, with the frame.
    """
    for number, frame in enumerate(capture.frames):
        for finding in frame_findings(number, frame):
            if finding.severity == "error":
                raise KaleidosceneError(f"{capture.root}: frame {number} ({frame.name}): {finding.value}.")
    return capture


def frame_findings(number: int, frame: Frame) -> Iterator[Finding]:
    """Faults of one frame that its files show without any other frame; images are not decoded."""
    yield from _image_findings(number, frame)
    if frame.world_from_cam is not None and (fault := pose_fault(frame.world_from_cam)):
        yield Finding(
            "error", f"pose-{fault.kind}", number, fault.text, _POSE_EFFECT[fault.kind],
            "export the cameras again, or leave the frame out",
        )  # fmt: skip
    if frame.intrinsics is not None and (fault := intrinsics_fault(frame.intrinsics)):
        yield Finding(
            "error", f"intrinsics-{fault.kind}", number, fault.text, "nothing can be projected with it",
            "give the focal length in pixels of the image",
        )  # fmt: skip
    yield from _principal_point(number, frame)
    if frame.world_from_cam is not None and frame.intrinsics is None:
        yield Finding(
            "error", "no-focal", number, "no focal length is given", "the field of view is not known",
            "add fl_x (pixels) or camera_angle_x (radians)",
        )  # fmt: skip


def _principal_point(number: int, frame: Frame) -> Iterator[Finding]:
    if frame.intrinsics is None or frame.image_size is None or intrinsics_fault(frame.intrinsics):
        return
    (h, w), (cx, cy) = frame.image_size, frame.intrinsics[:2, 2].tolist()
    if not (0 < cx < w and 0 < cy < h):
        yield Finding(
            "error", "principal-outside", number, f"the principal point ({cx:.0f}, {cy:.0f}) is outside of {h}x{w}",
            "rays are shifted by more than half the image",
            "give cx, cy in pixels of this image, x first; were the images reduced and the intrinsics not?",
        )  # fmt: skip


def _image_findings(number: int, frame: Frame) -> Iterator[Finding]:
    effect = "the frame cannot be used"
    if not frame.image.is_file():
        remedy = "put the image there or take the frame out of the file"
        yield Finding("error", "missing-image", number, f"the image is missing: {frame.image}", effect, remedy)
        return
    if frame.position is not None:
        return  # the reader has decoded the video for its times
    if frame.image.stat().st_size == 0:
        yield Finding("error", "empty-image", number, "the image file is empty (0 bytes)", effect, "copy it again")
        return
    try:
        size = image_size(frame.image, upright=frame.upright)
    except KaleidosceneError as error:
        yield Finding("error", "unreadable-image", number, str(error).rstrip("."), effect, "copy it again")
        return
    if frame.image_size is not None and size != frame.image_size:
        said = f"{frame.image_size[0]}x{frame.image_size[1]}"
        yield Finding(
            "error", "size-mismatch", number, f"the image is {size[0]}x{size[1]}, its camera says {said}",
            "focal length and principal point belong to another size",
            "give the intrinsics of this size, or the images that they belong to",
        )  # fmt: skip
