"""Views larger than the network sees them: pixels are copied at the size of the references, the rest is enlarged."""

from dataclasses import replace
from functools import cache

import pytest
import torch

import kaleidoscene
from kaleidoscene.api import Model
from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.families.kaleido.model import Kaleido, shrunk
from kaleidoscene.families.kaleido.plan import KaleidoPlan
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig
from kaleidoscene.families.kaleido.system import KaleidoSystem
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at, random_rotation, rigid
from kaleidoscene.rendering.ordering import RenderPlan
from tests.conftest import CAUSAL, REPOSITORY, randomised, tiny_config, tiny_renderer

SIZE, TIMES, REFS, TARGETS = (16, 24), 3, 4, 2


@cache
def system(**changes) -> KaleidoSystem:
    """Random weights that paint, and copy from a few depths, at 16 x 24."""
    values = dict(latent_channels=3, patch_size=4, reprojection_depths=5, prediction="data", points_per_depth=2)
    config = tiny_config(**CAUSAL, **{**values, **changes})
    settings = KaleidoSettings(
        model=config, codec=CodecConfig(factor=1), image_size=SIZE, buckets=((20, 16),),
        sampling=SamplingConfig(schedule=Schedule(steps=1), guidance=1.0), render_plan=RenderPlan(mode="independent"),
    )  # fmt: skip
    model = randomised(Kaleido(config)).eval()
    assert isinstance(model, Kaleido) and model.reprojection is not None
    with torch.no_grad():
        model.reprojection.log_sharpness.fill_(2.0)
        model.reprojection.context.weight.mul_(0.1)
    return KaleidoSystem(KaleidoRenderer(model, settings, PixelCodec(1)))


def cameras(size: tuple[int, int], turn: torch.Tensor | None = None) -> Cameras:
    g = torch.Generator().manual_seed(2)
    eyes = torch.nn.functional.normalize(torch.randn(REFS + TARGETS, 3, generator=g), dim=-1) * 1.3
    poses = look_at(eyes, torch.zeros_like(eyes), torch.tensor([0.1, 0.2, 1.0]))
    return Cameras.from_field_of_view(poses if turn is None else turn @ poses, 0.86, size)


def pictures(size: tuple[int, int]) -> torch.Tensor:
    rough = torch.rand(REFS, 3, 4, 6, generator=torch.Generator().manual_seed(4))
    return torch.nn.functional.interpolate(rough, size, mode="bicubic").clamp(0, 1)


def rendered(some: KaleidoSystem, turn: torch.Tensor | None = None) -> torch.Tensor:
    size = some.image_size
    all_of_them = cameras(size, turn)
    scene = some.renderer.encode(pictures(size)[None], all_of_them[list(range(REFS))].reshape(1, REFS))
    targets = all_of_them[list(range(REFS, REFS + TARGETS))].reshape(1, TARGETS)
    return some.renderer.render(scene, targets, seeds=[3, 4], independent=True).images[0]


def test_larger_views_show_what_small_ones_do():
    """With the weights of the package, of pictures that have no more details at twice the size."""
    bus, model = kaleidoscene.read_capture(REPOSITORY / "examples" / "captures" / "school_bus"), kaleidoscene.load()
    references, targets = bus.select([0, 1, 2]), bus.cameras[[5, 14]]
    few, many = (model.at_size(size).render(references, cameras=targets).images for size in (None, 256))
    assert many.shape == (2, 3, 256, 256)
    small = torch.nn.functional.avg_pool2d(many, 2)
    assert psnr(small, few).min() > 33 and (small - few).abs().quantile(0.99) < 0.1


def test_sizes_and_lenses_grow_with_it():
    large = system(matched_windows=(3,)).magnified(TIMES)
    assert large.image_size == (48, 72) and large.magnification == TIMES and large.renderer.image_size == (48, 72)
    assert large.image_sizes == ((48, 72), (60, 48))
    assert large.focal_over_height == system().focal_over_height
    assert rendered(large).shape == (TARGETS, 3, 48, 72)


def test_details_of_references_are_copied():
    """A target where a reference stands is that reference, with its single pixels."""
    large = system(outlines=False).magnified(TIMES)
    size = large.image_size
    model = large.renderer.model
    assert model.reprojection is not None
    at = cameras(size)[[0]].reshape(1, 1)
    details = torch.rand(1, 1, 3, *size, generator=torch.Generator().manual_seed(6))
    sure = model.reprojection.occupancy
    kept = sure.weight.clone(), sure.bias.clone()
    with torch.no_grad():
        sure.weight.zero_()
        sure.bias.fill_(3.0)
        scene = large.renderer.encode(details, at)
        out = large.renderer.render(scene, at, seeds=[3], independent=True).images
        sure.weight.copy_(kept[0])
        sure.bias.copy_(kept[1])
    torch.testing.assert_close(out, details, rtol=0, atol=5e-3)


def test_kept_references_are_those_that_are_read_anew():
    large = system().magnified(TIMES)
    anew = KaleidoSystem(large.renderer.changed(use_cache=False))
    assert anew.renderer.parts.magnification == TIMES
    torch.testing.assert_close(rendered(anew), rendered(large), rtol=0, atol=1e-5)


def test_turning_the_world_changes_nothing():
    turn = rigid(random_rotation(generator=torch.Generator().manual_seed(5)), torch.zeros(3))
    large = system().magnified(2)
    torch.testing.assert_close(rendered(large, turn), rendered(large), rtol=0, atol=2e-3)


def test_a_draft_is_every_second_pixel():
    large = system().magnified(2)
    some = cameras(large.image_size)
    scene = large.renderer.encode(pictures(large.image_size)[None], some[list(range(REFS))].reshape(1, REFS))
    targets = some[[REFS, REFS + 1]].reshape(1, 2)
    whole = large.renderer.render(scene, targets, seeds=[3, 4], independent=True).images
    draft = large.renderer.draft(scene, targets, seeds=[3, 4]).images
    torch.testing.assert_close(draft, whole[..., ::2, ::2], rtol=0, atol=1e-5)


def test_the_network_sees_means_of_references_and_noise_as_it_is():
    latents = torch.randn(2, 5, 3, 6, 9, generator=torch.Generator().manual_seed(1))
    small = shrunk(latents, 2, 3)
    assert small.shape == (2, 5, 3, 2, 3)
    torch.testing.assert_close(small[1, 1, 2, 1, 2], latents[1, 1, 2, 3:6, 6:9].mean())
    assert float(small[0, 4, 1, 1, 1]) == float(latents[0, 4, 1, 3, 3])
    assert shrunk(latents, 0, 3).shape == (2, 5, 3, 2, 3) and shrunk(latents, 5, 1) is latents


def test_one_may_be_magnified_again():
    once = system().magnified(TIMES)
    assert once.magnified(1).image_size == SIZE and once.magnified(2).image_size == (32, 48)
    assert once.with_image_size((60, 48)).magnified(1).image_size == (20, 16)
    bucket, whole = once.with_image_size((60, 48)), system().with_image_size((20, 16))
    assert bucket.focal_over_height == pytest.approx(whole.focal_over_height)


def test_sizes_by_the_longer_side():
    model = Model(system())
    assert model.at_size(None) is model and model.at_size(24) is model
    assert model.at_size(48).image_size == (32, 48)
    assert model.at_size(48).at_size(72).image_size == (48, 72), "multiples are those of the size of training"
    assert model.at_size(48).at_size(24).image_size == SIZE and model.at_size(48).at_size(None).image_size == (32, 48)
    assert model.at_size(72).for_shape(cameras((100, 80))).image_size == (60, 48), "portrait"
    for pixels in (12, 36, 0, -24):
        with pytest.raises(KaleidosceneError, match="expected a multiple of 24"):
            model.at_size(pixels)
    with pytest.raises(KaleidosceneError, match="renders 24 pixels alone"):
        Model(KaleidoSystem(tiny_renderer())).at_size(48)


def test_what_it_costs():
    """The network's part stays; lookups grow by the pixels and by the points of their rays."""
    small, large = KaleidoPlan(system().settings), KaleidoPlan(system().settings, magnification=TIMES)
    assert large.image_size == (48, 72)
    few, many = (plan.cost(3, 5, independent=True) for plan in (small, large))
    assert many.lookups == TIMES**3 * few.lookups
    assert few.flops < many.flops < 3 * few.flops and many.memory > few.memory
    assert system().magnified(TIMES).cost(3, 5, independent=True) == many
    assert small.with_image_size((48, 72)) == large and small.with_image_size((16, 24)) == small
    other = small.with_image_size((48, 48))  # no multiple: the network itself at another size
    assert other.magnification == 1 and other.image_size == (48, 48)
    with pytest.raises(ValueError, match="Images of 24x17 are no whole number of tokens"):
        small.with_image_size((17, 24))
    windows = replace(system().settings, model=replace(system().settings.model, matched_windows=(3,)))
    seen, pixels, points = 3 + 2, 5 * 16 * 24, 5
    assert KaleidoPlan(windows).cost(3, 5).lookups - small.cost(3, 5).lookups == pixels // 4 * points * seen
