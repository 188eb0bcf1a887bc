"""The frame interpolator: the published sizes, laws of warping, and what it must do whatever its weights are."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.film import Film, FilmConfig, FilmSettings, FilmTask, Interpolator
from kaleidoscene.families.film.model import FeatureTrees, MotionPyramid
from kaleidoscene.families.film.recipe import film_debug, frame_flops, parameters_of
from kaleidoscene.families.film.task import FilmLoss, in_order, varied
from kaleidoscene.families.film.warping import enlarge_flow, pyramid, warp
from kaleidoscene.randomness import seeded

TINY = film_debug().settings


def video_views(batch: int, views: int, size: tuple[int, int]) -> Views:
    """Clips of noise, their frames in a random order."""
    times = torch.stack([torch.randperm(views) / views for _ in range(batch)])
    return Views(
        images=torch.rand(batch, views, 3, *size), cameras=None, times=times,
        is_video=torch.ones(batch, dtype=torch.bool), num_references=1,
    )  # fmt: skip


def untrained(settings: FilmSettings = TINY, *, blends: bool = False) -> Film:
    """A network with random weights, or with none, which blends."""
    torch.manual_seed(3)
    model = Film(settings.model).eval().requires_grad_(False)
    if blends:
        for p in model.parameters():
            p.zero_()
    return model


def test_the_published_size_has_its_parameters_and_operations():
    config = FilmConfig()
    assert parameters_of(config) == pytest.approx(34.4e6, rel=2e-3)  # method A.14
    assert frame_flops(config, (128, 128)) / 2 == pytest.approx(34.8e9, rel=2e-3)


def test_warping_looks_where_the_motion_says():
    image = torch.rand(2, 3, 7, 11)
    assert torch.allclose(warp(image, torch.zeros(2, 2, 7, 11)), image, atol=1e-6)
    right = torch.tensor([3.0, 0.0])[None, :, None, None].expand(2, 2, 7, 11)
    below = torch.tensor([0.0, 2.0])[None, :, None, None].expand(2, 2, 7, 11)
    assert torch.allclose(warp(image, right)[..., :-3], image[..., 3:], atol=1e-5)
    assert torch.allclose(warp(image, below)[..., :-2, :], image[..., 2:, :], atol=1e-5)
    assert torch.allclose(warp(image, right)[..., -3:], image[..., -1:].expand(2, 3, 7, 3), atol=1e-5)  # the border
    half = warp(image, right / 6)
    assert torch.allclose(half[..., :-1], 0.5 * (image[..., :-1] + image[..., 1:]), atol=1e-5)


def test_motion_at_twice_the_size_is_twice_as_long():
    flow = torch.tensor([1.5, -0.5])[None, :, None, None].expand(1, 2, 3, 5)
    assert torch.allclose(enlarge_flow(flow), 2 * flow[..., :1, :1].expand(1, 2, 6, 10))


def test_a_tree_grown_at_half_the_size_is_the_one_of_the_half_image():
    config = replace(TINY.model, tree_levels=1)
    trees, image = FeatureTrees(config), torch.rand(1, 3, 16, 24)
    whole, half = trees(pyramid(image, 3)), trees(pyramid(F.avg_pool2d(image, 2), 2))
    for ours, theirs in zip(whole[1:], half, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_features_of_a_size_are_those_of_all_trees_that_reach_it():
    trees, image = FeatureTrees(TINY.model), torch.rand(2, 3, 16, 24)
    found = trees(pyramid(image, 4))
    channels = [4, 4 + 8, 4 + 8 + 16, 4 + 8 + 16]  # three levels of a tree
    assert [tuple(level.shape) for level in found] == [(2, count, 16 >> n, 24 >> n) for n, count in enumerate(channels)]
    assert [TINY.model.feature_channels(n) for n in range(4)] == channels


def test_the_motion_of_coarse_sizes_comes_from_one_predictor():
    config = TINY.model
    motion = MotionPyramid(config)
    assert len(motion.predictors) == config.own_levels + 1 == 3
    first, second = ([torch.rand(1, config.feature_channels(n), 16 >> n, 24 >> n) for n in range(4)] for _ in range(2))
    before = motion(first, second)
    with torch.no_grad():
        motion.predictors[2].out.bias.add_(1.0)  # pyright: ignore[reportAttributeAccessIssue]
    after = motion(first, second)
    assert torch.allclose(after[3], before[3] + 1.0, atol=1e-5)
    assert not torch.allclose(after[2], before[2] + 2.0, atol=1e-3)  # its own share and what it does to the warped


def test_a_network_without_weights_blends():
    first, second = torch.rand(2, 1, 3, 16, 24)
    model = untrained(blends=True)
    assert torch.allclose(model(first, second), 0.5 * (first + second), atol=1e-6)
    assert torch.allclose(model(first, second, 0.25), 0.75 * first + 0.25 * second, atol=1e-6)


def test_each_frame_of_a_batch_is_made_alone_and_both_inputs_matter():
    first, second = torch.rand(2, 3, 3, 16, 24)
    model = untrained()
    together = model(first, second)
    for number in range(3):
        alone = model(first[number : number + 1], second[number : number + 1])
        assert torch.allclose(together[number : number + 1], alone, atol=1e-5)
    assert not torch.allclose(together, model(second, first), atol=1e-3)


def test_motion_reaches_the_other_frame_at_the_right_share():
    """Motion that is set by hand moves each frame by its share of the time (FILM's synthesis)."""
    model = untrained(blends=True)
    with torch.no_grad():  # the coarsest size says one pixel to the right, in both directions
        model.motion.predictors[-1].out.bias[0] = 0.25  # pyright: ignore[reportAttributeAccessIssue]
    # Each size of four adds its share: the shared predictor works at sizes 3 and 2, the others say nothing.
    length = 0.25 * 8 + 0.25 * 4
    first, second = torch.rand(2, 1, 3, 16, 24)
    flow = torch.zeros(1, 2, 16, 24)
    flow[:, 0] = length
    for time in (0.5, 0.25):
        expected = (1 - time) * warp(first, time * flow) + time * warp(second, (1 - time) * flow)
        assert torch.allclose(model(first, second, time), expected, atol=1e-5)


def test_what_moves_the_first_frame_is_seen_from_the_second():
    model, seen = untrained(), []
    model.motion.register_forward_pre_hook(lambda _, levels: seen.append(levels))
    first, second = torch.rand(2, 1, 3, 16, 24)
    model(first, second)
    ((looking, looked_at),) = seen
    of_first, of_second = (model.features(pyramid(frame, 4)) for frame in (first, second))
    for level in range(4):
        assert torch.allclose(looking[level][:1], of_second[level], atol=1e-5)
        assert torch.allclose(looked_at[level][:1], of_first[level], atol=1e-5)
        assert torch.allclose(looking[level][1:], of_first[level], atol=1e-5)


def test_padding_is_the_border():
    model = untrained()
    first, second = torch.rand(2, 3, 13, 21)
    padded = [F.pad(frame[None], (0, 3, 0, 3), mode="replicate") for frame in (first, second)]
    expected = model(*padded)[0, :, :13, :21].clamp(0, 1)
    assert torch.allclose(Interpolator(model, TINY).between(first, second), expected, atol=1e-6)


def test_the_loss_is_that_of_pixels_and_of_what_moved_at_every_size():
    views = video_views(batch=2, views=3, size=(16, 24))
    plain, both = FilmTask(TINY, FilmLoss()), FilmTask(TINY, FilmLoss(pixels=0.5, sizes=2.0))
    both.model.load_state_dict(plain.model.state_dict())
    with torch.no_grad():
        terms, others = plain.losses(views, 1), both.losses(views, 1)
    assert float(terms["loss"]) == pytest.approx(float(terms["pixels"]))
    assert float(others["loss"]) == pytest.approx(0.5 * float(terms["pixels"]) + 2 * float(terms["sizes"]), rel=1e-5)
    blends = FilmTask(TINY, FilmLoss())
    for weight in blends.model.parameters():
        torch.nn.init.zeros_(weight)
    frames = torch.stack([varied(clip, (16, 24), seeded(1, 31, n)) for n, clip in enumerate(in_order(views))])
    first, middle, last = (pyramid(frames[:, n], 4) for n in range(3))
    off = [(0.5 * (a + b) - truth).abs().mean() for a, truth, b in zip(first, middle, last, strict=True)]
    assert float(blends.losses(views, 1)["sizes"].detach()) == pytest.approx(float(torch.stack(off).mean()), rel=1e-5)


def test_frames_of_other_sizes_are_refused_by_the_network_and_padded_by_the_interpolator():
    model = untrained()
    with pytest.raises(ValueError, match="multiples of 8"):
        model(torch.rand(1, 3, 15, 24), torch.rand(1, 3, 15, 24))
    with pytest.raises(ValueError, match="one size"):
        model(torch.rand(1, 3, 16, 24), torch.rand(1, 3, 24, 24))
    interpolator = Interpolator(model, TINY)
    first, second = torch.rand(2, 3, 13, 21)
    made = interpolator.between(first, second)
    assert made.shape == (3, 13, 21) and 0 <= float(made.min()) and float(made.max()) <= 1
    with pytest.raises(ValueError, match="two sizes"):
        interpolator.between(first, torch.rand(3, 14, 21))
    # At a size that fits, nothing but the network and the clamp.
    first, second = torch.rand(2, 3, 16, 24)
    assert torch.allclose(interpolator.between(first, second), model(first[None], second[None])[0].clamp(0, 1))


def line(count: int) -> list[tuple[float, torch.Tensor, bool]]:
    """Frames that brighten evenly, half a second apart."""
    return [(0.5 * n, torch.full((3, 9, 13), 0.1 * n), False) for n in range(count)]


def test_doubling_keeps_frames_and_puts_the_right_ones_between():
    interpolator = Interpolator(untrained(blends=True), TINY)
    film = list(interpolator.denser(line(3), 2))
    assert [time for time, _, _ in film] == pytest.approx([0.125 * n for n in range(9)])
    assert [float(picture.mean()) for _, picture, _ in film] == pytest.approx([0.025 * n for n in range(9)], abs=1e-6)
    assert [made for _, _, made in film] == [n % 4 != 0 for n in range(9)]
    assert list(interpolator.denser([], 2)) == []


def test_other_rates_take_frames_where_they_are_and_make_the_rest():
    interpolator = Interpolator(untrained(blends=True), TINY)
    film = list(interpolator.at(line(4), [0.0, 0.3, 0.5, 0.9, 1.2, 1.5]))
    assert [float(picture.mean()) for _, picture, _ in film] == pytest.approx([0, 0.06, 0.1, 0.18, 0.24, 0.3], abs=1e-6)
    assert [made for _, _, made in film] == [False, True, False, True, True, False]
    assert len(list(interpolator.at(line(2), [0.0, 0.4, 0.6]))) == 2  # nothing behind the last frame


def test_nothing_is_put_over_a_cut():
    interpolator = Interpolator(untrained(blends=True), TINY)
    shots = [*line(2), (1.0, torch.ones(3, 9, 13), True), (1.5, torch.ones(3, 9, 13), False)]
    film = list(interpolator.denser(shots, 1))
    assert [round(float(picture.mean()), 4) for _, picture, _ in film] == [0, 0.05, 0.1, 0.1, 1, 1, 1]
    assert [made for _, _, made in film] == [False, True, False, False, False, True, False]
    held = list(interpolator.at(shots, [0.5, 0.9, 1.0]))
    assert [round(float(picture.mean()), 4) for _, picture, _ in held] == [0.1, 0.1, 1.0]


def test_clips_are_put_in_order_and_others_are_refused():
    views = video_views(batch=2, views=3, size=(16, 24))
    ordered = in_order(views)
    for clip, times, frames in zip(views.images, views.times, ordered, strict=True):
        for place, number in enumerate(times.argsort()):
            assert torch.equal(frames[place], clip[number])
    with pytest.raises(KaleidosceneError, match="three frames"):
        in_order(video_views(batch=2, views=4, size=(16, 24)))


def test_a_clip_is_varied_by_its_own_number_alone_and_stays_a_clip():
    clip = torch.rand(3, 3, 20, 30)
    cut = varied(clip, (16, 24), torch.Generator().manual_seed(5))
    assert cut.shape == (3, 3, 16, 24)
    assert torch.equal(cut, varied(clip, (16, 24), torch.Generator().manual_seed(5)))
    middles = [varied(clip, (20, 30), torch.Generator().manual_seed(n)) for n in range(40)]
    firsts = {round(float(m[0].mean()), 6) for m in middles}
    assert len(firsts) == 2  # as it was and reversed
    assert all(float(m[1].mean()) == pytest.approx(float(clip[1].mean()), abs=1e-6) for m in middles)
    assert len({tuple(m[1].flatten()[:8].tolist()) for m in middles}) == 4  # mirrored, upside down, both, neither
    square = {varied(clip[..., :20], (20, 20), torch.Generator().manual_seed(n))[1, 0, 0, 1].item() for n in range(60)}
    assert len(square) == 8
    with pytest.raises(KaleidosceneError, match="smaller than the crops"):
        varied(clip, (24, 24), torch.Generator())


def test_it_learns_what_moves():
    """A pattern that slides: after some steps the middle frame is found better than by blending."""
    torch.manual_seed(0)
    settings = replace(TINY, model=replace(TINY.model, filters=6, flow_filters=(8, 8, 8)))
    task = FilmTask(settings, FilmLoss())
    for unit in task.model.children():
        task.initialise(unit)
    task.initialise(task.model)
    base = video_views(batch=6, views=3, size=(16, 24))
    optimiser = torch.optim.Adam(task.model.parameters(), lr=2e-3)
    ratios = []
    for step in range(90):
        noise = F.interpolate(torch.rand(6, 3, 6, 12), (16, 40), mode="bicubic").clamp(0, 1)
        frames = torch.stack([noise[..., 4 + 4 * n : 28 + 4 * n] for n in range(3)], dim=1)
        views = replace(base, images=frames, times=torch.tensor([0.0, 1 / 3, 2 / 3]).repeat(6, 1))
        terms = task.losses(replace(views, numbers=tuple(range(6 * step, 6 * step + 6))), seed=1)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        ratios.append(float(terms["pixels"].detach() / terms["of_blending"].detach()))
    assert ratios[0] > 0.9
    assert sum(ratios[-10:]) / 10 < 0.75, ratios[-10:]


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="own_levels"):
        FilmConfig(own_levels=7)
    with pytest.raises(ValueError, match="fusion_levels"):
        FilmConfig(fusion_levels=8)
    with pytest.raises(ValueError, match="flow_filters"):
        FilmConfig(flow_filters=(8, 16))
    with pytest.raises(ValueError, match="multiples of 64"):
        FilmSettings(model=FilmConfig(), image_size=(96, 128))
