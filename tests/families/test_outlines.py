"""What outlines of references rule out: laws, and a ball for which the answer is known."""

import math
from dataclasses import replace

import pytest
import torch

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.families.kaleido import reprojection as module
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.outlines import Inside, outlines_of
from kaleidoscene.families.kaleido.ray_points import Lattice, RayPoints, Sources
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.geometry.poses import random_rotation, rigid
from kaleidoscene.nn.positions import NOMINAL_FOCAL, ViewPositions
from tests.conftest import CAUSAL, randomised, ring, tiny_config
from tests.families.test_reprojection import DEPTHS, B, H, M, W, inputs, layer, outlines, poses


def outlined(count: int = 6, turn: torch.Tensor | None = None):
    """A layer that asks outlines, and what it is given."""
    made = layer()
    made.points_per_depth = 3
    painted, tokens, sources, targets, grid = inputs(turn=turn, count=count)
    return made, (painted, tokens, replace(sources, outlines=outlines(count)), targets, grid)


def test_white_from_the_border_on_is_no_object():
    image = torch.full((1, 2, 3, 9, 14), 1.0)
    image[..., 2:7, 4:11] = -0.2
    image[..., 4, 6] = 1.0  # a white spot of the object
    image[0, 0, :, 2, 10] = 0.98  # as white as the background, and beside it
    image[0, 1, 2, 0, 3] = 0.9  # not white in all channels
    found = outlines_of(image)
    expected = torch.zeros(2, 9, 14)
    expected[:, 2:7, 4:11] = 1
    expected[0, 2, 10], expected[1, 0, 3] = 0, 1
    assert found[0].equal(expected)
    image[..., :2, :] = image[..., 7:, :] = image[..., :4] = -1.0
    assert outlines_of(image).min() == 1, "most of the border is not white: nothing is known of an outline"


def test_white_finds_its_way_around_corners():
    image = torch.full((1, 1, 3, 7, 9), -1.0)
    path = [(0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (3, 3), (4, 3), (4, 4), (4, 5), (3, 5), (2, 5)]
    border = torch.ones(7, 9, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    image[0, 0, :, border] = 1.0
    for row, col in path:
        image[0, 0, :, row, col] = 1.0
    image[0, 0, :, 5, 7] = 1.0  # touches the border's white at an edge
    assert outlines_of(image)[0, 0].equal((image[0, 0, 0] < 0).float())


def test_turning_the_world_and_the_order_of_references_change_nothing():
    turn = rigid(random_rotation(generator=torch.Generator().manual_seed(5)), torch.zeros(3))
    (made, given), (_, turned) = outlined(), outlined(turn=turn)
    out = made(*given)
    torch.testing.assert_close(made(*turned), out, rtol=0, atol=2e-4)
    order, (painted, tokens, sources, targets, grid) = [2, 5, 0, 1, 4, 3], given
    at = sources.positions
    other = Sources(
        sources.latents[:, order], sources.surfaces[:, order],
        ViewPositions(at.cam_from_world[:, order], at.lens[:, order], at.times[:, order], at.is_video),
        outlines=sources.outlines[:, order],
    )  # fmt: skip
    torch.testing.assert_close(made(painted, tokens, other, targets, grid), out, rtol=0, atol=1e-5)
    assert (out - inputs(count=6)[0]).abs().mean() > 0.05 and (out == 1).float().mean() > 0.05


def test_a_hidden_reference_rules_nothing_out():
    made, (painted, tokens, sources, targets, grid) = outlined(7)
    present = torch.tensor([True] * 6 + [False]).expand(B, -1)
    fewer = Sources(
        sources.latents[:, :6], sources.surfaces[:, :6], sources.positions.select(slice(0, 6)),
        outlines=sources.outlines[:, :6],
    )  # fmt: skip
    hidden = replace(sources, present=present)
    got, expected = (made(painted, tokens, some, targets, grid) for some in (hidden, fewer))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [4, 6])
def test_without_white_they_say_nothing(count):
    made, (painted, tokens, sources, targets, grid) = outlined(count)
    everywhere = replace(sources, outlines=torch.ones_like(sources.outlines))
    without = replace(sources, outlines=None)
    got, expected = (made(painted, tokens, some, targets, grid) for some in (everywhere, without))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_bands_and_lattices_are_of_the_whole(monkeypatch: pytest.MonkeyPatch):
    made, given = outlined()
    whole, lattice = made(*given).detach(), Lattice(1, 2, 3)
    torch.testing.assert_close(lattice.of(made(*given, lattice)), lattice.of(whole), rtol=0, atol=1e-5)
    monkeypatch.setattr(module, "BAND", 2 * W * DEPTHS)
    with torch.no_grad():
        torch.testing.assert_close(made(*given), whole, rtol=0, atol=1e-5)


def test_rays_that_leave_the_object_behind_are_painted():
    """A camera within it that looks outwards has no points to be asked about."""
    made, (painted, tokens, sources, targets, grid) = outlined()
    away = rigid(torch.eye(3), torch.tensor([0.0, 0.0, -0.6])).expand(B, M, 4, 4)
    targets = ViewPositions(away, targets.lens, targets.times, targets.is_video)
    torch.testing.assert_close(made(painted, tokens, sources, targets, grid), painted)


def test_more_outlines_rule_out_more():
    _, (_, _, sources, targets, _) = outlined(6)
    places = Lattice().places((H, W), torch.device("cpu")).flatten(0, 1)
    view, steps = targets.scene(1).select(slice(0, 1)), RayPoints.even_steps(21, places.device)
    points, before = RayPoints.of(view, places, steps), torch.ones(H * W)
    for count in range(1, 7):
        some = Sources(
            sources.latents[:, :count], sources.surfaces[:, :count], sources.positions.select(slice(0, count)),
            outlines=sources.outlines[:, :count],
        )  # fmt: skip
        share = Inside.of(points, some.scene(1)).share
        assert (share <= before).all()
        before = share
    assert before.max() > 0 and (before == 0).any()


def ball(positions: ViewPositions, size: tuple[int, int], radius: float) -> torch.Tensor:
    """Where rays meet a ball about the origin, ``(views, h, w)``."""
    eye, ray = positions.rays(positions.tangents_at(Lattice().places(size, torch.device("cpu")).flatten(0, 1)))
    nearest = eye - (eye * ray).sum(-1, keepdim=True) * ray
    return (nearest.norm(dim=-1) < radius).float().unflatten(-1, size)[0]


def test_many_outlines_of_a_ball_are_that_ball():
    """Its hull from 40 sides: nothing of the ball is missing, and little is there beside it."""
    size = (96, 128)
    lens = torch.tensor([NOMINAL_FOCAL * 96 / 128, NOMINAL_FOCAL, 0.5, 0.5]).expand(1, 41, 4)
    cams = poses(1, 41, 3)
    cams[..., :3, 3] /= cams[..., :3, 3].norm(dim=-1, keepdim=True)
    at = ViewPositions(cams, lens, torch.zeros(1, 41), torch.zeros(1, dtype=torch.bool))
    shown, radius = ball(at, size, 0.3), 0.3
    sources = Sources(
        torch.zeros(1, 40, 3, *size), torch.zeros(1, 40, 24, 32), at.select(slice(0, 40)), outlines=shown[None, :40]
    )
    places = Lattice().places(size, torch.device("cpu")).flatten(0, 1)
    points = RayPoints.of(at.select(slice(40, 41)), places, RayPoints.even_steps(64, places.device))
    share = Inside.of(points, sources).share.unflatten(0, size)
    truth = shown[40]
    inner, outer = (ball(at.select(slice(40, 41)), size, factor * radius)[0] for factor in (0.95, 1.12))
    assert (share[inner > 0] > 0.5).all() and (share[outer == 0] < 0.5).all()
    both = ((share > 0.5) & (truth > 0)).sum() / ((share > 0.5) | (truth > 0)).sum()
    assert both > 0.93
    assert math.isclose(float(share.max()), 1.0, abs_tol=1e-5)


def test_rendering_asks_the_outlines_of_all_references():
    """With and without kept references, views together or one by one: what no outline allows is white."""
    config = tiny_config(
        **CAUSAL, latent_channels=3, patch_size=8, prediction="data", reprojection_depths=4, looked_at_references=2,
        points_per_depth=3, outlines=True,
    )  # fmt: skip
    settings = KaleidoSettings(
        model=config, codec=CodecConfig(factor=1), image_size=(16, 24), background="white",
        sampling=SamplingConfig(schedule=Schedule(steps=2), guidance=1.0),
    )  # fmt: skip
    model = randomised(Kaleido(config)).eval()
    cameras = ring(9, (16, 24), seed=4)
    images = torch.ones(1, 6, 3, 16, 24)
    images[..., 5:11, 8:16] = torch.rand(1, 6, 3, 6, 8, generator=torch.Generator().manual_seed(2)) * 0.9
    got = {}
    for cached in (True, False):
        renderer = KaleidoRenderer(model, settings, PixelCodec(1), use_cache=cached)
        scene = renderer.encode(images, cameras[:6].reshape(1, 6))
        for alone in (True, False):
            targets = cameras[6:].reshape(1, 3)
            got[cached, alone] = renderer.render(scene, targets, seeds=[0, 1, 2], independent=alone).images
    for alone in (True, False):
        torch.testing.assert_close(got[True, alone], got[False, alone], rtol=0, atol=1e-5)
    white = (got[True, True] == 1).all(2)
    assert white.float().mean() > 0.2 and not white[..., 7:9, 11:13].any()


def test_they_are_asked_of_models_of_objects_on_white():
    with pytest.raises(ValueError, match="points_per_depth must be at least 1, and 1 with refined_points, got 0"):
        tiny_config(**CAUSAL, reprojection_depths=4, points_per_depth=0)
    for change in (
        dict(),
        dict(reprojection_depths=4, reprojection_beyond=4),
        dict(reprojection_depths=4, refined_points=2),
    ):
        with pytest.raises(ValueError, match="outlines belong to reprojection_depths, without reprojection_beyond"):
            tiny_config(**CAUSAL, prediction="data", outlines=True, **change)
    with pytest.raises(ValueError, match="outlines go with prediction='data'"):
        tiny_config(**CAUSAL, reprojection_depths=4, outlines=True)
    config = tiny_config(**CAUSAL, latent_channels=3, prediction="data", reprojection_depths=4, outlines=True)
    with pytest.raises(ValueError, match="background='white' and latents that are pixels"):
        KaleidoSettings(model=config, codec=CodecConfig(factor=1), image_size=(16, 24))
