"""Windows in which references are compared: what they say, and the laws of reprojection with them."""

from dataclasses import replace

import pytest
import torch

from kaleidoscene.families.kaleido import coarse
from kaleidoscene.families.kaleido import reprojection as module
from kaleidoscene.families.kaleido.matching import STRIDE, Volume, around, spread_at
from kaleidoscene.families.kaleido.ray_points import Lattice, RayPoints, Sources
from kaleidoscene.families.kaleido.reprojection import Reprojection
from kaleidoscene.geometry.poses import random_rotation, rigid
from kaleidoscene.nn.positions import ViewPositions
from tests.conftest import CAUSAL, randomised, tiny_config
from tests.families.test_reprojection import DEPTHS, WIDTH, B, C, H, N, W, inputs, outlines

WINDOWS = (3, 5)


def layer(beyond: int = 0, windows: tuple[int, ...] = WINDOWS) -> Reprojection:
    made = randomised(Reprojection(WIDTH, C, DEPTHS, beyond=beyond, windows=windows))
    more = [] if made.beyond is None else [made.beyond.weight]
    with torch.no_grad():
        made.log_sharpness.fill_(2.0)
        for p in (made.context.weight, made.occupancy.weight, made.occupancy.bias, *more):
            p.mul_(0.2)
    return made.eval()


def test_windows_by_hand():
    """Three points, one row of five pixels, windows of three: means of squares, then softmax over the points."""
    deviation = torch.tensor([[0.3, 0.1, 0.2, 0.4, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.5, 0.5, 0.5]])
    several = torch.ones(3, 5, dtype=torch.bool)
    several[0, 1] = False  # left out of the means
    several[2, 2:] = False
    spread, score = around(deviation[None, None, :, None], several[None, None, :, None], [3])[0, :, 0, :, 0]
    first = [0.3, (0.13 / 2) ** 0.5, (0.20 / 2) ** 0.5, (0.21 / 3) ** 0.5, (0.17 / 2) ** 0.5]
    torch.testing.assert_close(spread[0], torch.tensor(first))
    torch.testing.assert_close(spread[1], torch.full((5,), 0.2))
    torch.testing.assert_close(spread[2], torch.tensor([0.5, 0.5, 0.5, 0.0, 0.0]), msg="a window of points nobody sees")
    likely = torch.tensor([-10 * first[0], -2.0, -5.0]).softmax(0)
    torch.testing.assert_close(score[:, 0], (3 * likely).log())
    likely = torch.tensor([-10 * first[3], -2.0]).softmax(0)
    torch.testing.assert_close(score[:2, 3], (2 * likely).log(), msg="among those points that are seen")
    assert float(score[2, 3]) == 0.0


def test_one_reference_says_nothing():
    painted, tokens, sources, targets, grid = inputs(count=1)
    made = layer()
    plain = layer(windows=())
    plain.load_state_dict({name: value for name, value in made.state_dict().items() if name != "matched.weight"})
    given = (painted, tokens, sources, targets, grid)
    torch.testing.assert_close(made(*given), plain(*given), rtol=0, atol=1e-6)
    other = (made(*inputs()) - plain(*inputs())).abs().mean()
    assert other > 0.01, "several say something"


def test_at_first_they_count_for_nothing():
    made, plain = Reprojection(WIDTH, C, DEPTHS, windows=WINDOWS), Reprojection(WIDTH, C, DEPTHS)
    plain.load_state_dict({name: value for name, value in made.state_dict().items() if name != "matched.weight"})
    assert made(*inputs()).equal(plain(*inputs()))


def test_differences_between_colours():
    """The slow way, point by point: weighted by how near to the ray a reference looks."""
    _, _, sources, targets, _ = inputs()
    places = torch.tensor([[0.31, 0.42], [0.66, 0.55]])
    points = RayPoints.of(targets, places, RayPoints.even_steps(5, places.device))
    deviation, count = spread_at(sources, points)
    views = list(points.seen_from(sources))
    for at in [(0, 1, 2, 0), (1, 0, 3, 1), (0, 0, 1, 1)]:
        seen = [view for view in views if view.seen[at]]
        assert count[at] == len(seen)
        if not seen:
            continue
        weights = torch.stack([view.weight[at] for view in seen])
        scene, *rest = at
        colours = torch.stack([view.colours[(scene, slice(None), *rest)] for view in seen])
        mean = (weights[:, None] * colours).sum(0) / weights.sum()
        variance = (weights[:, None] * (colours - mean) ** 2).sum() / weights.sum()
        torch.testing.assert_close(deviation[at], (variance + 1e-4).sqrt(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("beyond", "per_depth"), [(0, 1), (6, 3)])
def test_bands_and_packed_points_are_the_whole(beyond, per_depth, monkeypatch: pytest.MonkeyPatch):
    """With a gradient in one piece; without in bands, after a coarse pass, inside of outlines that leave everything."""
    made = layer(beyond)
    made.points_per_depth = per_depth
    painted, tokens, sources, targets, grid = inputs()
    whole = made(painted, tokens, sources, targets, grid).detach()
    monkeypatch.setattr(module, "BAND", 5 * W * DEPTHS)
    monkeypatch.setattr(module, "FEWER", 2)
    monkeypatch.setattr(module, "SEVERAL", 2)
    monkeypatch.setattr(coarse, "_FLAT", -1.0)
    monkeypatch.setattr(coarse, "_SHARE", -1.0)
    free = replace(sources, outlines=torch.ones(B, N, H, W))
    with torch.no_grad():
        for some, closely in ((sources, False), (sources, True), (free, False), (free, True)):
            made.coarse_to_fine = closely
            torch.testing.assert_close(made(painted, tokens, some, targets, grid), whole, rtol=0, atol=2e-5)
    assert (whole - painted).abs().mean() > 0.01, "something is copied"


def test_a_patch_of_training_is_the_whole_where_its_windows_do_not_end():
    made, lattice = layer(), Lattice(0, 2, STRIDE, (6, 8))
    painted, tokens, sources, targets, grid = inputs()
    whole, some = made(painted, tokens, sources, targets, grid), made(painted, tokens, sources, targets, grid, lattice)
    difference = (lattice.of(some) - lattice.of(whole)).abs().amax((0, 1, 2))
    edge = max(WINDOWS) // 2
    # Its upper edge is that of the picture, and so is its lower one.
    assert difference[:, edge:-edge].max() < 1e-5
    assert difference.max() > 1e-3, "beyond its sides the patch knows nothing"


def test_turning_the_world_and_changing_the_order_change_nothing():
    turn = rigid(random_rotation(generator=torch.Generator().manual_seed(5)), torch.zeros(3))
    made, order = layer(beyond=6), [2, 0, 1]
    out = made(*inputs())
    torch.testing.assert_close(made(*inputs(turn=turn)), out, rtol=0, atol=1e-3)
    painted, tokens, sources, targets, grid = inputs()
    cams, lens = sources.positions.cam_from_world[:, order], sources.positions.lens[:, order]
    at = ViewPositions(cams, lens, sources.positions.times, sources.positions.is_video)
    other = Sources(sources.latents[:, order], sources.surfaces[:, order], at)
    torch.testing.assert_close(made(painted, tokens, other, targets, grid), out, rtol=0, atol=1e-4)


def test_a_hidden_reference_is_as_good_as_none():
    painted, tokens, sources, targets, grid = inputs()
    hidden = replace(sources, present=torch.tensor([[True, True, False]]).expand(B, -1))
    fewer = Sources(sources.latents[:, :2], sources.surfaces[:, :2], sources.positions.select(slice(0, 2)))
    made = layer()
    got, expected = (made(painted, tokens, some, targets, grid) for some in (hidden, fewer))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_a_volume_is_itself_at_its_pixels_and_linear_between_them():
    numbers = torch.randn(1, 2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    volume = Volume(numbers, (8, 10))
    at = volume.at(Lattice(stride=STRIDE).places((8, 10), numbers.device).flatten(0, 1))
    torch.testing.assert_close(at.unflatten(-1, (4, 5)), numbers, rtol=0, atol=1e-5)
    between = volume.at(torch.tensor([[3.5 / 10, 2.5 / 8]]))  # column 3, between those of 2 and 4, row 2
    torch.testing.assert_close(between[..., 0], numbers[..., 1, 1:3].mean(-1), rtol=0, atol=1e-5)


def test_a_textured_plane_is_likeliest_where_it_is():
    """Where single pixels are of one mind by chance, windows are not: the plane z = 0 seen by three cameras."""
    h, w, depths = 24, 40, 9
    shifts = torch.tensor([-0.25, 0.0, 0.2, 0.1])
    cams = torch.stack([rigid(torch.eye(3), torch.tensor([float(-x), 0.0, 1.0])) for x in shifts])[None]
    at = ViewPositions.from_poses(cams)
    # What each camera sees of a texture that four values make: by chance many places look alike.
    values = torch.randint(0, 2, (7, 40), generator=torch.Generator().manual_seed(3)).float() * 2 - 1
    places = Lattice().places((h, w), torch.device("cpu"))
    tangents = at.tangents_at(places.flatten(0, 1))  # at distance 1 they are places on the plane
    centre = shifts[None, :, None] + tangents[..., 0]
    grid = torch.stack([centre / 0.8, tangents[..., 1] / 0.5], -1)[0][:, None]
    seen = torch.nn.functional.grid_sample(values[None, None].expand(4, -1, -1, -1), grid, align_corners=False)
    images = seen[:, :, 0].unflatten(-1, (h, w)).expand(4, 3, h, w)[None]
    sources = Sources(images[:, :3], torch.zeros(1, 3, 2, 2), at.select(slice(0, 3)))
    every = Lattice(stride=STRIDE)
    target, places = at.select(slice(3, None)), every.places((h, w), images.device)
    points = RayPoints.of(target, places.flatten(0, 1), RayPoints.even_steps(depths, images.device))
    deviation, count = (x.unflatten(-1, places.shape[:2]) for x in spread_at(sources, points))
    right = {}
    for window in (1, 7):
        score = around(deviation, count > 1, [window])[0, 1, 0]
        best = score[:, 2:-2, 3:-3].argmax(0)
        right[window] = float(((best - depths // 2).abs() <= 1).float().mean())
    assert right[7] > 0.95 and right[7] > right[1] + 0.1, right


def test_which_windows_there_may_be():
    for windows, changes in (((3,), {}), ((3,), dict(reprojection_depths=4, refined_points=2))):
        with pytest.raises(ValueError, match="matched_windows belong to reprojection_depths"):
            tiny_config(**CAUSAL, matched_windows=windows, **changes)
    with pytest.raises(ValueError, match="must be odd"):
        tiny_config(**CAUSAL, reprojection_depths=4, matched_windows=(3, 4))


def test_windows_learn():
    """One step makes the new layer count, though it begins at zero."""
    made = Reprojection(WIDTH, C, DEPTHS, windows=WINDOWS)
    lattice = Lattice(1, 0, STRIDE, (5, 7))
    made(*inputs(), lattice).square().mean().backward()
    assert made.matched is not None and made.matched.weight.grad is not None
    # Weights before and after it are zero at first: it takes a second step.
    with torch.no_grad():
        for p in made.parameters():
            p.sub_(0.0 if p.grad is None else p.grad)
    made.zero_grad()
    made(*inputs(), lattice).square().mean().backward()
    assert float(made.matched.weight.grad.abs().max()) > 0


def test_outlines_and_windows_go_together():
    made, (painted, tokens, sources, targets, grid) = layer(), inputs(count=6)
    some = replace(sources, outlines=outlines(6))
    with torch.no_grad():
        out, free = (made(painted, tokens, which, targets, grid) for which in (some, sources))
    assert out.isfinite().all() and (out - free).abs().mean() > 0.01, "points outside are left out"
