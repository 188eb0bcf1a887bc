"""Scenes in files: exact, and of one model alone."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kaleidoscene.api import Model, load
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rng.renderer import RngRenderer
from kaleidoscene.families.rng.system import RngSystem
from kaleidoscene.rendering.reconstruction import Reconstruction
from kaleidoscene.rendering.scene_file import fingerprint_of, read_scene, write_scene
from tests.conftest import ring
from tests.families.rng.tiny import SIZE, tiny_network, tiny_settings


def tiny_system(seed: int = 0, **changes) -> RngSystem:
    network = tiny_network(**changes)
    with torch.no_grad():
        network.embedder.rays.weight += 0.01 * seed
    return RngSystem(RngRenderer(network, tiny_settings(**changes)))


def scene_of(system: RngSystem) -> Reconstruction:
    cameras = ring(3, SIZE, seed=2)
    images = torch.rand(3, 3, *SIZE)
    scene = system.renderer.encode(images[None], cameras.reshape(1, 3))
    return Reconstruction(system, scene, images, cameras, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_a_scene_from_a_file_renders_the_same(tmp_path, attention):
    system = tiny_system(attention=attention)
    scene = scene_of(system)
    scene.save(tmp_path / "scene.safetensors")
    again = Model(system).open_scene(tmp_path / "scene.safetensors")
    targets = ring(3, SIZE, seed=5)
    ours, theirs = scene.render(targets), again.render(targets)
    for name in ("images", "depths", "points", "confidence"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert torch.equal(scene.images, again.images)
    assert torch.equal(scene.cameras.world_from_cam, again.cameras.world_from_cam)
    assert torch.equal(scene.scene.estimated.intrinsics, again.scene.estimated.intrinsics)


def test_a_scene_fits_the_weights_that_made_it_alone(tmp_path):
    path = tmp_path / "scene.safetensors"
    scene_of(tiny_system()).save(path)
    for other in (tiny_system(seed=1), tiny_system(attention="full")):
        with pytest.raises(KaleidosceneError, match="a scene of other weights"):
            Reconstruction.load(path, other)


def test_damaged_scenes_are_refused(tmp_path):
    system, path = tiny_system(), tmp_path / "scene.safetensors"
    scene_of(system).save(path)
    whole = path.read_bytes()

    def said() -> str:
        with pytest.raises(KaleidosceneError) as error:
            Reconstruction.load(path, system)
        return str(error.value)

    path.write_bytes(whole[:-100])
    assert "not readable as a scene" in said()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert "was changed after it was written" in said()
    path.write_bytes(b"no scene")
    assert "not readable as a scene" in said()
    path.unlink()
    assert "no such scene file" in said()
    save_file({"x": torch.zeros(2)}, path)
    assert "not a scene file" in said()
    path.write_bytes(whole.replace(b'\\"version\\": 1', b'\\"version\\": 7'))
    assert "format version 7, expected 1" in said()


def test_what_is_missing_in_a_scene_is_named(tmp_path):
    system, path = tiny_system(), tmp_path / "scene.safetensors"
    scene = scene_of(system)

    class Forgetful:
        fingerprint = system.fingerprint

        def pack(self, scene):
            return {name: x for name, x in system.pack(scene).items() if name != "values.3"}

        def unpack(self, tensors):
            return system.unpack(tensors)

    write_scene(path, Forgetful(), scene.scene, {"images": scene.images})
    with pytest.raises(KaleidosceneError, match=r"has no 'values.3'"):
        read_scene(path, system)
    write_scene(path, system, scene.scene, {"images": scene.images})
    with pytest.raises(KaleidosceneError, match="has no 'world_from_cam'"):
        Reconstruction.load(path, system)


def test_types_of_tensors_are_kept(tmp_path):
    """Keys and values of bf16 stay bf16."""
    system = tiny_system()
    low = RngSystem(RngRenderer(system.renderer.model, system.renderer.settings, precision="bf16"))
    scene = scene_of(low)
    assert low.pack(scene.scene)["keys.0"].dtype == torch.bfloat16
    scene.save(tmp_path / "s")
    with safe_open(tmp_path / "s", framework="pt") as file:
        assert file.get_tensor("scene.keys.0").dtype == torch.bfloat16


def test_families_without_kept_scenes_say_so(tmp_path):
    scene = replace(scene_of(tiny_system()), system=load("default").system)
    with pytest.raises(KaleidosceneError, match="Scenes of kaleido cannot be kept"):
        scene.save(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_is_known_of_a_model_makes_no_other_scenes():
    """A number that was measured of it later does not close its files; other settings do."""
    settings, network = tiny_settings(), torch.nn.Linear(2, 3)
    same, other = replace(settings, held_out_auc30=50.0), replace(settings, targets_at_once=5)
    assert fingerprint_of(same, network) == fingerprint_of(settings, network) != fingerprint_of(other, network)
