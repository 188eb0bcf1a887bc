"""What the checker must say of a sound capture, and of the same one in every other convention."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.conventions import CONVENTIONS, Evidence, judge
from kaleidoscene.captures.checking.run import check_capture


def found_in_other_conventions(capture: Capture) -> Iterator[tuple[str, list[str]]]:
    """Of each convention the kinds of findings, once the capture as it is has none.

    Its pictures, which take most of the time, are compared once: the check's own evidence is judged again.
    """
    seen, of = [], Evidence.of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evidence, "of", lambda *arguments: seen.append(of(*arguments)) or seen[-1])
        assert [finding for finding in check_capture(capture) if finding.severity == "error"] == []
    (evidence,), cameras = seen, capture.exact_cameras
    assert list(judge(evidence, cameras)) == []
    for convention in CONVENTIONS:
        wrong = replace(cameras, world_from_cam=convention.corrected(cameras.world_from_cam))
        yield convention.kind, [finding.kind for finding in judge(evidence, wrong)]
