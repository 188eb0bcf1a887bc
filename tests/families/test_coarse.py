"""Coarse to fine: looked at everywhere it is the whole, and what it leaves out does not show."""

from dataclasses import replace

import pytest
import torch

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.families.kaleido import coarse
from kaleidoscene.families.kaleido import reprojection as module
from kaleidoscene.families.kaleido.coarse import STRIDE, Coarse
from kaleidoscene.families.kaleido.packing import Chosen
from kaleidoscene.families.kaleido.ray_points import Lattice
from kaleidoscene.families.kaleido.reprojection import Reprojection
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.geometry.poses import random_rotation, rigid
from tests.conftest import CAUSAL, tiny_config
from tests.families.test_reprojection import DEPTHS, B, H, W, inputs, layer, outlines


def asked(count: int, outlined: bool, beyond: int = 0, turn: torch.Tensor | None = None):
    """A layer that looks at three points a depth, and what it is given."""
    made = layer(beyond=beyond)
    made.points_per_depth = 3
    painted, tokens, sources, targets, grid = inputs(turn=turn, count=count)
    sources = replace(sources, outlines=outlines(count)) if outlined else sources
    return made, (painted, tokens, sources, targets, grid)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coarse, "_FLAT", -1.0)
    monkeypatch.setattr(coarse, "_SHARE", -1.0)


@pytest.mark.parametrize(("count", "outlined", "beyond"), [(3, False, 0), (3, False, 6), (6, True, 0), (2, True, 0)])
@pytest.mark.parametrize("lattice", [None, Lattice(1, 2, 3)])
@torch.no_grad()
def test_where_all_is_busy_it_is_the_whole(count, outlined, beyond, lattice, everywhere, monkeypatch):
    made, given = asked(count, outlined, beyond)
    whole = made(*given, lattice)
    made.coarse_to_fine = True
    passes, of = [], Coarse.of
    monkeypatch.setattr(Coarse, "of", lambda *values: (passes.append(1), of(*values))[1])
    torch.testing.assert_close(made(*given, lattice), whole, rtol=0, atol=1e-5)
    assert len(passes) == len(whole) * whole.shape[1]
    monkeypatch.setattr(module, "BAND", 5 * W * DEPTHS)  # several bands, and packs within them
    monkeypatch.setattr(module, "FEWER", 2)
    torch.testing.assert_close(made(*given, lattice), whole, rtol=0, atol=1e-5)
    assert (whole - given[0]).abs().mean() > 0.01, "something is copied"


@pytest.mark.parametrize(("count", "outlined", "per_depth"), [(3, False, 1), (6, True, 3)])
@torch.no_grad()
def test_where_nothing_is_busy_it_is_the_coarse_picture(count, outlined, per_depth, monkeypatch):
    """With one point a depth; outlines, which may leave few points of a ray, are asked about all of them."""
    monkeypatch.setattr(coarse, "_FLAT", 100.0)
    made, given = asked(count, outlined)
    made.coarse_to_fine = True
    out = made(*given)
    made.coarse_to_fine, made.points_per_depth = False, per_depth
    every = Lattice(stride=STRIDE)
    torch.testing.assert_close(every.of(out), every.of(made(*given, every)), rtol=0, atol=1e-5)
    between = (out[..., 2, 2] + out[..., 2, 4]) / 2
    torch.testing.assert_close(out[..., 2, 3], between, rtol=0, atol=1e-5)


def test_training_looks_at_everything():
    made, given = asked(6, True)
    whole = made(*given)
    made.coarse_to_fine = True
    assert made(*given).equal(whole)


@torch.no_grad()
def test_turning_the_world_changes_nothing():
    turn = rigid(random_rotation(generator=torch.Generator().manual_seed(5)), torch.zeros(3))
    (made, given), (_, turned) = asked(6, True), asked(6, True, turn=turn)
    made.coarse_to_fine = True
    out, other = made(*given), made(*turned)
    assert ((out - other).abs() < 2e-3).float().mean() > 0.99  # a share at the very limit may fall to either side


@pytest.mark.parametrize("finer", [1, 2])
def test_an_edge_is_busy_and_its_points_are_those_near_to_what_was_found(finer):
    picture = torch.ones(3, 6, 8)
    picture[1, :, 5:] = 0.5
    shares = torch.zeros(4, 6, 8)
    shares[2, :, 5] = 0.9
    shares[0, :, 4] = 1e-4
    found = Coarse.of(picture, shares, torch.zeros(3, 11, 16), finer)
    busy = torch.zeros(11, 16, dtype=torch.bool)
    busy.view(-1)[found.rays] = True
    assert busy[:, 8:12].all() and not busy[:, :8].any() and not busy[:, 12:].any()
    points = found.points(torch.tensor([3 * 16 + 9, 3 * 16 + 15]))
    assert points.T.tolist() == [[False] * finer + [True] * 3 * finer, [False] * 4 * finer]
    torch.testing.assert_close(found.smooth[:, ::STRIDE, ::STRIDE], picture, rtol=0, atol=1e-5)


def test_what_is_packed_is_what_was_chosen():
    mask = torch.rand(9, 50, generator=torch.Generator().manual_seed(1)) < torch.linspace(0, 0.9, 50)
    seen, sizes = torch.zeros_like(mask), []
    for some in Chosen.packed(mask, 40):
        number, ray = some.number[some.real], some.rays.expand(len(some.number), -1)[some.real]
        assert not seen[number, ray].any()
        seen[number, ray] = True
        later = (some.number.diff(dim=0) > 0) | ~some.real[1:]
        assert later.all(), "nearest first"
        assert some.real.any(1).all(), "no more than one ray needs"
        sizes.append(some.real.numel())
    assert seen.equal(mask) and len(sizes) > 4 and max(sizes) <= 40


@torch.no_grad()
def test_smooth_surfaces_look_as_if_all_had_been_looked_at(monkeypatch):
    """A layer that is sure of one depth, before pictures that change slowly: what is left out does not show."""
    made, (painted, tokens, sources, targets, grid) = asked(3, False)
    made = Reprojection(tokens.shape[-1], painted.shape[2], DEPTHS, points_per_depth=3).eval()
    made.context.bias.view(4 * 4, -1)[:, 3] = 2.0
    small = torch.nn.functional.interpolate(sources.latents.flatten(0, 1)[..., ::6, ::10], (H, W), mode="bilinear")
    sources = replace(sources, latents=small.view_as(sources.latents))
    whole = made(painted, tokens, sources, targets, grid)
    made.coarse_to_fine = True
    asks, look = [], made.look

    def counted(sources, points, *, matches=True):
        asks.append(int(points.usable.sum()))
        return look(sources, points, matches=matches)

    monkeypatch.setattr(made, "look", counted)
    close = made(painted, tokens, sources, targets, grid)
    assert (close - whole).square().mean().sqrt() < 0.02
    assert (whole - painted).abs().mean() > 0.3
    assert sum(asks) < 0.8 * painted[:, :, 0].numel() * 3 * DEPTHS


@torch.no_grad()
def test_what_nobody_sees_stays_as_it_was_painted():
    """References that are hidden, and videos: single pixels that the network painted do not vanish between others."""
    made, (painted, tokens, sources, targets, grid) = asked(3, False)
    painted = torch.full_like(painted, 0.3)
    painted[..., 1::2, :], painted[..., 4, 7] = -0.5, 0.9
    made.coarse_to_fine = True
    hidden = replace(sources, present=torch.zeros(B, 3, dtype=torch.bool))
    videos = replace(targets, is_video=torch.ones(B, dtype=torch.bool))
    for some, at in ((hidden, targets), (sources, videos)):
        torch.testing.assert_close(made(painted, tokens, some, at, grid), painted, rtol=0, atol=0.02)


@torch.no_grad()
def test_rays_that_meet_a_little_everywhere_are_looked_at_everywhere():
    made, (painted, tokens, sources, targets, grid) = asked(3, False)
    for parameter in (*made.context.parameters(), made.occupancy.weight):
        parameter.zero_()
    made.occupancy.bias.fill_(-0.25)  # an occupancy of less than a hundredth
    whole = made(painted, tokens, sources, targets, grid)
    made.coarse_to_fine = True
    near, far = (
        (whole - other).square().mean().sqrt() for other in (made(painted, tokens, sources, targets, grid), painted)
    )
    assert near < 0.1 * far and far > 0.02, (near, far)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@torch.no_grad()
def test_what_was_painted_keeps_its_type(dtype):
    made, (painted, tokens, sources, targets, grid) = asked(6, True)
    expected = made(painted, tokens, sources, targets, grid)
    made.coarse_to_fine = True
    out = made(painted.to(dtype), tokens, sources, targets, grid)
    assert out.dtype == dtype and (out - expected).abs().float().quantile(0.95) < 0.05


def test_it_goes_with_reprojection():
    for changes in ({}, dict(reprojection_depths=4, refined_points=2)):
        with pytest.raises(ValueError, match="coarse_to_fine belongs to reprojection_depths"):
            tiny_config(**CAUSAL, prediction="data", coarse_to_fine=True, **changes)
    with pytest.raises(ValueError, match="coarse_to_fine goes with prediction='data'"):
        tiny_config(**CAUSAL, reprojection_depths=4, coarse_to_fine=True)
    config = tiny_config(**CAUSAL, latent_channels=12, prediction="data", reprojection_depths=4, coarse_to_fine=True)
    with pytest.raises(ValueError, match="coarse_to_fine is of models with latents that are pixels"):
        KaleidoSettings(model=config, codec=CodecConfig(factor=2), image_size=(16, 24))
