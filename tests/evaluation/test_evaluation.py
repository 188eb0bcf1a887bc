import json

import pytest
import torch

from anyview.errors import AnyViewError
from anyview.evaluation.metrics import psnr, ssim
from anyview.evaluation.protocols import ESCHERNET_GSO, check_references, nearest_reference
from anyview.evaluation.report import write_report
from anyview.evaluation.run import HeldOutObject, evaluate, means
from tests.conftest import CAUSAL, ring, tiny_renderer


def test_psnr_values():
    a = torch.zeros(2, 3, 4, 5)
    torch.testing.assert_close(psnr(a + 0.1, a), torch.full((2,), 20.0))
    assert psnr(a, a).tolist() == [100.0, 100.0]
    torch.testing.assert_close(psnr(a - 1, a), torch.full((2,), 100.0))  # clamped


def test_ssim_equals_an_independent_implementation():
    msssim = pytest.importorskip("pytorch_msssim")
    a = torch.rand(4, 3, 20, 28)
    b = (a + 0.2 * torch.randn_like(a)).clamp(0, 1)
    expected = msssim.ssim(a, b, data_range=1.0, size_average=False, win_size=11, win_sigma=1.5)
    torch.testing.assert_close(ssim(a, b), expected, rtol=0, atol=1e-5)


def test_ssim_is_one_for_equal_images_and_the_windows_differ():
    a = torch.rand(2, 3, 20, 28)
    torch.testing.assert_close(ssim(a, a), torch.ones(2))
    b = (a + 0.1 * torch.randn_like(a)).clamp(0, 1)
    assert (ssim(a, b) - ssim(a, b, window="uniform")).abs().max() > 1e-4


def test_uniform_ssim_of_constant_images():
    """Means 0.2 and 0.6, no variance: (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)."""
    value = ssim(torch.full((1, 3, 9, 11), 0.2), torch.full((1, 3, 9, 11), 0.6), window="uniform")
    assert value.item() == pytest.approx((0.24 + 1e-4) / (0.4 + 1e-4), rel=1e-4)


def test_the_nearest_reference_of_a_reference_is_itself():
    cameras = ring(6)
    assert nearest_reference(cameras, cameras).tolist() == list(range(6))


def test_protocol_bounds():
    check_references(ESCHERNET_GSO, [1, 10])
    with pytest.raises(AnyViewError, match="takes 1 to 10"):
        check_references(ESCHERNET_GSO, [0])


def thing(seed: int) -> HeldOutObject:
    images = torch.rand(25, 3, 16, 24, generator=torch.Generator().manual_seed(seed))
    return HeldOutObject(f"thing-{seed}", images, ring(25, seed=seed))


def test_evaluation_scores_every_object_and_count(tmp_path):
    renderer = tiny_renderer(**CAUSAL, steps=1, guidance=1.0)
    objects = [thing(0), thing(1)]
    scores = evaluate(renderer, objects, ESCHERNET_GSO, [1, 3])
    assert [(s.object, s.references) for s in scores] == [
        ("thing-0", 1), ("thing-0", 3), ("thing-1", 1), ("thing-1", 3),
    ]  # fmt: skip
    first = scores[0]
    truth = objects[0].images[10:]
    assert first.psnr == pytest.approx(psnr(first.images, truth).mean().item())
    assert first.copy_psnr == pytest.approx(psnr(objects[0].images[:1].expand(15, -1, -1, -1), truth).mean().item())
    summary = means(scores)
    assert summary[1]["psnr"] == pytest.approx((scores[0].psnr + scores[2].psnr) / 2)
    write_report(tmp_path / "scores.json", scores, ESCHERNET_GSO, {"model": "tiny"})
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["mean"]["3"]["psnr"] == pytest.approx(summary[3]["psnr"])
    assert document["model"] == "tiny" and len(document["objects"]) == 4


def test_a_perfect_renderer_scores_100():
    """The protocol itself: a renderer that knows the truth gets it."""
    renderer = tiny_renderer(**CAUSAL, steps=1, guidance=1.0)
    target = thing(0)
    lookup = {tuple(c.tolist()): image for c, image in zip(target.cameras.centres, target.images, strict=True)}

    class Oracle:
        image_size = (16, 24)

        def encode(self, images, cameras):
            return renderer.encode(images, cameras)

        def render(self, scene, cameras, *, seeds, independent=False, on_step=None):
            from anyview.rendering.renderer import Rendering

            images = torch.stack([lookup[tuple(c.tolist())] for c in cameras.centres[0]])
            return Rendering(images[None], cameras)

        def extend(self, scene, images, cameras, *, keep):
            raise AssertionError

    assert evaluate(Oracle(), [target], ESCHERNET_GSO, [2])[0].psnr == 100


def test_too_few_views_are_refused():
    renderer = tiny_renderer(**CAUSAL)
    short = HeldOutObject("short", torch.rand(12, 3, 16, 24), ring(12))
    with pytest.raises(AnyViewError, match="short: 12 views, protocol eschernet-gso needs 25"):
        evaluate(renderer, [short], ESCHERNET_GSO, [1])
    with pytest.raises(AnyViewError, match="no objects"):
        evaluate(renderer, [], ESCHERNET_GSO, [1])
