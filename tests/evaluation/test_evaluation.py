import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation import run
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.protocols import ESCHERNET_GSO, nearest_reference
from kaleidoscene.evaluation.run import HeldOutObject, evaluate, means
from kaleidoscene.rendering.capabilities import Capabilities
from tests.conftest import CAUSAL, ring, tiny_renderer


def test_the_nearest_reference_of_a_reference_is_itself():
    cameras = ring(6)
    assert nearest_reference(cameras, cameras).tolist() == list(range(6))


def test_protocol_bounds():
    assert ESCHERNET_GSO.split(25, [1, 10], "thing").references[10] == tuple(range(10))
    with pytest.raises(KaleidosceneError, match="takes 1 to 10"):
        ESCHERNET_GSO.split(25, [0], "thing")


def thing(seed: int) -> HeldOutObject:
    images = torch.rand(25, 3, 16, 24, generator=torch.Generator().manual_seed(seed))
    return HeldOutObject(f"thing-{seed}", images, ring(25, seed=seed))


def test_evaluation_scores_every_object_and_count():
    renderer = tiny_renderer(**CAUSAL, steps=1, guidance=1.0)
    objects = [thing(0), thing(1)]
    scores = evaluate(renderer, objects, ESCHERNET_GSO, [1, 3])
    assert [(s.scene, s.references) for s in scores] == [
        ("thing-0", 1), ("thing-0", 3), ("thing-1", 1), ("thing-1", 3),
    ]  # fmt: skip
    first = scores[0]
    truth = objects[0].images[10:]
    assert first.mean("psnr") == pytest.approx(psnr(first.images, truth).mean().item())
    assert sum(first.copy["psnr"]) / 15 == pytest.approx(
        psnr(objects[0].images[:1].expand(15, -1, -1, -1), truth).mean().item()
    )
    summary = means(scores)
    assert summary[1]["psnr"] == pytest.approx((scores[0].mean("psnr") + scores[2].mean("psnr")) / 2)


def test_a_perfect_renderer_scores_100():
    """The protocol itself: a renderer that knows the truth gets it."""
    renderer = tiny_renderer(**CAUSAL, steps=1, guidance=1.0)
    target = thing(0)
    lookup = {tuple(c.tolist()): image for c, image in zip(target.cameras.centres, target.images, strict=True)}

    class Oracle:
        image_size, capabilities = (16, 24), Capabilities()

        def encode(self, images, cameras):
            return renderer.encode(images, cameras)

        def expect(self, scene, cameras):
            return renderer.expect(scene, cameras)

        def render(self, scene, cameras, *, seeds, independent=False, depth=True, on_step=None):
            from kaleidoscene.rendering.renderer import Rendering

            images = torch.stack([lookup[tuple(c.tolist())] for c in cameras.centres[0]])
            return Rendering(images[None], cameras)

        def extend(self, scene, images, cameras, *, keep):
            raise AssertionError

    assert evaluate(Oracle(), [target], ESCHERNET_GSO, [2])[0].mean("psnr") == 100


@pytest.mark.parametrize("scale_from", ["references", "all"])
def test_targets_that_are_rendered_alone_do_not_depend_on_their_groups(monkeypatch, scale_from):
    """Nor does the scale that the paper takes from all views."""
    renderer = tiny_renderer(steps=1, guidance=1.0, scale_from=scale_from)
    scene, values = thing(0), []
    for group in (2, 5, 99):
        monkeypatch.setattr(run, "_CHUNK", group)
        values.append(evaluate(renderer, [scene], ESCHERNET_GSO, [3])[0].images)
    for other in values[1:]:
        torch.testing.assert_close(other, values[0], rtol=0, atol=1e-4)


def test_too_few_views_are_refused():
    renderer = tiny_renderer(**CAUSAL)
    short = HeldOutObject("short", torch.rand(12, 3, 16, 24), ring(12))
    with pytest.raises(KaleidosceneError, match="short: 12 views, protocol eschernet-gso needs 25"):
        evaluate(renderer, [short], ESCHERNET_GSO, [1])
    with pytest.raises(KaleidosceneError, match="no objects"):
        evaluate(renderer, [], ESCHERNET_GSO, [1])
