"""What every family must keep, run over the registry, and the proof that a family is a folder and a line."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from kaleidoscene.api import Model
from kaleidoscene.captures.conversion.rendered import write_rendered_capture
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families import registry
from kaleidoscene.families.dit3d.checkpoint import save_model as save_dit3d
from kaleidoscene.families.kaleido.checkpoint import save_model
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.rae3d.checkpoint import save_model as save_rae3d
from kaleidoscene.families.registry import FAMILIES, load_folder
from kaleidoscene.families.rng.checkpoint import save_model as save_rng
from kaleidoscene.rendering.capabilities import PHRASES, Capabilities
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.rendering.renderer import Renderer, Scene
from kaleidoscene.rendering.system import Drawing, Routed, Sampler, SceneKeeper, System
from kaleidoscene.training.network import network_of
from kaleidoscene.training.recipe import Recipe
from kaleidoscene.training.task import Task
from tests.conftest import CAUSAL, randomised, ring, tiny_renderer
from tests.datasets.test_training_data import scenes
from tests.families.dit3d.tiny import tiny_dit3d, tiny_dit3d_settings, write_autoencoder
from tests.families.mean_family import MEAN, MeanNetwork, MeanSettings, MeanTask
from tests.families.rae3d.tiny import tiny_rae3d, tiny_rae3d_settings
from tests.families.rng.tiny import tiny_network, tiny_settings

SIZE = (16, 24)


def _kaleido(folder: Path) -> dict[str, torch.Tensor]:
    settings = tiny_renderer(**CAUSAL, steps=2).settings
    weights = dict(randomised(Kaleido(settings.model)).named_parameters())
    save_model(folder, settings, weights)
    return weights


def _mean(folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(parents=True)
    weights = {name: p.detach() for name, p in randomised(MeanNetwork()).named_parameters()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(MeanTask(MeanSettings()).describe()))
    return weights


def _rng(folder: Path) -> dict[str, torch.Tensor]:
    weights = dict(tiny_network().named_parameters())
    save_rng(folder, tiny_settings(), weights)
    return weights


def _rae3d(folder: Path) -> dict[str, torch.Tensor]:
    weights = dict(tiny_rae3d().named_parameters())
    save_rae3d(folder, tiny_rae3d_settings(), weights)
    return weights


def _dit3d(folder: Path) -> dict[str, torch.Tensor]:
    weights = dict(tiny_dit3d().named_parameters())
    save_dit3d(folder, tiny_dit3d_settings(write_autoencoder(folder.parent / "autoencoder")), weights)
    return weights


# One for every family: writes a small checkpoint with random weights, and returns these.
MAKERS = {"kaleido": _kaleido, "mean": _mean, "rng": _rng, "rae3d": _rae3d, "dit3d": _dit3d}


@pytest.fixture(autouse=True)
def _a_second_family(monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "mean", MEAN)


@pytest.fixture(params=[*sorted(FAMILIES), "mean"])
def made(request, tmp_path) -> tuple[System, dict[str, torch.Tensor], Path]:
    folder = tmp_path / "model"
    weights = MAKERS[request.param](folder)
    return load_folder(folder, "cpu", "fp32"), weights, folder


def test_saved_weights_load_bit_for_bit(made):
    system, weights, _ = made
    model = system.renderer.model
    for name, p in model.named_parameters():
        assert p.equal(weights[name]), name
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_the_renderer_keeps_the_protocol(made):
    system, _, _ = made
    renderer = system.renderer
    assert isinstance(system, System) and isinstance(renderer, Renderer)
    cameras = ring(5, system.image_size)
    scene = renderer.encode(torch.rand(1, 2, 3, *system.image_size), cameras[:2].reshape(1, 2))
    assert isinstance(scene, Scene) and scene.num_references == 2 and scene.nbytes > 0
    assert scene.cameras.world_from_cam.equal(cameras[:2].world_from_cam[None])
    targets = cameras[2:].reshape(1, 3)
    scene = renderer.expect(scene, targets)
    first = renderer.render(scene, targets, seeds=[1, 2, 3])
    assert first.images.shape == (1, 3, 3, *system.image_size)
    assert first.images.min() >= 0 and first.images.max() <= 1
    assert renderer.render(scene, targets, seeds=[1, 2, 3]).images.equal(first.images)


def test_views_without_depth_do_not_run_what_makes_points(made):
    renderer = made[0].renderer
    network = getattr(renderer, "autoencoder", None)
    network = renderer.model if network is None else network.renderer.model
    makers = [module for name, module in network.named_modules() if name == "points"]
    assert bool(makers) == renderer.capabilities.renders_points
    ran: list[object] = []
    for maker in makers:
        maker.register_forward_hook(lambda maker, *_: ran.append(maker))
    cameras = ring(4, made[0].image_size, batch=(1,))
    scene = renderer.encode(torch.rand(1, 2, 3, *made[0].image_size), cameras[:, :2])
    renderer.render(scene, cameras[:, 2:], seeds=[0, 1], depth=False)
    assert not ran
    renderer.render(scene, cameras[:, 2:], seeds=[0, 1])
    assert bool(ran) == bool(makers)


def test_capabilities_are_kept(made):
    """What a family says it can do it does; what it says it cannot is refused in one sentence."""
    system, _, _ = made
    renderer, can = system.renderer, system.renderer.capabilities
    assert can == FAMILIES[system.family].capabilities
    cameras, images = ring(4, system.image_size, batch=(1,)), torch.rand(1, 2, 3, *system.image_size)
    scene = renderer.encode(images, cameras[:, :2])
    rendering = renderer.render(scene, cameras[:, 2:], seeds=[0, 1])
    assert (rendering.depths is not None) == can.renders_depth
    assert (rendering.points is not None) == (rendering.confidence is not None) == can.renders_points
    alone = renderer.render(scene, cameras[:, 2:], seeds=[0, 1], depth=False)
    assert alone.images.equal(rendering.images)
    assert alone.depths is None and alone.points is None and alone.confidence is None
    assert isinstance(system, Sampler) == can.samples
    if can.takes_back_views:
        assert renderer.extend(scene, rendering.images[:, :1], cameras[:, 2:3], keep=[0]).num_references == 2
    else:
        with pytest.raises(KaleidosceneError, match="cannot become references"):
            renderer.extend(scene, rendering.images[:, :1], cameras[:, 2:3], keep=[0])
    if can.needs_cameras:
        with pytest.raises(KaleidosceneError, match="without cameras"):
            renderer.encode(images, None)
    else:
        assert (renderer.encode(images, None).cameras is not None) == can.estimates_cameras
    other = (system.image_size[0] + 8, system.image_size[1])
    if not can.any_size:
        with pytest.raises(KaleidosceneError, match="the model renders"):
            renderer.encode(torch.rand(1, 2, 3, *other), ring(2, other, batch=(1,)))
    with pytest.raises(KaleidosceneError, match="do not match in number"):
        renderer.encode(images, cameras[:, :3])
    with pytest.raises(KaleidosceneError, match="their cameras are of images of"):
        renderer.encode(images, ring(2, other, batch=(1,)))
    with pytest.raises(KaleidosceneError, match="at least one reference"):
        renderer.encode(images[:, :0], cameras[:, :0])
    broken = images.clone()
    broken[0, 1, 2, 3, 4] = torch.nan
    with pytest.raises(KaleidosceneError, match="References have values that are not finite"):
        renderer.encode(broken, cameras[:, :2])


def test_kept_scenes_render_the_same(made):
    system, _, _ = made
    if not isinstance(system, SceneKeeper):
        return  # tests/rendering/test_scene_file.py: it is refused
    renderer, cameras = system.renderer, ring(4, system.image_size, batch=(1,))
    scene = renderer.encode(torch.rand(1, 2, 3, *system.image_size), cameras[:, :2])
    scene = renderer.expect(scene, cameras[:, 2:])
    if isinstance(renderer, Drawing):
        renderer.draw(scene, 0)
    again = system.unpack(system.pack(scene))
    ours, theirs = (renderer.render(one, cameras[:, 2:], seeds=[0, 1]) for one in (scene, again))
    assert ours.images.equal(theirs.images)
    if ours.points is not None:
        assert ours.points.equal(theirs.points)


def test_what_no_family_can_is_refused_by_naming_who_can():
    nothing, all_names = Capabilities(takes_back_views=False), {field.name for field in fields(Capabilities)}
    assert set(PHRASES) == all_names - {"needs_cameras", "unit_of_cameras"}
    for capability, phrase in PHRASES.items():
        with pytest.raises(KaleidosceneError, match=rf"Asking needs a method that {phrase}, which other does not"):
            registry.require(capability, "Asking", "other", nothing)
    with pytest.raises(KaleidosceneError, match=r"estimates cameras, which kaleido does not \(rng, mean do\)\."):
        registry.require("estimates_cameras", "It", "kaleido", FAMILIES["kaleido"].capabilities)


def test_cost_grows_with_the_request(made):
    system, _, folder = made
    small, large = system.cost(1, 2), system.cost(4, 9)
    assert large.flops > small.flops and large.memory > small.memory
    assert small.parameters == large.parameters == sum(p.numel() for p in system.renderer.model.parameters())
    plan = registry.plan_of(folder)  # the same without weights
    assert isinstance(plan, Plan) and plan.image_size == system.image_size and plan.cost(4, 9) == large
    assert plan.default_plan == system.default_plan and plan.remembers == (not isinstance(system, Routed))
    both = small.followed_by(large)
    assert both.flops == small.flops + large.flops and both.memory == large.memory
    assert 0 <= large.shared < large.flops
    assert small.followed_by(large, same_scene=True).flops == both.flops - large.shared
    if isinstance(system, Sampler):
        assert system.with_sampling(steps=4, guidance=None).cost(1, 2).flops > small.flops
    else:
        with pytest.raises(KaleidosceneError, match="draws its views in steps"):
            Model(system).with_sampling(steps=4)


def test_recipes_keep_the_protocol(made):
    system, _, folder = made
    recipes = FAMILIES[system.family].recipes
    if system.family == "dit3d":  # its networks are made together with the autoencoder that they name
        recipes = {"debug": lambda: registry.recipe_of(folder)}
    debug = next(make for name, make in recipes.items() if name.endswith("debug"))
    for recipe in (debug(), registry.recipe_of(folder)):
        assert isinstance(recipe, Recipe) and recipe.family == system.family
        assert recipe.changed(recipe.options) == recipe
        task = recipe.make_task("cpu")
        assert isinstance(task, Task) and all(p.is_meta for p in task.model.parameters())
        network = network_of(task.model)
        named = dict(task.model.named_parameters())
        assert all(named[name].ndim == 2 for name in network.muon_parameters())
        assert set(task.describe()) >= {"family", "settings"}


def test_a_family_is_a_folder_and_a_line(tmp_path, capsys):
    """The smallest family goes through every verb unchanged: trained, told, rendered, scored."""
    generator = torch.Generator().manual_seed(0)
    write_shard(tmp_path / "s" / "shard-000000.tar", [scenes(n, views=12, size=SIZE) for n in range(5)])
    for name in ("one", "two"):
        (tmp_path / "held" / name).mkdir(parents=True)
        rgba = torch.randint(0, 256, (25, *SIZE, 4), generator=generator, dtype=torch.uint8).numpy()
        write_rendered_capture(tmp_path / "held" / name, rgba, ring(25, SIZE))
    run, out = str(tmp_path / "run"), tmp_path / "out"
    train = ["train", "mean-debug", "--out", run, "--shards", str(tmp_path / "s"), "--held-out", str(tmp_path / "held")]
    assert main([*train, "--train.steps", "3", "--train.optim.optimiser", "muon"]) == 0
    assert main([*train, "--train.optim.optimiser", "muon"]) == 0  # it goes on
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1]["held_out/psnr_3"] > 0 and records[2]["top_activation/layer"] > 0
    samples = tmp_path / "run" / "samples" / "step-00000006"
    with Image.open(samples / "sheet.png") as sheet:
        assert sheet.height > 6 * 128  # given, rendered and true views of both
    shown, truth = read_capture(samples / "two"), read_capture(tmp_path / "held" / "two")
    assert torch.allclose(shown.cameras.world_from_cam.float(), truth.cameras.world_from_cam[10:], atol=1e-6)
    capsys.readouterr()
    assert main(["train", "--help"]) == 0
    assert "mean:\n  mean-debug" in capsys.readouterr().out
    assert main(["info", "--model", run]) == 0 and "mean, 0.0 M parameters, 16x24" in capsys.readouterr().out
    assert main(["info", "mean-debug"]) == 0 and "training: 6 steps of 4 scenes" in capsys.readouterr().out
    capture = str(tmp_path / "held" / "one")
    render = ["render", capture, "--model", run, "--references", "0-2", "--out", str(out)]
    assert main([*render, "--targets", "3-5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["psnr"] > 0 and (out / "video.mp4").exists()
    assert main([*render[:-1], str(tmp_path / "more"), "--steps", "4"]) == 1
    assert "draws its views in steps with guidance, which mean does not (kaleido, dit3d do)" in capsys.readouterr().err
    assert main([*render[:-1], str(tmp_path / "more"), "--mode", "autoregressive"]) == 1
    assert "takes rendered views as references, which mean does not" in capsys.readouterr().err
    assert main(["evaluate", "--data", str(tmp_path / "held"), "--model", run, "--out", str(tmp_path / "scores")]) == 0
    report = json.loads((tmp_path / "scores" / "report.json").read_text())
    assert report["method"]["name"] == run
    bench = ["bench", "--model", run, "--out", str(tmp_path / "speed"), "--runs", "1", "--suites", "render", "train"]
    assert main([*bench, "--references", "2", "--targets", "3", "--steps", "1"]) == 0


def test_a_family_may_estimate_cameras(tmp_path, capsys):
    """Photographs without cameras: no pose step where the family finds them."""
    _mean(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (48, 36), (80 * number, 90, 30)).save(tmp_path / "photos" / f"{number}.png")
    arguments = ["render", str(tmp_path / "photos"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--references", "0-2", "--trajectory", "move", "--frames", "2"]) == 0
    assert "mean estimates them" in capsys.readouterr().out
    capture = Model(load_folder(tmp_path / "model", "cpu", "fp32")).estimate_cameras(read_capture(tmp_path / "photos"))
    # Its own cameras are of 24 x 16; these are of the whole image, of which it saw the middle 48 x 32.
    torch.testing.assert_close(capture.cameras.intrinsics[0, :2, 2], torch.tensor([24.0, 18.0]))
    focal = ring(1, SIZE).intrinsics[0, 1, 1]
    torch.testing.assert_close(capture.cameras.intrinsics[0, 1, 1], 2 * focal)
    assert replace(capture.frames[1], image=Path("x")).world_from_cam[0, 3] == pytest.approx(0.1)
