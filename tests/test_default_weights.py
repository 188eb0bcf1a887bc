"""The weights in the package: they load, they are small, and they render the example better than a copy would."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import kaleidoscene
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.protocols import Split, nearest_reference
from kaleidoscene.evaluation.run import score_scene
from kaleidoscene.evaluation.scene_views import CaptureViews
from kaleidoscene.families.checkpoints import WEIGHTS
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

DEFAULT = WEIGHTS / "default"

EXAMPLE = REPOSITORY / "examples" / "captures" / "school_bus"


def test_they_are_small_and_described():
    assert (DEFAULT / "model.safetensors").stat().st_size <= 32 * 2**20
    card = (DEFAULT / "MODEL_CARD.md").read_text()
    for word in ("CC-BY 4.0", "Google Scanned Objects", "held-out", "steps of"):
        assert word in card
    assert json.loads((DEFAULT / "config.json").read_text())["family"] == "kaleido"


def test_they_render_the_example_better_than_the_nearest_reference():
    model = kaleidoscene.load("default")
    capture = kaleidoscene.read_capture(EXAMPLE)
    targets = list(range(3, 27, 4))
    truth, cameras = model.prepare(capture.select(targets))
    views = model.render(capture.select([0, 1, 2]), cameras=cameras, seed=0)
    assert views.images.shape == (6, 3, *model.image_size)
    references, at = model.prepare(capture.select([0, 1, 2]))
    copy = references[nearest_reference(at, cameras)]
    gain = (psnr(views.images, truth) - psnr(copy, truth)).mean()
    assert gain > 3


@pytest.mark.parametrize("name", ["school_bus", pytest.param("elephant", marks=pytest.mark.real_data)])
def test_their_scores_are_those_that_were_recorded(name, request):
    """Two objects that were never trained on; the second is one of GSO-30, in EscherNet's renders."""
    golden = json.loads((REPOSITORY / "tests" / "golden" / "default_weights.json").read_text())
    path, targets = EXAMPLE, tuple(range(6, 27, 4))
    if name == "elephant":
        path, targets = (
            request.getfixturevalue("shared_data") / "captures" / "elephant_eschernet",
            tuple(range(10, 25, 2)),
        )
    model = kaleidoscene.load("default")
    capture = kaleidoscene.read_capture(path).recentred()
    views = CaptureViews(name, capture, model.image_size, model.system.focal_over_height)
    counts = (1, 3, 6)  # with six, outlines are asked
    split = Split({count: tuple(range(count)) for count in counts}, targets)
    for count in counts:
        score = score_scene(model.system.renderer, views, split, count)
        for metric, recorded in golden[name][str(count)].items():
            assert score.mean(metric) == pytest.approx(recorded, abs=golden["tolerance"][metric]), (count, metric)


def test_saved_views_hold_everything(tmp_path: Path):
    model = kaleidoscene.load("default").with_sampling(steps=1)
    capture = kaleidoscene.read_capture(EXAMPLE)
    path = kaleidoscene.trajectories.orbit(capture, frames=3)
    views = model.render(capture.select([0]), cameras=path, seed=1)
    out = views.save(tmp_path / "out")
    assert sorted(p.name for p in out.iterdir()) == [
        "camera_path.json",
        "contact_sheet.png",
        "frames",
        "transforms.json",
        "video.mp4",
    ]
    back = kaleidoscene.read_capture(out)
    torch.testing.assert_close(back.images(), views.images, rtol=0, atol=0.003)
    torch.testing.assert_close(back.cameras.world_from_cam, views.cameras.world_from_cam)
    with pytest.raises(kaleidoscene.KaleidosceneError, match="overwrite"):
        views.save(tmp_path / "out")
    own = tmp_path / "capture"
    shutil.copytree(EXAMPLE, own)
    views = replace(views, capture=kaleidoscene.read_capture(own))
    for folder in (own, tmp_path):
        with pytest.raises(kaleidoscene.KaleidosceneError, match="would replace the capture"):
            views.save(folder, overwrite=True)
    assert (own / "transforms.json").exists()


@pytest.mark.parametrize("mode", ["joint", "independent", "autoregressive"])
def test_every_mode_is_deterministic(mode):
    model = kaleidoscene.load("default").with_sampling(steps=2)
    capture = kaleidoscene.read_capture(EXAMPLE)
    plan = kaleidoscene.RenderPlan(mode=mode, chunk=2)
    path = kaleidoscene.trajectories.spiral(capture, 3)
    images = [model.render(capture.select([0, 2]), cameras=path, seed=4, plan=plan).images for _ in range(2)]
    assert images[0].equal(images[1])


def test_they_are_asked_as_they_were_trained_unless_another_plan_is_given():
    model = kaleidoscene.load("default")
    assert model.system.default_plan == kaleidoscene.RenderPlan(mode="independent")
    capture = kaleidoscene.read_capture(EXAMPLE)
    path = kaleidoscene.trajectories.orbit(capture, frames=3)
    plans = [None, kaleidoscene.RenderPlan(mode="independent", chunk=1), kaleidoscene.RenderPlan(mode="joint")]
    default, alone, together = (
        model.render(capture.select([0, 2]), cameras=path, seed=1, plan=plan).images for plan in plans
    )
    torch.testing.assert_close(default, alone, rtol=0, atol=1e-5)
    assert (default - together).abs().max() > 0.02


def test_of_a_plan_is_changed_what_is_asked_for():
    plan = kaleidoscene.RenderPlan(mode="independent", chunk=3)
    assert plan.changed() == plan and plan.in_one_call(48) == 3 and plan.in_one_call(2) == 2
    assert plan.changed(mode="joint") == kaleidoscene.RenderPlan(mode="joint")  # whose chunk is another matter
    assert plan.changed(mode="independent", chunk=5).chunk == 5 and plan.changed(chunk=7).mode == "independent"
    assert kaleidoscene.RenderPlan(mode="joint").in_one_call(48) == 48
    assert kaleidoscene.RenderPlan(mode="independent").in_one_call(480) == 8
    assert kaleidoscene.RenderPlan(mode="autoregressive").in_one_call(48) == 1
