"""Scenes that were drawn, kept in files: what was drawn is what is rendered, whatever is asked for afterwards."""

import pytest
import torch

from kaleidoscene.api import Model
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.dit3d.system import Dit3dSystem
from kaleidoscene.viewer.live import LiveScene
from tests.conftest import REPOSITORY, ring
from tests.families.dit3d.tiny import tiny_renderer
from tests.families.rae3d.tiny import SIZE


@pytest.fixture(scope="module")
def bus():
    return read_capture(REPOSITORY / "examples" / "captures" / "school_bus")


@pytest.mark.parametrize("references", [[0], [0, 4]])  # drawn, and decoded
def test_a_kept_scene_is_the_one_that_was_drawn(bus, tmp_path, references):
    model = Model(Dit3dSystem(tiny_renderer(decode_from=2)))
    made = model.reconstruct(bus.select(references), seed=3)
    cameras = made.around(5)
    views = made.render(cameras)
    made.save(tmp_path / "scene.safetensors")
    kept = model.with_sampling(steps=1).open_scene(tmp_path / "scene.safetensors")  # it was drawn already
    assert kept.seed == LiveScene.of(model, made).seed == 3  # the window shows the scene that was made
    seen = LiveScene.of(model, made).film(cameras[2:3])
    torch.testing.assert_close(next(seen).image, views.images[2], rtol=0, atol=1e-5)
    found = kept.render(cameras[2:4])
    for name in ("images", "depths", "points", "confidence"):
        torch.testing.assert_close(getattr(found, name), getattr(views, name)[2:4], rtol=0, atol=1e-5)
    other = model.reconstruct(bus.select(references), seed=4).render(cameras).images
    assert torch.allclose(other, views.images, atol=1e-5) == (len(references) == 2)
    assert torch.equal(model.reconstruct(bus.select(references), seed=3).render(cameras).images, views.images)


def test_what_cannot_be_kept_or_drawn_anew_is_refused(bus, tmp_path):
    system = Dit3dSystem(tiny_renderer())
    renderer, cameras = system.renderer, ring(4, SIZE, batch=(1,))
    scene = renderer.expect(renderer.encode(torch.rand(1, 1, 3, *SIZE), cameras[:, :1]), cameras[:, 1:])
    with pytest.raises(KaleidosceneError, match="this one was drawn 0 times"):
        system.pack(scene)
    for seed in (1, 2):
        renderer.draw(scene, seed)
    with pytest.raises(KaleidosceneError, match="this one was drawn 2 times"):
        system.pack(scene)
    made = Model(system).reconstruct(bus.select([0]))
    made.save(tmp_path / "scene.safetensors")
    kept = Model(system).open_scene(tmp_path / "scene.safetensors").scene
    assert renderer.expect(kept, cameras) is kept
    with pytest.raises(KaleidosceneError, match="cannot be drawn anew"):
        renderer.extend(kept, torch.rand(1, 1, 3, *SIZE), cameras[:, 1:2], keep=[0])
    other = Dit3dSystem(tiny_renderer())
    with torch.no_grad():
        next(other.renderer.autoencoder.renderer.model.parameters()).add_(1e-3)
    with pytest.raises(KaleidosceneError, match="a scene of other weights"):
        Model(other).open_scene(tmp_path / "scene.safetensors")
