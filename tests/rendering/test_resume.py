"""Interrupted renderings: what is done is kept, and what comes out is what one run would have given."""

import json

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.rendering.ordering import Chunk, RenderPlan, render_in_order
from kaleidoscene.rendering.resume import PartialRendering, is_finished
from tests.conftest import CAUSAL, ring, tiny_renderer

pytestmark = pytest.mark.slow

SIZE = (16, 24)
PLANS = [
    RenderPlan(mode="joint", chunk=2),
    RenderPlan(mode="independent", chunk=3),
    RenderPlan(mode="autoregressive", chunk=1, max_references=3),
    RenderPlan(mode="autoregressive", chunk=2, order="nearest", max_references=4),
]


def _render(plan, finished=None):
    renderer = tiny_renderer(**CAUSAL, steps=2)
    references, targets = ring(2, SIZE, seed=1), ring(7, SIZE, seed=2)
    images = torch.rand(1, 2, 3, *SIZE, generator=torch.Generator().manual_seed(3))
    scene = renderer.encode(images, references.reshape(1, 2))
    yield from render_in_order(renderer, scene, references, targets, plan, seed=5, finished=finished)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.mode}-{plan.order}")
def test_stopped_anywhere_and_gone_on_gives_the_same_images(tmp_path, plan):
    whole = {i: image for chunk in _render(plan) for i, image in zip(chunk.indices, chunk.images, strict=True)}
    for stop in (1, 2, 3):
        partial = PartialRendering(tmp_path / f"out{stop}", {"a": 1}, overwrite=False)
        for number, chunk in enumerate(_render(plan, partial.finished), start=1):
            partial.keep(chunk)
            if number == stop:
                break
        kept = partial.count
        again = PartialRendering(tmp_path / f"out{stop}", {"a": 1}, overwrite=False)
        assert again.count == kept > 0
        new = 0
        for chunk in _render(plan, again.finished):
            new += len(chunk.indices) if chunk.is_new else 0
            if chunk.is_new:
                again.keep(chunk)
        assert new == 7 - kept
        for index, image in whole.items():
            found = again.finished([index])
            assert found is not None and torch.equal(found.images[0], image)


def test_another_request_is_refused_unless_overwritten(tmp_path):
    first = PartialRendering(tmp_path / "out", {"seed": 1}, overwrite=False)
    (first.folder / "000000.npy").write_bytes(b"")
    with pytest.raises(KaleidosceneError, match="another rendering was begun here"):
        PartialRendering(tmp_path / "out", {"seed": 2}, overwrite=False)
    assert PartialRendering(tmp_path / "out", {"seed": 2}, overwrite=True).count == 0


def test_finished_means_the_same_request(tmp_path):
    assert not is_finished(tmp_path, {"a": [1.5]}, [])
    (tmp_path / "request.json").write_text(json.dumps({"a": [1.5]}))
    assert is_finished(tmp_path, {"a": [1.5]}, []) and not is_finished(tmp_path, {"a": [2.5]}, [])
    assert not is_finished(tmp_path, {"a": [1.5]}, ["video.mp4"])
    (tmp_path / "request.json").write_text("{")
    assert not is_finished(tmp_path, {"a": [1.5]}, [])


def test_targets_of_one_chunk_are_all_or_none(tmp_path):
    partial = PartialRendering(tmp_path / "out", {}, overwrite=False)
    chunk = next(_render(PLANS[0]))
    partial.keep(chunk)
    assert partial.finished([0, 1]) is not None and partial.finished([1, 2]) is None


def test_depths_are_kept_beside_images(tmp_path):
    partial = PartialRendering(tmp_path / "out", {}, overwrite=False)
    images, depths = torch.rand(2, 3, 5, 7), torch.rand(2, 5, 7)
    partial.keep(Chunk([4, 1], images, depths))
    found = partial.finished([1, 4])
    assert found is not None and found.depths is not None and not found.is_new
    assert torch.equal(found.images, images[[1, 0]]) and torch.equal(found.depths, depths[[1, 0]])
    partial.keep(Chunk([2], images[:1]))
    found = partial.finished([2])
    assert found is not None and found.depths is None
