"""Faults of the files of a capture: pixels that do not decode, masks, names, times, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.frame_files import frame_size, read_frame_depth
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import read_json
from kaleidoscene.images.files import image_size, read_image


def file_findings(capture: Capture) -> Iterator[Finding]:
    """Everything that the files of all frames show; every image is decoded once."""
    for number, frame in enumerate(capture.frames):
        if frame.position is None and frame.image.is_file() and frame.image.stat().st_size:
            yield from _pixels(number, frame)
        yield from _mask(number, frame)
    yield from _duplicates(capture)
    yield from _times(capture)
    yield from _splits(capture)


def _pixels(number: int, frame: Frame) -> Iterator[Finding]:
    try:
        image_size(frame.image)
    except KaleidosceneError:
        return  # said by the verification
    try:
        image, alpha = read_image(frame.image, upright=frame.upright)
    except KaleidosceneError as error:
        yield Finding(
            "error", "truncated-image", number, str(error).rstrip("."), "the frame cannot be used", "copy it again"
        )
        return
    if float(image.max()) - float(image.min()) < 0.02 or (alpha is not None and float(alpha.max()) < 0.02):
        yield Finding(
            "warning", "empty-picture", number, "the image is of one colour, or transparent everywhere",
            "as a reference it says that nothing is there", "leave the frame out if that is not meant",
        )  # fmt: skip


def _mask(number: int, frame: Frame) -> Iterator[Finding]:
    for what, path in (("mask", frame.mask), ("depth map", frame.depth)):
        if path is None:
            continue
        try:
            size = image_size(path) if what == "mask" else tuple(read_frame_depth(frame).shape[-2:])
            wrong = "" if size == frame_size(frame) else f"is {size[0]}x{size[1]}, its image is not"
        except KaleidosceneError as error:
            wrong = f"cannot be used: {str(error).rstrip('.')}"
        if wrong:
            kind = "mask" if what == "mask" else "depth"
            effect = f"rendering with {'--masked' if kind == 'mask' else 'depth'} will stop"
            yield Finding("error", kind, number, f"the {what} {wrong}", effect, f"make the {what} of this image again")


def _duplicates(capture: Capture) -> Iterator[Finding]:
    seen: dict[object, int] = {}
    for number, frame in enumerate(capture.frames):
        key = (frame.image.resolve(), frame.position)
        if key in seen:
            yield Finding(
                "error", "duplicate-name", number, f"the image {frame.name} belongs to frame {seen[key]} as well",
                "one picture is said to be seen from two places", "remove one of the two frames",
            )  # fmt: skip
        seen.setdefault(key, number)
    contents: dict[bytes, int] = {}
    for number, frame in enumerate(capture.frames):
        if frame.position is not None or not frame.image.is_file() or seen[(frame.image.resolve(), None)] != number:
            continue
        try:
            digest = hashlib.sha256(frame.image.read_bytes()).digest()
        except OSError:
            continue  # said by the verification
        if digest in contents:
            other = capture.frames[contents[digest]].name
            yield Finding(
                "warning", "duplicate-image", number, f"{frame.name} has the same bytes as {other}",
                "one picture is said to be seen from two places", "remove the copy, or put the right image there",
            )  # fmt: skip
        contents.setdefault(digest, number)


def _times(capture: Capture) -> Iterator[Finding]:
    times = [frame.time for frame in capture.frames]
    for number, (before, after) in enumerate(pairwise(times), start=1):
        if before is not None and after is not None and after <= before:
            yield Finding(
                "warning", "times", number, f"its time of {after:g} s is not after the frame before ({before:g} s)",
                "frames play in another order than they were taken", "sort the frames by their times",
            )  # fmt: skip
            return


def _splits(capture: Capture) -> Iterator[Finding]:
    """SEVA's ``train_test_split_N.json`` and its like beside the cameras."""
    folder = capture.root if capture.root.is_dir() else capture.root.parent
    for path in sorted(folder.glob("train_test_split*.json")):
        try:
            document = read_json(path)
            ids = {key: [int(n) for n in document[key]] for key in ("train_ids", "test_ids")}
        except (KaleidosceneError, KeyError, TypeError, ValueError) as error:
            yield Finding(
                "error", "split", None, f"{path.name} is no split ({error})", "it cannot be evaluated",
                "expected train_ids and test_ids with numbers of frames",
            )  # fmt: skip
            continue
        bad = [n for numbers in ids.values() for n in numbers if not 0 <= n < len(capture)]
        both = set(ids["train_ids"]) & set(ids["test_ids"])
        if bad or both:
            what = f"frame {bad[0]}, there are 0 to {len(capture) - 1}" if bad else f"frame {min(both)} on both sides"
            yield Finding(
                "error", "split", None, f"{path.name} names {what}", "scores are not those of the protocol",
                "make the split for this capture again",
            )  # fmt: skip
