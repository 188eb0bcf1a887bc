"""Laws of copying from references, its formula, and a plane for which the answer is known."""

import math
from dataclasses import replace

import pytest
import torch

from kaleidoscene.families.kaleido import reprojection as module
from kaleidoscene.families.kaleido.outlines import SEVERAL
from kaleidoscene.families.kaleido.ray_points import EXTENT, Lattice, RayPoints, Sources
from kaleidoscene.families.kaleido.reprojection import Reprojection
from kaleidoscene.geometry.poses import invert, look_at, random_rotation, rigid
from kaleidoscene.nn.positions import NOMINAL_FOCAL, ViewPositions
from tests.conftest import randomised

B, N, M, C, H, W, WIDTH, DEPTHS, GRID = 2, 3, 2, 4, 12, 20, 8, 7, (3, 5)


def poses(batch: int, views: int, seed: int) -> torch.Tensor:
    """World-to-camera, around the origin at distances about 1."""
    g = torch.Generator().manual_seed(seed)
    eyes = torch.nn.functional.normalize(torch.randn(batch, views, 3, generator=g), dim=-1)
    eyes = eyes * (0.8 + 0.4 * torch.rand(batch, views, 1, generator=g))
    return invert(look_at(eyes, torch.zeros(3).expand_as(eyes), torch.tensor([0.1, 0.2, 1.0])))


def layer(seed: int = 0, beyond: int = 0) -> Reprojection:
    made = randomised(Reprojection(WIDTH, C, DEPTHS, beyond=beyond), seed=seed)
    more = [] if made.beyond is None else [made.beyond.weight]
    with torch.no_grad():
        made.log_sharpness.fill_(2.0)
        for p in (made.context.weight, made.occupancy.weight, made.occupancy.bias, *more):
            p.mul_(0.2)  # occupancies of all sizes, not 0 and 1 alone
    return made.eval()


def inputs(seed: int = 0, turn: torch.Tensor | None = None, count: int = N):
    g = torch.Generator().manual_seed(seed)
    painted = torch.randn(B, M, C, H, W, generator=g)
    tokens = torch.randn(B, M, GRID[0] * GRID[1], WIDTH, generator=g)
    latents = torch.randn(B, count, C, H, W, generator=g).tanh()
    surfaces = 0.2 * torch.randn(B, count, 4 * GRID[0], 4 * GRID[1], generator=g)
    cams = poses(B, count + M, seed + 1)
    cams = cams if turn is None else cams @ invert(turn)
    at = ViewPositions.from_poses(cams)
    return painted, tokens, Sources(latents, surfaces, at.select(slice(0, count))), at.select(slice(count, None)), GRID


def outlines(count: int) -> torch.Tensor:
    """Blobs, so that some points of most rays lie inside of all."""
    rough = torch.rand(B, count, 3, 4, generator=torch.Generator().manual_seed(8)) > 0.5
    return torch.nn.functional.interpolate(rough.float(), (H, W), mode="bilinear")


@pytest.mark.parametrize("beyond", [0, 6])
def test_turning_the_world_changes_nothing(beyond):
    turn = rigid(random_rotation(generator=torch.Generator().manual_seed(5)), torch.zeros(3))
    made = layer(beyond=beyond)
    out, turned = made(*inputs()), made(*inputs(turn=turn))
    torch.testing.assert_close(turned, out, rtol=0, atol=2e-4)
    assert (out - inputs()[0]).abs().mean() > 0.05, "something is copied"


def test_references_may_come_in_any_order():
    painted, tokens, sources, targets, grid = inputs()
    order = [2, 0, 1]
    cams, lens = sources.positions.cam_from_world[:, order], sources.positions.lens[:, order]
    at = ViewPositions(cams, lens, sources.positions.times, sources.positions.is_video)
    other = Sources(sources.latents[:, order], sources.surfaces[:, order], at)
    made = layer()
    torch.testing.assert_close(made(painted, tokens, other, targets, grid), made(*inputs()), rtol=0, atol=1e-5)


def test_a_hidden_reference_is_as_good_as_none():
    painted, tokens, sources, targets, grid = inputs()
    present = torch.tensor([[True, True, False]]).expand(B, -1)
    hidden = Sources(sources.latents, sources.surfaces, sources.positions, present)
    fewer = Sources(sources.latents[:, :2], sources.surfaces[:, :2], sources.positions.select(slice(0, 2)))
    made = layer()
    got, expected = (made(painted, tokens, some, targets, grid) for some in (hidden, fewer))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_in_training_only_the_lattice_is_touched():
    made, lattice = layer(), Lattice(1, 2, 3)
    whole = made(*inputs())
    some = made(*inputs(), lattice)
    torch.testing.assert_close(lattice.of(some), lattice.of(whole), rtol=0, atol=1e-5)
    left = torch.ones(H, W)
    lattice.of(left).zero_()
    assert some[..., left > 0].equal(inputs()[0][..., left > 0])


@pytest.mark.parametrize("beyond", [0, 6])
def test_bands_are_the_whole(beyond, monkeypatch: pytest.MonkeyPatch):
    made = layer(beyond=beyond)
    whole = made(*inputs())  # with gradients: in one piece
    monkeypatch.setattr(module, "BAND", 5 * W * DEPTHS)
    with torch.no_grad():
        torch.testing.assert_close(made(*inputs()), whole.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("lattice", [None, Lattice(1, 2, 3)])
def test_a_target_is_copied_from_its_nearest_references(lattice):
    """As if the others were not there, with and without gradients; each target has its own."""
    made = layer()
    painted, tokens, sources, targets, grid = inputs()
    made.references = 2
    with torch.no_grad():
        few = made(painted, tokens, sources, targets, grid, lattice)
    torch.testing.assert_close(made(painted, tokens, sources, targets, grid, lattice), few, rtol=0, atol=1e-5)
    made.references = 0
    seen = set()
    for scene in range(B):
        for view in range(M):
            eye = invert(targets.cam_from_world)[scene, view, :3, 3]
            distance = (invert(sources.positions.cam_from_world)[scene, :, :3, 3] - eye).norm(dim=-1)
            near = distance.argsort()[:2].sort().values
            seen.add(tuple(near.tolist()))
            at = sources.positions
            at = ViewPositions(at.cam_from_world[:, near], at.lens[:, near], at.times[:, near], at.is_video)
            some = Sources(sources.latents[:, near], sources.surfaces[:, near], at)
            alone = made(painted, tokens, some, targets, grid, lattice)
            torch.testing.assert_close(few[scene, view], alone[scene, view], rtol=0, atol=1e-5)
    assert len(seen) > 1


def test_contrast_keeps_what_is_copied_in_all_and_favours_the_likeliest():
    """Of two points with shares 0.6 and 0.2, the third power makes 27 to 1."""
    made = Reprojection(WIDTH, C, 2, contrast=3.0)
    colours = torch.zeros(1, C, 1, 2, 1)
    colours[:, 0, :, 0], colours[:, 1, :, 1] = 1.0, 1.0
    seen = torch.ones(1, 1, 2, 1, dtype=torch.bool)
    logit = torch.logit(torch.tensor([0.6, 0.5])).view(1, 1, 2, 1)
    painted = torch.zeros(1, C, 1, 1)
    painted[:, 2] = 1.0
    out = made.compose(seen, colours, logit, painted.transpose(1, 2), 1)[0][0, 0, :, 0]
    torch.testing.assert_close(out[:3], torch.tensor([0.8 * 27 / 28, 0.8 / 28, 0.2]), rtol=1e-4, atol=1e-6)
    plain = Reprojection(WIDTH, C, 2).compose(seen, colours, logit, painted.transpose(1, 2), 1)[0][0, 0, :, 0]
    torch.testing.assert_close(plain[:3], torch.tensor([0.6, 0.2, 0.2]), rtol=1e-4, atol=1e-6)


def test_sources_join_repeat_and_come_apart():
    painted, tokens, sources, targets, grid = inputs()
    first, rest = (
        Sources(sources.latents[:, at], sources.surfaces[:, at], sources.positions.select(at))
        for at in (slice(0, 1), slice(1, None))
    )
    made = layer()
    whole = made(painted, tokens, sources, targets, grid)
    torch.testing.assert_close(made(painted, tokens, first.join(rest), targets, grid), whole, rtol=0, atol=1e-5)
    for scene in range(B):
        at = slice(scene, scene + 1)
        alone = made(painted[at], tokens[at], sources.scene(scene), targets.scene(scene), grid)
        torch.testing.assert_close(alone, whole[at], rtol=0, atol=1e-5)
        twice = made(
            painted[at].expand(2, -1, -1, -1, -1), tokens[at].expand(2, -1, -1, -1), sources.scene(scene).repeat(2),
            targets.scene(scene).repeat(2), grid,
        )  # fmt: skip
        torch.testing.assert_close(twice, whole[at].expand(2, -1, -1, -1, -1), rtol=0, atol=1e-5)
    twice = sources.repeat(2)
    assert twice.latents[1].equal(sources.latents[0]) and twice.latents[2].equal(sources.latents[1])


def test_nothing_is_copied_from_behind_the_camera():
    """A camera at the origin sees the half of its ray that lies before it, and so only what lies there."""
    painted, tokens, _, _, grid = inputs()
    here = torch.eye(4)
    ahead = invert(look_at(torch.tensor([0.0, 0.0, -1.0]), torch.zeros(3), torch.tensor([0.0, -1.0, 0.0])))
    at = ViewPositions.from_poses(torch.stack([ahead, here])[None])
    near_half = torch.full((1, 1, 4 * GRID[0], 4 * GRID[1]), -0.4)  # a surface that only points behind the eye meet
    sources = Sources(torch.ones(1, 1, C, H, W), near_half, at.select(slice(0, 1)))
    made = Reprojection(WIDTH, C, 8)
    with torch.no_grad():
        made.context.bias.unflatten(0, (-1, 8 + module.HIDDEN))[:, 4:8] = -30.0  # occupied in the near half alone
        made.context.bias.unflatten(0, (-1, 8 + module.HIDDEN))[:, :4] = 30.0
    out = made(painted[:1, :1], tokens[:1, :1], sources, at.select(slice(1, None)), grid)
    torch.testing.assert_close(out, painted[:1, :1], rtol=0, atol=1e-5)


def test_videos_are_painted():
    painted, tokens, sources, _, grid = inputs()
    frames = ViewPositions.from_times(torch.rand(B, N + M))
    clip = Sources(sources.latents, sources.surfaces, frames.select(slice(0, N)))
    out = layer()(painted, tokens, clip, frames.select(slice(N, None)), grid)
    torch.testing.assert_close(out, painted, rtol=0, atol=1e-6)


def test_at_first_little_is_copied():
    made = Reprojection(WIDTH, C, DEPTHS)
    painted, *rest = inputs()
    assert (made(painted, *rest) - painted).abs().max() < 0.05


@pytest.mark.parametrize("half", [False, True])
def test_a_view_from_where_a_reference_stands_is_that_reference(half):
    """Whatever the depth, every point of the ray projects to the same pixel; copies are not rounded to bf16."""
    painted, tokens, sources, _, grid = inputs()
    alone = Sources(sources.latents[:, :1], sources.surfaces[:, :1], sources.positions.select(slice(0, 1)))
    made = layer()
    with torch.no_grad():
        made.occupancy.weight.zero_()
        made.occupancy.bias.fill_(3.0)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = made(painted[:, :1], tokens[:, :1], alone, alone.positions, grid)
    torch.testing.assert_close(out, alone.latents, rtol=0, atol=1e-4)


def test_points_beyond_lie_around_those_of_objects_nearest_first():
    """6 + 8: two from -1 on, six in disparity behind: 0.5 / (1 - 1/12) = 6/11 is the first, 6 the last."""
    steps = RayPoints.steps_beyond(6, 2, 6, torch.device("cpu"))[:, 0]
    torch.testing.assert_close(steps[:2], torch.tensor([-0.875, -0.625]))
    torch.testing.assert_close(steps[2:8], RayPoints.even_steps(6, torch.device("cpu"))[:, 0])
    torch.testing.assert_close(steps[8:], torch.tensor([6 / 11, 2 / 3, 6 / 7, 6 / 5, 2.0, 6.0]))
    assert (steps.diff() > 0).all()
    even = RayPoints.steps_beyond(7, 0, 0, torch.device("cpu"))
    assert even.equal(RayPoints.even_steps(7, torch.device("cpu")))


def test_what_lies_far_behind_is_copied_from_there():
    """A wall at twice the distance of the cameras, which no point of objects reaches."""
    shift, far, beyond = 0.3, 2.0, 8
    cams = torch.stack([rigid(torch.eye(3), torch.tensor([x, 0.0, 1.0])) for x in (0.0, shift)])[None]
    at = ViewPositions.from_poses(cams)
    columns = (torch.arange(W) + 0.5) / W
    sources = Sources(columns.expand(1, 1, C, H, W).contiguous(), torch.zeros(1, 1, *GRID), at.select(slice(0, 1)))
    made = Reprojection(WIDTH, C, 5, beyond=beyond).eval()
    number = (
        RayPoints.steps_beyond(5, beyond // 4, beyond - beyond // 4, torch.device("cpu"))[:, 0].tolist().index(far) - 5
    )
    assert made.beyond is not None
    with torch.no_grad():
        made.context.bias.fill_(-30.0)
        made.beyond.bias.fill_(-30.0)
        made.beyond.bias.unflatten(0, (-1, beyond))[:, number] = 30.0
    painted = torch.full((1, 1, C, H, W), 9.0)
    out = made(painted, torch.zeros(1, 1, 15, WIDTH), sources, at.select(slice(1, None)), GRID)
    # On the axis the foot is at z = 0: the wall's point is 3 before the cameras, a third of the shift aside.
    middle = out[0, 0, 0, H // 2 - 1 : H // 2 + 1].mean(0)
    place = columns - shift * NOMINAL_FOCAL / (1 + far)
    on_axis = (columns - 0.5).abs() < 0.15
    torch.testing.assert_close(middle[on_axis], place[on_axis], rtol=0, atol=2e-2)


def test_a_plane_at_a_known_depth():
    """A plane through the origin that shows a ramp: the copy is the ramp at the point that a pixel's ray meets."""
    shift = 0.3
    cams = torch.stack([rigid(torch.eye(3), torch.tensor([x, 0.0, 1.0])) for x in (0.0, shift)])[None]
    at = ViewPositions.from_poses(cams)
    columns = (torch.arange(W) + 0.5) / W
    ramp = columns.expand(1, 1, C, H, W).contiguous()
    sources = Sources(ramp, torch.zeros(1, 1, *GRID), at.select(slice(0, 1)))
    made = Reprojection(WIDTH, C, 201).eval()
    with torch.no_grad():
        made.context.bias.unflatten(0, (-1, 201 + module.HIDDEN))[:, :201] = -30.0
        made.context.bias.unflatten(0, (-1, 201 + module.HIDDEN))[:, 100] = 30.0
    target = at.select(slice(1, None))
    painted = torch.full((1, 1, C, H, W), 9.0)
    out = made(painted, torch.zeros(1, 1, 15, WIDTH), sources, target, GRID)
    # The middle point of a ray is its foot, where it passes the origin: nearly on the plane z = 0 for central rows.
    tangent = (columns - 0.5) / NOMINAL_FOCAL
    eye = torch.tensor([-shift, 0.0, -1.0])
    rays = torch.nn.functional.normalize(torch.stack([tangent, 0 * tangent, 1 + 0 * tangent], -1), dim=-1)
    foot = eye - (rays @ eye)[:, None] * rays
    place = NOMINAL_FOCAL * foot[:, 0] / (foot[:, 2] + 1.0) + 0.5
    inside = (place > columns[0]) & (place < columns[-1])
    middle = out[0, 0, 0, H // 2 - 1 : H // 2 + 1].mean(0)
    assert inside.sum() > W // 2
    torch.testing.assert_close(middle[inside], place[inside], rtol=0, atol=5e-3)
    assert (middle[(place < 0) | (place > 1)] == 9.0).all()


def cells_and_steps(made: Reprojection, tokens: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """What tokens say of cells, points first and nearest first, and where the points are."""

    def laid_out(numbers: torch.Tensor) -> torch.Tensor:
        numbers = (4 * numbers).reshape(*GRID, 4, 4, -1).permute(4, 0, 2, 1, 3)
        return numbers.reshape(-1, 4 * GRID[0], 4 * GRID[1])

    def finer(numbers: torch.Tensor) -> torch.Tensor:
        """Of so many points a depth, between those of the two depths around them."""
        places = [(k + 0.5) / times - 0.5 for k in range(times * len(numbers))]
        inside = [min(max(place, 0.0), len(numbers) - 1.0) for place in places]
        at = [(int(place), min(int(place) + 1, len(numbers) - 1), place % 1) for place in inside]
        return torch.stack([(1 - part) * numbers[low] + part * numbers[high] for low, high, part in at])

    times = made.points_per_depth
    count = times * DEPTHS
    cells = laid_out(made.context(tokens))
    points, steps = finer(cells[:DEPTHS]), [EXTENT * ((2 * k + 1) / count - 1) for k in range(count)]
    if made.beyond is not None:
        more = laid_out(made.beyond(tokens))
        near = len(more) // 4
        points = torch.cat([finer(more[:near]), points, finer(more[near:])])
        far, near = times * (len(more) - near), times * near
        before = [-1 + 0.5 * (k + 0.5) / near for k in range(near)]
        steps = [*before, *steps, *(0.5 / (1 - (k + 0.5) / far) for k in range(far))]
    return torch.cat([points, cells[DEPTHS:]]), steps


def slow_twin(made: Reprojection, painted, tokens, sources: Sources, targets: ViewPositions, pixel):
    """One pixel by the formulas of the module's text, point by point, in scalars."""
    scene, view, row, col = pixel
    lens, pose = targets.lens[scene, view], targets.cam_from_world[scene, view]
    local = torch.stack([((col + 0.5) / W - lens[2]) / lens[0], ((row + 0.5) / H - lens[3]) / lens[1], torch.ones(())])
    rotation, eye = pose[:3, :3], -pose[:3, :3].T @ pose[:3, 3]
    d = rotation.T @ (local / local.norm())
    foot = eye - (eye @ d) * d
    cells, steps = cells_and_steps(made, tokens[scene, view])
    place = torch.tensor([[[[2 * (col + 0.5) / W - 1, 2 * (row + 0.5) / H - 1]]]])
    context = torch.nn.functional.grid_sample(cells[None], place, padding_mode="border", align_corners=False)[
        0, :, 0, 0
    ]
    left, out = torch.ones(()), torch.zeros(C)
    inside, count = insides(steps, sources, scene, foot, d, eye @ d), sources.latents.shape[1]
    for k, step in enumerate(steps):
        point = foot + step * d
        if step <= eye @ d + 0.05:  # behind the target's camera, or too near to it
            continue
        if inside and not inside[k]:
            continue
        found = []
        for n in range(count):
            seen_from, lens_n = sources.positions.cam_from_world[scene, n], sources.positions.lens[scene, n]
            q = seen_from[:3, :3] @ point + seen_from[:3, 3]
            u, v = lens_n[0] * q[0] / q[2] + lens_n[2], lens_n[1] * q[1] / q[2] + lens_n[3]
            if not (q[2] > 0.05 and 0 < u < 1 and 0 < v < 1):
                continue
            at = torch.tensor([[[[2 * u - 1, 2 * v - 1]]]])
            read = [
                torch.nn.functional.grid_sample(image[None], at, padding_mode="border", align_corners=False)[0, :, 0, 0]
                for image in (sources.latents[scene, n], sources.surfaces[scene, n][None])
            ]
            ray = point + seen_from[:3, :3].T @ seen_from[:3, 3]
            ray = ray / ray.norm()
            found.append(
                (
                    read[0],
                    torch.exp(8 * (ray @ d - 1)),
                    ray @ d,
                    (ray @ point - read[1][0]) * made.log_sharpness.exp()[0],
                )
            )
        if not found:
            continue
        weight = torch.stack([f[1] for f in found])
        colour = torch.stack([f[0] for f in found])
        there = torch.stack([1 / (1 + f[3] ** 2) for f in found])
        free = torch.stack([torch.sigmoid(-f[3]) for f in found])
        own = weight * (there + 0.05)
        blend = (own[:, None] * colour).sum(0) / own.sum()
        total = weight.sum()
        mean = (weight[:, None] * colour).sum(0) / total
        near = (weight * colour.square().sum(1)).sum() / total - mean.square().sum()
        far = colour.square().sum(1).mean() - colour.mean(0).square().sum()
        brightest = colour.amin(1).max()
        evidence = torch.cat([
            blend,
            torch.stack([
                (weight * there).sum() / total, (weight * free).sum() / total,
                (near + 1e-4).sqrt(), (far + 1e-4).sqrt(), torch.stack([f[2] for f in found]).max(),
                torch.sigmoid(40 * (brightest - 0.93)), torch.tensor(len(found) / count), total.log() / 4, brightest,
            ]),
        ])  # fmt: skip
        hidden = torch.nn.functional.silu(4 * made.weigh(evidence) + context[len(steps) :])
        free = torch.nn.functional.logsigmoid(-(20 * made.occupancy(hidden)[0] + 4 * context[k]))
        occupancy = 1 - torch.exp(free / made.points_per_depth)
        out = out + left * occupancy * blend
        left = left * (1 - occupancy)
    out = out + left * painted[scene, view, :, row, col]
    return 1 + max(inside) * (out - 1) if inside else out


def insides(steps: list[float], sources: Sources, scene: int, foot, d, along) -> list[torch.Tensor]:
    """The least that references say of each point of a ray, where they have outlines."""
    if sources.outlines is None or sources.latents.shape[1] < SEVERAL or max(steps) <= along + 0.05:
        return []
    least = []
    for step in steps:
        least.append(torch.zeros(()) if step <= along + 0.05 else torch.ones(()))
        for pose, lens, outline in zip(
            sources.positions.cam_from_world[scene], sources.positions.lens[scene], sources.outlines[scene], strict=True
        ):
            q = pose[:3, :3] @ (foot + step * d) + pose[:3, 3]
            u, v = lens[0] * q[0] / q[2] + lens[2], lens[1] * q[1] / q[2] + lens[3]
            if q[2] > 0.05 and 0 < u < 1 and 0 < v < 1:
                at = torch.tensor([[[[2 * u - 1, 2 * v - 1]]]])
                read = torch.nn.functional.grid_sample(
                    outline[None, None], at, padding_mode="border", align_corners=False
                )
                least[-1] = torch.minimum(least[-1], read[0, 0, 0, 0])
    return [value if value > 0.02 else torch.zeros(()) for value in least]


PIXELS = [(0, 0, 0, 0), (0, 1, 5, 11), (1, 0, 11, 19), (1, 1, 6, 3)]
FINER = [(0, 0, 3), (6, 0, 2), (0, 3, 1), (0, 6, 2)]


@pytest.mark.parametrize(
    ("pixel", "beyond", "outlined", "times"),
    [(pixel, beyond, 0, 1) for pixel in PIXELS for beyond in (0, 6)]
    + [(pixel, *finer) for pixel, finer in zip(PIXELS, FINER, strict=True)]
    + [(PIXELS[1], 0, 6, 2)],
)
def test_it_is_its_slow_twin_in_value_and_gradient(pixel, beyond, outlined, times):
    """With outlines of so many references, too; three are too few to be asked."""
    painted, tokens, sources, targets, grid = inputs(seed=3, count=outlined or N)
    made = layer(seed=3, beyond=beyond)
    made.points_per_depth = times
    if outlined:
        sources = replace(sources, outlines=outlines(outlined))
    for leaf in (painted, tokens, sources.surfaces):
        leaf.requires_grad_()
    scene, view, row, col = pixel
    fast = made(painted, tokens, sources, targets, grid)[scene, view, :, row, col]
    slow = slow_twin(made, painted, tokens, sources, targets, pixel)
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-4)
    leaves = [painted, tokens, sources.surfaces, *made.parameters()]
    ask = torch.randn(C, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(out @ ask, leaves, allow_unused=True) for out in (fast, slow)]
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=2e-3, atol=4e-4)
    assert math.isfinite(fast.sum().item())
