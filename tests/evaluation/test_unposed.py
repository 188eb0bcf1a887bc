"""RnG's protocol: which views, and numbers of a renderer that knows the truth."""

from dataclasses import dataclass, replace

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.unposed import (
    TrueViews,
    UnposedSplit,
    chamfer_of_views,
    draw_splits,
    point_views,
    render_some,
    score_unposed,
)
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import unproject
from kaleidoscene.reconstruction.fusion import FusionConfig
from kaleidoscene.rendering.renderer import PlainRenderer, Rendering
from tests.reconstruction.test_fusion import SIZE, around, views_of_a_sphere

FUSION = FusionConfig()
SPLIT = UnposedSplit((2, 0, 5, 1), (3, 4))


@dataclass(frozen=True, eq=False)
class Known:
    cameras: Cameras
    estimated: Cameras
    num_references: int = 1
    nbytes: int = 0


class Knowing(PlainRenderer):
    """Renders the sphere, its depth wrong by a factor; tells cameras turned by some degrees, the first one not."""

    image_size, capabilities = SIZE, None

    def __init__(self, *, depth=1.0, turned=0.0, points=True):
        self.depth, self.turned, self.points = depth, turned, points

    def encode(self, images, cameras):
        angle = torch.deg2rad(torch.tensor(self.turned))
        turn = torch.eye(4)
        turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
        poses = cameras.world_from_cam.clone()
        poses[:, 1:2] = poses[:, 1:2] @ turn
        return Known(cameras, replace(cameras, world_from_cam=poses))

    def render(self, scene, cameras, *, seeds, independent=False, depth=True, on_step=None):
        views = views_of_a_sphere(cameras[0])
        depths = self.depth * views.depths
        if not self.points:
            return Rendering(views.images[None], cameras, depths[None])
        points = unproject(cameras[0], depths)
        return Rendering(views.images[None], cameras, depths[None], points[None], views.confidence[None])


@pytest.fixture(scope="module")
def truth() -> TrueViews:
    views = views_of_a_sphere(around(8))
    return TrueViews(views.images, views.depths, views.cameras)


def test_the_draw_is_that_of_the_protocol():
    splits = draw_splits(["a", "b", "c"], 25)
    assert draw_splits(["a", "b", "c"], 25) == splits and draw_splits(["a", "b", "c"], 25, seed=1) != splits
    for split in splits.values():
        assert len(split.targets) == 10 and len(set(split.sources)) == 15
        assert set(split.sources) | set(split.targets) == set(range(25))
    # What Python's own random draws first with seed 0.
    assert splits["a"].sources[:4] == (12, 13, 1, 8)
    with pytest.raises(KaleidosceneError, match="draws 14 views of a scene, which has 13"):
        draw_splits(["a"], 13)


def test_the_truth_is_perfect(truth):
    numbers = score_unposed(Knowing(), truth, SPLIT, 3, FUSION)
    for name in ("ra5", "rt5", "auc30", "target a1", "source a1"):
        assert numbers[name] == pytest.approx(100, abs=1e-3)
    assert numbers["target rel"] == pytest.approx(0, abs=1e-3) and numbers["psnr"] > 80 and numbers["ssim"] > 0.999
    assert numbers["chamfer"] < 0.03  # of two draws from one sphere


def test_every_fault_shows_in_its_own_number(truth):
    perfect = score_unposed(Knowing(), truth, SPLIT, 3, FUSION)
    # One of three cameras turned by 12 degrees about its axis: two of three pairs.
    turned = score_unposed(Knowing(turned=12.0), truth, SPLIT, 3, FUSION)
    assert turned["ra5"] == pytest.approx(100 / 3) and turned["ra15"] == 100
    assert turned["target rel"] == perfect["target rel"]
    deep = score_unposed(Knowing(depth=1.1), truth, SPLIT, 3, FUSION)
    assert deep["target rel"] == pytest.approx(10, abs=1e-2) and deep["target a1"] == 100 and deep["ra5"] == 100
    assert score_unposed(Knowing(depth=1.3), truth, SPLIT, 3, FUSION)["source a1"] == 0
    assert deep["chamfer"] > 2 * perfect["chamfer"]
    assert "ra5" not in score_unposed(Knowing(), truth, SPLIT, 1, FUSION)


def test_points_are_those_of_depths_where_there_are_no_others(truth):
    ours, theirs = (score_unposed(Knowing(points=points), truth, SPLIT, 2, FUSION) for points in (True, False))
    assert theirs["chamfer"] == pytest.approx(ours["chamfer"], abs=1e-3)


def test_distances_are_in_those_of_the_first_camera(truth):
    """A world three times as large has the same numbers."""
    renderer = Knowing(depth=1.05)
    views = point_views(render_some(renderer, renderer.encode(None, truth.cameras.reshape(1, 8)), truth.cameras))
    ours = chamfer_of_views(views, views, truth, 2, FUSION)
    poses = truth.cameras.world_from_cam.clone()
    poses[:, :3, 3] *= 3
    larger = replace(truth, depths=3 * truth.depths, cameras=replace(truth.cameras, world_from_cam=poses))
    bigger = replace(views, points=3 * views.points, depths=3 * views.depths)
    assert chamfer_of_views(bigger, bigger, larger, 2, FUSION) == pytest.approx(ours, rel=1e-4)
    white = replace(views, images=torch.ones_like(views.images))
    assert chamfer_of_views(white, white, truth, 2, FUSION) == float("inf")


def test_images_are_scored_at_targets_alone(truth):
    numbers = score_unposed(Knowing(), replace(truth, images=truth.images * 0.9), SPLIT, 2, FUSION)
    assert numbers["psnr"] == pytest.approx(float(psnr(truth.images[[3, 4]], 0.9 * truth.images[[3, 4]]).mean()))
