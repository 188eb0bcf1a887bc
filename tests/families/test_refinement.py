"""Laws of refinement, points at quantiles, what true depths teach, and a plane whose answer is known."""

import math
from dataclasses import replace

import pytest
import torch

from kaleidoscene.families.kaleido import refinement as module
from kaleidoscene.families.kaleido.depth_loss import KnownSurfaces, depth_losses
from kaleidoscene.families.kaleido.ray_points import EXTENT, Lattice, RayPoints, Sources
from kaleidoscene.families.kaleido.refinement import Refinement, Surfaces, depths_of, place_points, shares_of
from kaleidoscene.families.kaleido.reprojection import Reprojection
from kaleidoscene.geometry.poses import invert, random_rotation, rigid
from kaleidoscene.nn.positions import NOMINAL_FOCAL, ViewPositions
from tests.conftest import CAUSAL, randomised, ring, tiny_config, tiny_renderer
from tests.families.test_reprojection import DEPTHS, GRID, WIDTH, B, C, H, M, N, W, inputs, layer, poses

POINTS = 5


def made(seed=0):
    refined = randomised(Refinement(C, POINTS), seed=seed + 7)
    with torch.no_grad():
        for p in (refined.correction.weight, refined.correction.bias, refined.judge.weight, refined.judge.bias):
            p.mul_(0.3)
    return layer(seed), refined.eval()


def with_features(refined, given):
    painted, tokens, sources, targets, grid = given
    sources = Sources(sources.latents, sources.surfaces, sources.positions, sources.present,
                      refined.features(sources.latents))  # fmt: skip
    return painted, tokens, sources, targets, grid


def run(first, refined, given, lattice=None):
    return refined(first, *with_features(refined, given), lattice)


def test_turning_the_world_changes_nothing():
    turn = rigid(random_rotation(generator=torch.Generator().manual_seed(5)), torch.zeros(3))
    first, refined = made()
    (out, found), (turned, also) = run(first, refined, inputs()), run(first, refined, inputs(turn=turn))
    torch.testing.assert_close(turned, out, rtol=0, atol=1e-3)
    torch.testing.assert_close(also.along, found.along, rtol=0, atol=1e-3)
    assert (out - inputs()[0]).abs().mean() > 0.05, "something is copied"


def test_references_may_come_in_any_order_and_a_hidden_one_is_as_good_as_none():
    first, refined = made()
    painted, tokens, sources, targets, grid = with_features(refined, inputs())
    order = [2, 0, 1]
    at = ViewPositions(sources.positions.cam_from_world[:, order], sources.positions.lens[:, order],
                       sources.positions.times, sources.positions.is_video)  # fmt: skip
    other = Sources(sources.latents[:, order], sources.surfaces[:, order], at, None, sources.features[:, order])
    whole = refined(first, painted, tokens, sources, targets, grid)[0]
    torch.testing.assert_close(refined(first, painted, tokens, other, targets, grid)[0], whole, rtol=0, atol=1e-4)
    present = torch.tensor([[True, True, False]]).expand(B, -1)
    hidden = Sources(sources.latents, sources.surfaces, sources.positions, present, sources.features)
    fewer = Sources(sources.latents[:, :2], sources.surfaces[:, :2], sources.positions.select(slice(0, 2)), None,
                    sources.features[:, :2])  # fmt: skip
    got, expected = (refined(first, painted, tokens, some, targets, grid)[0] for some in (hidden, fewer))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(got, whole, atol=1e-2)


def test_view_by_view_and_in_bands_is_the_whole(monkeypatch):
    first, refined = made()
    whole, found = run(first, refined, inputs())  # with gradients: in one piece
    monkeypatch.setattr(module, "BAND", 5 * W * POINTS)
    with torch.no_grad():
        parts, also = run(first, refined, inputs())
    torch.testing.assert_close(parts, whole.detach(), rtol=0, atol=1e-5)
    for name in ("shares", "left", "along", "nothing", "references"):
        torch.testing.assert_close(getattr(also, name), getattr(found, name).detach(), rtol=1e-4, atol=1e-4)
    assert found.shares.shape == (B, M, DEPTHS, 4 * GRID[0], 4 * GRID[1]) and found.along.shape == (B, M, H, W)


@pytest.mark.parametrize("lattice", [None, Lattice(3, 5, 1, (6, 9))])
def test_a_target_is_copied_from_its_nearest_references(lattice):
    """As if the others were not there; each target has its own, and hidden ones are not among them."""
    first, refined = made()
    painted, tokens, sources, targets, grid = with_features(refined, inputs())
    refined.references = 2
    few = refined(first, painted, tokens, sources, targets, grid, lattice)[0]
    refined.references = 0
    eyes = [invert(at.cam_from_world)[..., :3, 3] for at in (sources.positions, targets)]
    chosen = set()
    for scene in range(B):
        for view in range(M):
            near = (eyes[0][scene] - eyes[1][scene, view]).norm(dim=-1).argsort()[:2].sort().values
            chosen.add(tuple(near.tolist()))
            at = ViewPositions(sources.positions.cam_from_world[:, near], sources.positions.lens[:, near],
                               sources.positions.times[:, near], sources.positions.is_video)  # fmt: skip
            some = Sources(sources.latents[:, near], sources.surfaces[:, near], at, None, sources.features[:, near])
            alone = refined(first, painted, tokens, some, targets, grid, lattice)[0]
            torch.testing.assert_close(few[scene, view], alone[scene, view], rtol=0, atol=1e-4)
    assert len(chosen) > 1
    refined.references = 2
    hidden = replace(sources, present=torch.tensor([[True, True, False]]).expand(B, -1))
    shown = refined(first, painted, tokens, hidden, targets, grid, lattice)[0]
    refined.references = 0
    torch.testing.assert_close(shown, refined(first, painted, tokens, hidden, targets, grid, lattice)[0],
                               rtol=0, atol=1e-4)  # fmt: skip


def test_of_a_patch_only_the_patch_is_touched():
    first, refined = made()
    lattice = Lattice(3, 5, 1, (6, 9))
    whole, some = run(first, refined, inputs())[0], run(first, refined, inputs(), lattice)[0]
    torch.testing.assert_close(some[..., 3:9, 5:14], whole[..., 3:9, 5:14], rtol=0, atol=1e-5)
    outside = torch.ones(H, W, dtype=torch.bool)
    outside[3:9, 5:14] = False
    assert some[..., outside].equal(inputs()[0][..., outside])


def test_shares_and_what_is_left_are_all_there_is():
    logits = 3 * torch.randn(2, 3, DEPTHS, 4, generator=torch.Generator().manual_seed(0))
    shares, left = shares_of(logits)
    torch.testing.assert_close(shares.exp().sum(2) + left.exp(), torch.ones(2, 3, 4))
    o = torch.sigmoid(logits)
    second = (1 - o[:, :, 0]) * o[:, :, 1]
    torch.testing.assert_close(shares[:, :, 1].exp(), second)


def test_points_stand_at_quantiles_and_carry_gradients_of_the_density():
    """All of the mass in one bin puts all points but those of the floor into it, evenly."""
    shares = torch.full((1, 1, 8, 3), -30.0)
    shares[:, :, 5] = 0.0
    shares.requires_grad_()
    steps, density = place_points(shares, 6)
    low, high = EXTENT * (2 * 5 / 8 - 1), EXTENT * (2 * 6 / 8 - 1)
    assert ((steps >= low) & (steps <= high)).all() and (steps.diff(dim=2) > 0).all()
    torch.testing.assert_close(steps.diff(dim=2), steps.diff(dim=2).mean().expand(1, 1, 5, 3))
    assert density.abs().max() == 0
    density.sum().backward()
    assert shares.grad[:, :, 5].eq(6).all() and shares.grad[:, :, :5].eq(0).all()
    half = torch.full((1, 1, 8, 1), -30.0)
    half[:, :, 1] = half[:, :, 6] = math.log(0.5)
    there = place_points(half, 4)[0].flatten()
    assert (there[:2] < 0).all() and (there[2:] > 0).all()  # both of two surfaces are looked at


def test_a_plane_is_copied_from_where_it_is():
    """A plane that shows a ramp: the pixel is the ramp where its ray meets the plane, to less than a bin."""
    shift, depths = 0.3, 16
    cams = torch.stack([rigid(torch.eye(3), torch.tensor([x, 0.0, 1.0])) for x in (0.0, shift)])[None]
    at = ViewPositions.from_poses(cams)
    ramp = ((torch.arange(W) + 0.5) / W).expand(1, 1, C, H, W).contiguous()
    first, refined = Reprojection(WIDTH, C, depths), Refinement(C, 4)
    sources = Sources(ramp, torch.zeros(1, 1, 4 * GRID[0], 4 * GRID[1]), at.select(slice(0, 1)), None,
                      refined.features(ramp))  # fmt: skip
    bin_ = 10  # behind the foot by 5/32
    with torch.no_grad():
        bias = first.context.bias.unflatten(0, (-1, depths + 16))
        bias[:, :depths], bias[:, bin_] = -30.0, 30.0
        out, found = refined(first, torch.full((1, 1, C, H, W), 9.0), torch.zeros(1, 1, 15, WIDTH), sources,
                             at.select(slice(1, None)), GRID)  # fmt: skip
    middle = EXTENT * ((2 * bin_ + 1) / depths - 1)
    torch.testing.assert_close(found.along, torch.full_like(found.along, middle), rtol=0, atol=1 / depths)
    tangent = ((torch.arange(W) + 0.5) / W - 0.5) / NOMINAL_FOCAL
    eye = torch.tensor([-shift, 0.0, -1.0])
    rays = torch.nn.functional.normalize(torch.stack([tangent, 0 * tangent, 1 + 0 * tangent], -1), dim=-1)
    along = -(rays @ eye) + found.along[0, 0, H // 2]
    point = eye + along[:, None] * rays
    place = NOMINAL_FOCAL * point[:, 0] / (point[:, 2] + 1.0) + 0.5
    inside = (place > 0.06) & (place < 0.94)
    shown = out[0, 0, 0, H // 2]
    assert inside.sum() > W // 2
    # 95 in 100 of it are copied at first, the rest is what was painted.
    copied = (shown - 9.0 * (1 - torch.sigmoid(torch.tensor(3.0)))) / torch.sigmoid(torch.tensor(3.0))
    torch.testing.assert_close(copied[inside], place[inside], rtol=0, atol=0.02)


def test_videos_are_painted():
    first, refined = made()
    painted, tokens, sources, _, grid = inputs()
    frames = ViewPositions.from_times(torch.rand(B, N + M))
    clip = Sources(sources.latents, sources.surfaces, frames.select(slice(0, N)))
    out, _ = run(first, refined, (painted, tokens, clip, frames.select(slice(N, None)), grid))
    torch.testing.assert_close(out, painted, rtol=0, atol=1e-6)


def known_of(along, known, nothing):
    return KnownSurfaces(along, known, nothing)


def test_true_depths_are_where_a_plane_is_met():
    """A wall at z = 0.2 of the world, seen from cameras at z = -1 and aside: the points of its depths lie on it."""
    turn = rigid(torch.eye(3), torch.tensor([0.1, -0.05, 1.0]))
    at = ViewPositions.from_poses(turn[None, None])
    depth = torch.full((1, 1, H, W), 1.2)
    surfaces = KnownSurfaces.of(at, depth, torch.ones(1, 1, H, W))
    places = Lattice().places((H, W), torch.device("cpu")).flatten(0, 1)
    points = RayPoints.of(at, places, surfaces.along.flatten(2)[:, :, None])
    reached = points.foot + points.steps * points.direction
    torch.testing.assert_close(reached[0, 0, 2], torch.full((H * W,), 0.2), rtol=0, atol=1e-5)
    assert surfaces.known.equal(surfaces.along.abs() < EXTENT) and surfaces.known.float().mean() > 0.9
    assert not surfaces.nothing.any()
    mask, empty = torch.ones(1, 1, H, W), depth.clone()
    mask[..., :4], empty[..., :4], empty[..., 4] = 0.0, 0.0, 0.0
    partly = KnownSurfaces.of(at, empty, mask)  # of the object a column has no depth, and is unknown
    assert partly.nothing[..., :4].all() and not partly.nothing[..., 4:].any()
    assert not partly.known[..., :5].any() and partly.known[..., 5:].equal(surfaces.known[..., 5:])


def surfaces_at(along, depths=8):
    """What a sure and right network would have found; cells are single pixels here."""
    cells = along[:, N:]
    place = ((cells / EXTENT + 1) * depths / 2 - 0.5).round().long()
    shares = torch.full((*cells.shape[:2], depths, *cells.shape[2:]), -20.0)
    shares.scatter_(2, place[:, :, None], -1e-4)
    left, nothing = torch.full(cells.shape, -9.0), torch.full((B, M, H, W), -9.0)
    return Surfaces(shares, left, along[:, N:].clone(), nothing, along[:, :N].clone())


def test_what_is_right_has_no_loss_and_what_is_wrong_has_some():
    depths = 8
    middles = RayPoints.even_steps(depths, torch.device("cpu")).flatten()
    number = torch.randint(depths, (B, N + M, H, W), generator=torch.Generator().manual_seed(0))
    along = middles[number]
    everywhere = torch.ones(B, N + M, H, W, dtype=torch.bool)
    counts = torch.ones(B, M, dtype=torch.bool)
    found = surfaces_at(along, depths)
    known = known_of(along, everywhere, ~everywhere)
    right = depth_losses(found, known, N, None, counts, None)
    assert all(value < 1e-3 for value in right.values()), right
    wrong = depth_losses(found, known_of(along.roll(1, -1), everywhere, ~everywhere), N, None, counts, None)
    assert wrong["bins"] > 5 and wrong["references"] > 0.1 and wrong["pixels"] > 0.1
    empty = depth_losses(found, known_of(along, ~everywhere, everywhere), N, None, counts, None)
    torch.testing.assert_close(empty["bins"], torch.tensor(9.0))
    torch.testing.assert_close(empty["outline"], torch.tensor(9.0))
    assert empty["references"] == empty["pixels"] == 0
    # Targets that do not count and references that are hidden have no say.
    silent = depth_losses(
        found, known_of(along.roll(1, -1), everywhere, ~everywhere), N, None, counts & False,
        torch.zeros(B, N + M, dtype=torch.bool),
    )  # fmt: skip
    assert all(value == 0 for value in silent.values())
    # Half-way between two bins both are right by half.
    between = known_of((middles[2] + middles[3]).expand_as(along) / 2, everywhere, ~everywhere)
    shares = torch.full_like(found.shares, -20.0)
    shares[:, :, 2], shares[:, :, 3] = math.log(0.5), math.log(0.5)
    half = Surfaces(shares, found.left, found.along, found.nothing, found.references)
    torch.testing.assert_close(depth_losses(half, between, N, None, counts, None)["bins"], torch.tensor(math.log(2)))


@pytest.mark.parametrize("lattice", [None, Lattice(3, 5, 1, (6, 9))])
def test_every_weight_of_it_learns(lattice):
    first, refined = made()
    out, found = run(first, refined, inputs(), lattice)
    along = 0.2 * torch.randn(B, N + M, H, W, generator=torch.Generator().manual_seed(3))
    everywhere = torch.ones(B, N + M, H, W, dtype=torch.bool)
    terms = depth_losses(found, known_of(along, everywhere, ~everywhere), N, lattice, everywhere[:, :M, 0, 0], None)
    (out.square().mean() + sum(terms.values())).backward()
    for name, p in [*refined.named_parameters(), *first.named_parameters()]:
        if not name.startswith("surface."):  # which references' tokens go through
            assert p.grad is not None and p.grad.abs().max() > 0, name


def test_configurations_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="refined_points refine reprojection"):
        tiny_config(refined_points=4)
    with pytest.raises(ValueError, match="refined_points must be at least 0"):
        tiny_config(**CAUSAL, reprojection_depths=4, refined_points=-1)
    with pytest.raises(ValueError, match="looked_at_references must be at least 0, and belongs to reprojection_depths"):
        tiny_config(**CAUSAL, looked_at_references=3)
    with pytest.raises(ValueError, match="ray_contrast must be at least 1"):
        tiny_config(**CAUSAL, reprojection_depths=4, ray_contrast=0.5)


@pytest.mark.parametrize("independent", [False, True])
def test_renderings_have_depths_in_the_unit_of_the_world(independent):
    """Those of surfaces that were found, along optical axes; a world three times as large has them three times."""
    renderer = tiny_renderer(**CAUSAL, reprojection_depths=6, refined_points=3, steps=2, guidance=1.5)
    assert renderer.capabilities.renders_depth and not tiny_renderer(**CAUSAL).capabilities.renders_depth
    with torch.no_grad():
        renderer.model.reprojection.occupancy.bias.fill_(0.15)
        for p in (*renderer.model.refinement.judge.parameters(), *renderer.model.refinement.correction.parameters()):
            p.zero_()  # they could say that nothing is anywhere
    cameras, images = ring(5, batch=(2,)), torch.rand(2, 2, 3, 16, 24)
    found = {}
    for factor in (1.0, 3.0):
        poses = cameras.world_from_cam.clone()
        poses[..., :3, 3] *= factor
        at = replace(cameras, world_from_cam=poses)
        scene = renderer.encode(images, at[:, :2])
        found[factor] = renderer.render(scene, at[:, 2:], seeds=[1, 2, 3], independent=independent).depths
        assert renderer.render(scene, at[:, 2:], seeds=[1, 2, 3], independent=independent, depth=False).depths is None
    assert found[1.0].shape == (2, 3, 16, 24) and (found[1.0] >= 0).all()
    some = found[1.0] > 0
    assert some.float().mean() > 0.05
    torch.testing.assert_close(found[3.0], 3 * found[1.0], rtol=1e-3, atol=1e-3)
    # The ray is searched for half a unit either way of the place that is nearest to the origin.
    distance = cameras.centres[:, 2:].norm(dim=-1)[..., None, None]
    largest = cameras.centres[:, :2].norm(dim=-1).amax(1)[:, None, None, None]
    assert (found[1.0] <= distance + 0.5 * largest)[some].all()


def test_depths_of_surfaces_are_those_they_were_made_of():
    at = ViewPositions.from_poses(poses(1, 2, 4))
    depth = 0.5 + 0.5 * torch.rand(1, 2, H, W, generator=torch.Generator().manual_seed(2))
    along = KnownSurfaces.of(at, depth, torch.ones(1, 2, H, W)).along
    nothing = torch.full_like(along, -3.0)
    nothing[..., :7] = -0.1
    surfaces = Surfaces(along[:, :, None], along, along, nothing, along)
    back = depths_of(surfaces, at)
    torch.testing.assert_close(back[..., 7:], depth[..., 7:], rtol=0, atol=1e-5)
    assert back[..., :7].eq(0).all()
