"""What the window shows is what a rendering gives; paths go where their keyframes are."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.view import ViewOptions, _subject
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry import trajectories
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.rendering.ordering import RenderPlan
from kaleidoscene.viewer.beside import lay_beside
from kaleidoscene.viewer.comparison import Photographs, beside
from kaleidoscene.viewer.live import LiveFrame, LiveScene, letterbox
from kaleidoscene.viewer.path import PRESETS, Keyframe, PathEditor
from kaleidoscene.viewer.things import place_of, pose_of, scale_of, show_file
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def bus():
    return read_capture(REPOSITORY / "examples" / "captures" / "school_bus")


@pytest.fixture(scope="module", params=["default", "rng"])
def scene(request, bus):
    return LiveScene(load(request.param), bus, [0, 2])


def test_a_film_is_what_a_rendering_gives(scene, bus):
    cameras = bus.cameras[[5, 9, 14]]
    plan = RenderPlan(mode="independent", chunk=1)
    for seed in (0, 3):
        whole = scene.model.render(bus.select([0, 2]), cameras=cameras, seed=seed, plan=plan)
        frames = list(scene.with_seed(seed).film(cameras))
        torch.testing.assert_close(torch.stack([frame.image for frame in frames]), whole.images, rtol=0, atol=1e-6)
        if whole.depths is not None:
            torch.testing.assert_close(torch.stack([frame.depth for frame in frames]), whole.depths)
    first = scene.view(cameras.world_from_cam[1])
    alone = scene.model.render(bus.select([0, 2]), cameras=scene.camera(cameras.world_from_cam[1]), plan=plan)
    torch.testing.assert_close(first.image, alone.images[0], rtol=0, atol=1e-6)
    assert first.seconds > 0


def test_larger_views_and_their_drafts(bus, tmp_path):
    options = ViewOptions(
        paths=(REPOSITORY / "examples" / "captures" / "school_bus",), image_size=256, references="0,2"
    )
    subject = _subject(options, list(options.paths), tmp_path)
    assert subject.load is not None and subject.load("rng").image_size == (64, 64), "which has one size"
    live = LiveScene(subject.load("default"), bus, subject.references)
    pose = bus.cameras.world_from_cam[5]
    view, draft = live.view(pose), live.draft(pose)
    assert view.image.shape == (3, 256, 256) and draft.image.shape == (3, 128, 128)
    torch.testing.assert_close(draft.image, view.image[:, ::2, ::2], rtol=0, atol=0.05)
    with pytest.raises(KaleidosceneError, match="models of rae3d render 64 alone"):
        _subject(replace(options, model="rae3d"), list(options.paths), tmp_path).load("rae3d")


def test_a_view_is_as_high_as_the_window():
    image, depth = torch.rand(3, 4, 6), 1 + torch.rand(4, 6)
    wide = letterbox(LiveFrame(image, depth, 0.1, 5.0), 2.5)
    assert wide.image.shape == (3, 4, 10) and wide.depth.shape == (4, 10)
    assert torch.equal(wide.image[..., 2:8], image) and (wide.image[..., :2] == 1).all()
    assert torch.equal(wide.depth[:, 2:8], depth) and not wide.depth[:, 8:].any()
    narrow = letterbox(LiveFrame(image, None, 0.1, 5.0), 0.5)
    assert narrow.depth is None and torch.equal(narrow.image, image[..., 2:4])
    assert torch.equal(letterbox(LiveFrame(image, depth, 0.1, 5.0), 1.5).image, image)


def test_two_answers_stand_beside_each_other(scene, bus):
    """Left of the line the model's pixels, right of it the other's; photographs where a page looks through a camera."""
    truth = Photographs(bus, scene)
    pose = bus.cameras.world_from_cam[5]
    photograph = truth.view(pose.double())
    seen = scene.model.prepare(bus.select([5]))[0][0]
    assert torch.equal(photograph.image, seen)
    moved, turned = pose.clone(), pose.clone()
    moved[0, 3] += 0.1
    turned[:3, :3] = turned[:3, :3] @ torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert truth.view(moved) is None and truth.view(turned) is None
    frame = scene.view(pose)
    w = seen.shape[-1]
    both = beside(frame, photograph, 0.25)
    assert torch.equal(both.image[..., : w // 4 - 1], frame.image[..., : w // 4 - 1])
    assert torch.equal(both.image[..., w // 4 + 1 :], seen[..., w // 4 + 1 :])
    assert torch.equal(beside(frame, photograph, 1.0).image, frame.image)
    assert torch.equal(beside(frame, photograph, 0.0).image, seen)
    # Another size of picture, by a lens that shows as much: cropped, where it shows more, and laid on white.
    wide = LiveFrame(torch.nn.functional.pad(seen, (10, 10, 0, 0), value=0.3), None, 0.0, frame.focal)
    assert torch.equal(beside(frame, wide, 0.0).image, seen)
    narrow = beside(frame, LiveFrame(seen[..., 10:-10], None, 0.0, frame.focal), 0.0).image
    assert torch.equal(narrow[..., 10:-10], seen[..., 10:-10]) and (narrow[..., :10] == 1).all()
    half = LiveFrame(
        torch.nn.functional.interpolate(seen[None], scale_factor=0.5, mode="area")[0], None, 0.0, 0.5 * frame.focal
    )
    again = beside(frame, half, 0.0).image
    assert again.shape == seen.shape and float((again - seen).abs().mean()) < 0.03


def test_the_nearest_photograph_is_shown_by_the_lens_of_the_views(bus):
    """Two cameras that stand nearly at one place; a model whose views take another lens than the photographs."""
    near = bus.cameras.world_from_cam[5].double().clone()
    near[:3, 3] += 1e-3
    frames = (replace(bus.frames[6], world_from_cam=near), *bus.frames[5:])
    scene = LiveScene(load("default"), bus, [0, 2])
    truth = Photographs(replace(bus, frames=frames), scene)
    shown = truth.view(bus.cameras.world_from_cam[5].double()).image
    assert torch.equal(shown, scene.model.prepare(bus.select([5]))[0][0])
    other = LiveScene(load("places"), bus, [0, 2])
    for frame in bus.frames[:1]:
        wider = replace(frame, intrinsics=frame.intrinsics * torch.tensor([[0.8], [0.8], [1.0]]).double())
        wide = replace(bus, frames=(wider, *bus.frames[1:]))
        seen = Photographs(wide, other).view(bus.cameras.world_from_cam[0].double()).image
        kept = torch.nn.functional.avg_pool2d(wide.select([0]).images()[0], 2)
        assert seen.shape == kept.shape and float((seen - kept).abs().mean()) > 0.01, "brought to the lens of the views"


def test_poses_are_those_of_the_browser():
    pose = random_rigid(generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    back = pose_of(SimpleNamespace(**place_of(pose)))
    torch.testing.assert_close(back, pose)


def editor(bus) -> PathEditor:
    return PathEditor(bus.cameras.intrinsics[0], (12, 20), duration=2.0, fps=5.0)


def test_a_path_goes_through_its_keyframes(bus, tmp_path):
    made = editor(bus)
    with pytest.raises(KaleidosceneError, match="at least 2 keyframes, there are 0"):
        made.cameras()
    for number in (3, 8, 20, 5):
        made.add(Keyframe(bus.cameras.world_from_cam[number]))
    made.move(3, bus.cameras.world_from_cam[6])
    made.add(Keyframe(bus.cameras.world_from_cam[1]), place=0)
    made.remove(3)
    cameras = made.cameras()
    assert len(cameras) == made.frames == 10 and cameras.image_size == (12, 20)
    keys = bus.cameras.world_from_cam[[1, 3, 8, 6]]
    torch.testing.assert_close(cameras.world_from_cam[[0, 3, 6, 9]], keys, rtol=0, atol=1e-5)
    expected = trajectories.spline(bus.cameras[[1, 3, 8, 6]], 10)
    torch.testing.assert_close(cameras.world_from_cam, expected.world_from_cam)
    made.closed = True
    assert not torch.allclose(made.cameras().world_from_cam[9], keys[3], atol=1e-3)
    made.save(tmp_path / "a" / "path.json")
    other = editor(bus)
    other.open(tmp_path / "a" / "path.json")
    torch.testing.assert_close(other.cameras().world_from_cam, made.cameras().world_from_cam)
    assert (other.fps, other.duration) == (5.0, 2.0)
    slow = json.loads((tmp_path / "a" / "path.json").read_text()) | {"fps": 4.0}
    (tmp_path / "slow.json").write_text(json.dumps(slow))
    other.open(tmp_path / "slow.json")
    assert (other.fps, other.duration, other.frames) == (4.0, 2.5, 10)
    other.add(Keyframe(keys[0]))  # keyframes take the place of what was opened
    with pytest.raises(KaleidosceneError, match="there are 1"):
        other.cameras()


def test_keyframes_have_lenses_of_models_that_show_any(bus, tmp_path):
    """Linear between them, and kept by files; a model of one lens shows its own."""
    made = PathEditor(bus.cameras.intrinsics[0], (12, 20), duration=1.0, fps=5.0)
    for number, degrees in ((3, None), (8, 80.0)):
        made.add(Keyframe(bus.cameras.world_from_cam[number], degrees))
    own = bus.cameras.intrinsics[0]
    assert torch.equal(made.cameras().intrinsics, own.expand(5, 3, 3))
    made.any_lens = True
    focal = made.cameras().intrinsics[:, 1, 1]
    wide = 6 / math.tan(math.radians(40))
    torch.testing.assert_close(focal, torch.lerp(own[1, 1], torch.tensor(wide), torch.linspace(0, 1, 5)))
    made.save(tmp_path / "path.json")
    other = replace(made, keyframes=[])
    other.open(tmp_path / "path.json")
    torch.testing.assert_close(other.cameras().intrinsics, made.cameras().intrinsics)
    other.any_lens = False
    assert torch.equal(other.cameras().intrinsics, own.expand(5, 3, 3))
    other.take_preset("dolly-zoom", bus)
    with pytest.raises(KaleidosceneError, match="dolly-zoom changes the field of view; this model has one"):
        other.cameras()
    other.any_lens = True
    assert float(other.cameras().intrinsics[:, 1, 1].diff().abs().min()) > 0


def test_a_lens_is_looked_through(bus):
    """As a rendering of the same camera has it."""
    scene, pose = LiveScene(load("places"), bus, [0, 2]), bus.cameras.world_from_cam[5]
    seen, camera = scene.view(pose, 70.0), scene.camera(pose, 70.0)
    assert seen.focal == pytest.approx(64 / math.tan(math.radians(35)), rel=1e-5)
    plan = RenderPlan(mode="independent", chunk=1)
    whole = scene.model.render(bus.select([0, 2]), cameras=camera, plan=plan)
    torch.testing.assert_close(seen.image, whole.images[0], rtol=0, atol=1e-6)
    assert not torch.allclose(seen.image, scene.view(pose).image, atol=1e-2)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "dolly-zoom"])
def test_presets_are_those_of_the_command_line(bus, name):
    made = editor(bus)
    made.take_preset(name, bus)
    assert torch.equal(made.cameras().world_from_cam, trajectories.preset(name, bus, 10).world_from_cam)
    assert torch.equal(made.cameras().intrinsics[4], bus.cameras.intrinsics[0])
    made.duration = 3.0
    assert torch.equal(made.cameras().world_from_cam, trajectories.preset(name, bus, 15).world_from_cam)


class Drawn:
    """Keeps what is drawn."""

    def __getattr__(self, name):
        return lambda *values, **named: self.__dict__.setdefault("calls", []).append((name, values, named))


def test_clouds_and_meshes_are_drawn(tmp_path):
    lines = ["ply", "format ascii 1.0", "element vertex 3", *(f"property float {axis}" for axis in "xyz")]
    lines += [f"property uchar {colour}" for colour in ("red", "green", "blue")] + ["end_header"]
    points = [(0.0, 1.0, 2.0, 10, 20, 30), (3.0, -1.0, 2.5, 40, 50, 60), (0.5, 0.5, 4.0, 70, 80, 90)]
    path = tmp_path / "cloud.ply"
    path.write_text("\n".join([*lines, *(" ".join(map(str, point)) for point in points)]) + "\n")
    drawn = Drawn()
    assert show_file(drawn, path) == "a cloud of 3 points"
    (name, (_, where, colours), _), *_ = drawn.calls
    assert name == "add_point_cloud"
    np.testing.assert_allclose(where, np.array(points)[:, :3])
    np.testing.assert_array_equal(colours, np.array(points)[:, 3:])
    (tmp_path / "broken.ply").write_text("ply\nnothing")
    with pytest.raises(KaleidosceneError, match=r"broken\.ply: not readable as a mesh or cloud"):
        show_file(drawn, tmp_path / "broken.ply")
    (tmp_path / "broken.glb").write_bytes(b"nonsense")
    with pytest.raises(KaleidosceneError, match=r"broken\.glb: not readable as a mesh or cloud"):
        show_file(drawn, tmp_path / "broken.glb")
    (tmp_path / "empty.obj").write_text("# nothing\n")
    with pytest.raises(KaleidosceneError, match=r"empty\.obj: "):
        show_file(drawn, tmp_path / "empty.obj")
    (tmp_path / "box.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert show_file(drawn, tmp_path / "box.obj", 1) == "a mesh" and drawn.calls[-1][0] == "add_mesh_trimesh"
    assert [values[0] for _, values, _ in drawn.calls] == ["/files/0-cloud.ply", "/files/1-box.obj"]


def test_captures_stand_in_a_row_of_one_size(bus):
    """However another capture was turned, scaled and moved, it is laid beside the first as that itself would be."""
    move = random_rigid(generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    turn = torch.tensor([3.0, -7.0, 0.4], dtype=torch.float64)
    frames = []
    for frame in bus.frames:
        pose = frame.world_from_cam.double().clone()
        pose[:3, 3] = 2.5 * pose[:3, 3]
        pose = move @ pose
        pose[:3, 3] += turn
        frames.append(replace(frame, world_from_cam=pose))
    middle = 2.5 * move[:3, :3] @ bus.origin().double() + move[:3, 3] + turn
    other = replace(bus, frames=tuple(frames), centre=middle, upward=move[:3, :3] @ bus.up().double())
    one, two, three = lay_beside(bus, [other, bus, other])
    first = bus.cameras.centres.double()
    for number, laid in enumerate((one, two, three), start=1):
        inside = laid.poses[:, :3, 3] - laid.middle
        distances = torch.cdist(inside, inside)
        assert torch.allclose(distances, torch.cdist(first, first), atol=1e-4)
        assert torch.allclose(inside @ bus.up().double(), (first - bus.origin()) @ bus.up().double(), atol=1e-4)
        apart = (laid.middle - bus.origin()).norm()
        assert torch.allclose(apart, torch.tensor(3.0 * number * scale_of(bus), dtype=torch.float64))


def test_a_draft_is_every_second_pixel_of_the_view(scene, bus):
    """What somebody sees who moves about is a part of what is seen when still, of models that know how."""
    pose = bus.cameras.world_from_cam[5]
    assert scene.drafts == (scene.model.system.family == "kaleido")
    if scene.drafts:
        many = LiveScene(scene.model, bus, [0, 2, 4, 6, 8, 10])  # of which outlines are asked, too
        for some in (scene, many, scene.with_seed(3)):
            whole, part = some.view(pose), some.draft(pose)
            # But for what a coarse pass leaves out, which begins at other pixels.
            apart = part.image - whole.image[:, ::2, ::2]
            assert apart.square().mean().sqrt() < 0.004 and part.focal == whole.focal


@pytest.mark.parametrize("name", ["rae3d", "dit3d"])
def test_whoever_moves_sees_one_scene(bus, name, monkeypatch):
    """Of models whose world, or scene, is told by what is asked for: made once a seed, whatever is looked at."""
    model, made = load(name), []
    if name == "dit3d":
        model = model.with_sampling(steps=3, guidance=1.0)
    renderer, method = model.system.renderer, "with_tokens" if name == "rae3d" else "_draw"
    whole = getattr(renderer, method)
    monkeypatch.setattr(renderer, method, lambda *given: made.append(1) or whole(*given))
    scene, poses = LiveScene(model, bus, [0]), bus.cameras.world_from_cam
    views = [scene.view(poses[number]).image for number in (3, 9, 3)]
    assert torch.equal(views[2], views[0]) and not torch.equal(views[0], views[1])
    both = scene.camera(poses[3])
    both = Cameras(poses[[9, 3]], both.intrinsics.expand(2, 3, 3), both.image_size)
    for frame, view in zip(scene.film(both), views[1:], strict=True):
        torch.testing.assert_close(frame.image, view, rtol=0, atol=1e-5)
    assert len(made) == 1
    other = scene.with_seed(5).view(poses[3]).image
    assert len(made) == (2 if name == "dit3d" else 1) and torch.equal(other, views[0]) == (name == "rae3d")
