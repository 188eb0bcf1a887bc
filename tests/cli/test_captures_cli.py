"""check, pose and the ways of asking render for views, on the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import kaleidoscene
from kaleidoscene.captures.camera_paths import read_any_camera_path
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.checkpoint import save_model
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.geometry.poses import rigid
from kaleidoscene.workflows.rendering import RenderingJob
from kaleidoscene.workflows.request import RequestOptions, resolve_request
from tests import own_captures
from tests.conftest import CAUSAL, randomised, ring, tiny_renderer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    settings = tiny_renderer(**CAUSAL, steps=1, guidance=1.0).settings
    save_model(folder, settings, dict(randomised(Kaleido(settings.model)).named_parameters()))
    return folder


@pytest.fixture
def capture(tmp_path):
    folder = tmp_path / "thing"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    names = [f"images/{n:03d}.png" for n in range(12)]
    generator = np.random.default_rng(0)
    for name in names:
        Image.fromarray(generator.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(folder / name)
        Image.fromarray(np.full((32, 48), 255, np.uint8)).save(folder / name.replace("images", "masks"))
    write_cameras(folder / "transforms.json", names, ring(12, (32, 48)), centred="object")
    document = json.loads((folder / "transforms.json").read_text())
    for frame in document["frames"]:
        frame["mask_path"] = frame["file_path"].replace("images", "masks")
    (folder / "transforms.json").write_text(json.dumps(document))
    return folder


def run(capsys, *argv):
    code = main([str(word) for word in argv])
    return code, capsys.readouterr()


def last(out):
    return json.loads(out.out.strip().splitlines()[-1])


def test_references_are_chosen_and_the_rest_is_rendered(capsys, checkpoint, capture, tmp_path):
    for kind in ("spread", "kmeans"):
        code, out = run(
            capsys, "render", capture, "--out", tmp_path / kind, "--model", checkpoint, "--num-references", 4,
            "--select", kind, "--targets", "rest", "--json",
        )  # fmt: skip
        assert code == 0
        said = last(out)
        assert len(said["references"]) == 4 and said["views"] == 8 and len(said["psnr_each"]) == 8
    args = ("render", capture, "--out", tmp_path / "n", "--model", checkpoint, "--select", "nearest")
    code, out = run(capsys, *args, "--num-references", 2, "--targets", "3,5", "--json")
    assert code == 0 and not {3, 5} & set(last(out)["references"])  # what is to be compared with is no reference
    code, out = run(capsys, *args[:3], tmp_path / "m", *args[4:], "--num-references", 2)
    assert code == 1 and "--select nearest needs targets" in out.err
    code, out = run(capsys, *args[:3], tmp_path / "m", *args[4:], "--targets", "3", "--camera-path", "x.json")
    assert code == 1 and "--targets and --camera-path were both given" in out.err


def test_cameras_of_another_capture(capsys, checkpoint, capture, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(capture, other)
    code, out = run(
        capsys, "render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--cameras-of", other, "--json"
    )
    assert code == 0 and last(out)["views"] == 12 and last(out)["psnr"] is None
    rendered = kaleidoscene.read_capture(tmp_path / "out").cameras.world_from_cam
    torch.testing.assert_close(rendered, kaleidoscene.read_capture(other).cameras.world_from_cam)


def test_a_dry_run_draws_and_counts_and_renders_nothing(capsys, checkpoint, capture, tmp_path):
    code, out = run(capsys, "render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--dry-run")
    assert code == 0 and "GFLOP" in out.out and "nothing was rendered" in out.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["frusta.png"]


def test_a_second_run_renders_nothing(capsys, checkpoint, capture, tmp_path):
    args = ("render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--frames", 3)
    assert run(capsys, *args)[0] == 0
    before = (tmp_path / "out" / "video.mp4").stat().st_mtime_ns
    code, out = run(capsys, *args)
    assert code == 0 and "all 3 views are there already" in out.out
    assert (tmp_path / "out" / "video.mp4").stat().st_mtime_ns == before
    code, out = run(capsys, *args, "--seed", 4)
    assert code == 1 and "not empty" in out.err


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(capsys, checkpoint, capture, tmp_path):
    """A real process, a real signal."""
    args = [
        "render", str(capture), "--out", str(tmp_path / "out"), "--model", str(checkpoint), "--frames", "600",
        "--mode", "independent", "--chunk", "1",
    ]  # fmt: skip
    # Processes of a suite that a shell runs in the background inherit that the signal is ignored.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from kaleidoscene.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    kept = tmp_path / ".out.rendering"
    deadline = time.monotonic() + 120
    while len(list(kept.glob("*.npy")) if kept.is_dir() else []) < 5:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "views are kept" in out and "interrupted" in error
    assert not (tmp_path / "out").exists()
    done = len(list(kept.glob("*.npy")))
    assert 5 <= done < 600
    # The rest is taken as done too: the request is the same, and 600 views would take a minute.
    first = np.load(kept / "000000.npy")
    for index in range(600):
        if not (kept / f"{index:06d}.npy").exists() and index != 77:
            os.link(kept / "000000.npy", kept / f"{index:06d}.npy")
    (kept / "000077.npy").unlink(missing_ok=True)
    code, out = run(capsys, *args, "--json")
    assert code == 0 and "going on: 599 of 600" in out.out
    assert not kept.exists() and len(list((tmp_path / "out" / "frames").iterdir())) == 600
    with Image.open(tmp_path / "out" / "frames" / "0000.png") as image:
        assert np.array_equal(np.asarray(image), (first.transpose(1, 2, 0) * 255).round().astype(np.uint8))


def test_masks_are_laid_on_white(capsys, checkpoint, capture, tmp_path):
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(capture / "masks" / "000.png")
    code, _ = run(
        capsys, "render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--references", 0,
        "--frames", 1, "--masked",
    )  # fmt: skip
    assert code == 0
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.getpixel((92 + 60, 4 + 60)) == (255, 255, 255)  # the middle of the only reference


def test_a_single_image_gets_a_camera_that_is_stated(capsys, checkpoint, tmp_path):
    Image.fromarray(np.full((30, 50, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    code, out = run(
        capsys, "render", tmp_path / "photo.jpg", "--out", tmp_path / "out", "--model", checkpoint, "--frames", 4,
        "--elevation", 35, "--distance", 2,
    )  # fmt: skip
    assert code == 0 and "2 object lengths away, 35 degrees up" in out.out
    cameras = kaleidoscene.read_capture(tmp_path / "out").cameras
    torch.testing.assert_close(cameras.centres.norm(dim=-1), torch.full((4,), 2.0))
    height = 2 * float(torch.sin(torch.deg2rad(torch.tensor(35.0))))
    torch.testing.assert_close(cameras.centres[:, 2], torch.full((4,), height))


def test_several_images_without_cameras_are_sent_to_pose(capsys, checkpoint, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in "ab":
        Image.fromarray(np.full((30, 50, 3), 90, np.uint8)).save(tmp_path / "photos" / f"{name}.jpg")
    code, out = run(capsys, "render", tmp_path / "photos", "--out", tmp_path / "out", "--model", checkpoint)
    assert code == 1 and "Estimate them with 'kaleidoscene pose" in out.err and not (tmp_path / "out").exists()


def test_nerfstudio_camera_paths_with_and_without_its_change_of_world(tmp_path):
    cameras = ring(3, (30, 40), seed=4).to(torch.float64)
    opengl = cameras.world_from_cam @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
    turn = rigid(torch.eye(3, dtype=torch.float64)[[1, 2, 0]], torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64))
    trained = turn @ opengl
    trained[:, :3, 3] *= 0.4

    def write(poses):
        frames = [{"camera_to_world": pose.flatten().tolist(), "fov": 49.1, "aspect": 4 / 3} for pose in poses]
        document = {"camera_type": "perspective", "render_height": 30, "render_width": 40, "camera_path": frames}
        (tmp_path / "path.json").write_text(json.dumps({**document, "fps": 24, "seconds": 2.0}))
        return read_any_camera_path(tmp_path / "path.json")

    torch.testing.assert_close(write(opengl).world_from_cam, cameras.world_from_cam.float())
    transform = {"transform": turn[:3].tolist(), "scale": 0.4}
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps(transform))
    back = write(trained)
    torch.testing.assert_close(back.world_from_cam, cameras.world_from_cam.float())
    torch.testing.assert_close(back.intrinsics[0, 1, 1].item(), 15 / np.tan(np.radians(49.1) / 2))
    # nerfstudio notes the change from COLMAP's world, which transforms.json had turned and scaled before.
    applied = rigid(
        torch.eye(3, dtype=torch.float64)[[0, 2, 1]] * torch.tensor([1.0, 1, -1]).double(), torch.zeros(3).double()
    )
    saved = {"transform": (turn @ applied)[:3].tolist(), "scale": 0.4 * 0.5}
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps(saved))
    trained_on = {"applied_transform": applied[:3].tolist(), "applied_scale": 0.5, "frames": []}
    (tmp_path / "transforms.json").write_text(json.dumps(trained_on))
    back = read_any_camera_path(tmp_path / "path.json", tmp_path / "transforms.json")
    torch.testing.assert_close(back.world_from_cam, cameras.world_from_cam.float())
    document = json.loads((tmp_path / "path.json").read_text())
    (tmp_path / "path.json").write_text(json.dumps({**document, "camera_type": "equirectangular"}))
    with pytest.raises(KaleidosceneError, match="'equirectangular'; expected perspective"):
        read_any_camera_path(tmp_path / "path.json")
    (tmp_path / "path.json").write_text('{"camera_path": [{"fov": 3}], "render_height": 3, "render_width": 4}')
    with pytest.raises(KaleidosceneError, match="not a nerfstudio camera path"):
        read_any_camera_path(tmp_path / "path.json")


def test_check_says_what_is_wrong_and_exits_with_one(capsys, capture, tmp_path):
    code, out = run(capsys, "check", capture, "--out", tmp_path / "ok", "--json")
    assert code == 0 and last(out)["error"] == 0
    assert sorted(path.name for path in (tmp_path / "ok").iterdir()) == ["check.json", "frusta.html", "frusta.png"]
    (capture / "images" / "003.png").unlink()
    code, out = run(capsys, "check", capture, "--out", tmp_path / "bad", "--json")
    assert code == 1 and out.err == "" and last(out)["error"] == 1
    document = json.loads((tmp_path / "bad" / "check.json").read_text())
    (finding,) = [f for f in document["findings"] if f["severity"] == "error"]
    assert (finding["kind"], finding["frame"]) == ("missing-image", 3) and finding["remedy"] and finding["effect"]
    assert (tmp_path / "bad" / "frusta.png").exists()  # of the other eleven
    (capture / "transforms.json").write_text("{")
    code, out = run(capsys, "check", capture, "--json")
    assert code == 1 and "not readable JSON" in out.out
    assert run(capsys, "check", tmp_path / "absent")[0] == 1


@pytest.mark.parametrize("place", ["room", pytest.param("castle", marks=pytest.mark.real_data)])
def test_pose_places_photographs(capsys, tmp_path, request, place):
    photos = tmp_path / "photos"
    if place == "room":
        own_captures.photographs(photos, 5)
    else:
        photos.mkdir()
        for path in sorted((request.getfixturevalue("shared_data") / "photos" / "sceaux_castle").iterdir())[:5]:
            shutil.copyfile(path, photos / path.name)
    code, out = run(
        capsys, "pose", photos, "--out", tmp_path / "out", "--pose.max-image-size", 500, "--pose.max-features", 1500,
        "--json",
    )  # fmt: skip
    said = last(out)
    assert code == 0 and said["registered"] == said["images"] == 5 and said["reprojection_error"] < 1.5
    for name in ("sparse/0", "transforms.json"):
        assert (tmp_path / "out" / name).exists()
    assert run(capsys, "check", tmp_path / "out")[0] == 0
    by_colmap = kaleidoscene.read_capture(tmp_path / "out", format="colmap")
    by_transforms = kaleidoscene.read_capture(tmp_path / "out")
    assert by_transforms.format == "nerfstudio"
    torch.testing.assert_close(by_colmap.cameras.world_from_cam, by_transforms.cameras.world_from_cam)


def test_pose_says_when_nothing_can_be_placed(capsys, tmp_path):
    pytest.importorskip("pycolmap")
    (tmp_path / "plain").mkdir()
    for number in range(3):
        Image.fromarray(np.full((60, 80, 3), 50 * number, np.uint8)).save(tmp_path / "plain" / f"{number}.png")
    code, out = run(capsys, "pose", tmp_path / "plain", "--out", tmp_path / "out")
    assert code == 1 and "no cameras could be estimated from these 3 images" in out.err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_pose_refuses_what_has_cameras_and_contradicting_flags(capsys, capture, tmp_path):
    code, out = run(capsys, "pose", capture, "--out", tmp_path / "out")
    assert code == 1 and "has cameras already" in out.err
    clip = tmp_path / "walk.mp4"
    own_captures.video(clip, 8)
    code, out = run(capsys, "pose", clip, "--out", tmp_path / "out", "--frames", 4, "--every", 2)
    assert code == 1 and "both given" in out.err
    code, out = run(capsys, "pose", own_captures.ROOM / "images", "--out", tmp_path / "out", "--every", 2)
    assert code == 1 and "of photographs all are taken" in out.err


def test_the_aspect_ratio_of_the_capture_is_kept_where_the_model_was_trained_at_it(capsys, capture, tmp_path):
    settings = tiny_renderer(**CAUSAL, steps=1, guidance=1.0).settings
    settings = replace(settings, buckets=((24, 16), (20, 20)))
    save_model(tmp_path / "model", settings, dict(randomised(Kaleido(settings.model)).named_parameters()))
    for path in (capture / "images").iterdir():
        Image.fromarray(np.full((60, 40, 3), 99, np.uint8)).save(path)
    write_cameras(
        capture / "transforms.json", [f"images/{n:03d}.png" for n in range(12)], ring(12, (60, 40)), centred="object"
    )
    code, out = run(capsys, "render", capture, "--out", tmp_path / "out", "--model", tmp_path / "model", "--frames", 2)
    assert code == 0 and "2 views of 24x16" in out.out
    rendered = kaleidoscene.read_capture(tmp_path / "out").cameras
    assert rendered.image_size == (24, 16)
    # Buckets are cut from square views: the longer side of each has their angle of view.
    focal = 12 / np.tan(np.radians(settings.field_of_view) / 2)
    torch.testing.assert_close(rendered.intrinsics[0, 0, 0].item(), focal, rtol=1e-5, atol=0)


def test_a_spline_goes_through_the_references(capsys, checkpoint, capture, tmp_path):
    args = ("render", capture, "--model", checkpoint, "--references", "4,1,9", "--frames", 5, "--out")
    assert run(capsys, *args, tmp_path / "out", "--trajectory", "spline")[0] == 0
    path = kaleidoscene.read_capture(tmp_path / "out").cameras.world_from_cam
    own = kaleidoscene.read_capture(capture).cameras.world_from_cam
    torch.testing.assert_close(path[[0, 2, 4]], own[[4, 1, 9]], rtol=0, atol=1e-5)
    code, out = run(capsys, *args, tmp_path / "x", "--trajectory", "orbit:degres=90")
    assert code == 1 and "did you mean 'degrees'" in out.err


def test_no_output_replaces_what_it_is_made_from(capsys, checkpoint, capture, tmp_path):
    (tmp_path / "cameras").mkdir()
    shutil.copytree(capture, tmp_path / "cameras" / "c")
    for argv in (
        ("check", capture, "--out", capture), ("check", capture, "--out", tmp_path),
        ("convert", capture, capture, "--to", "nerfstudio"), ("convert", capture, tmp_path, "--to", "nerfstudio"),
        ("render", capture, "--out", tmp_path / "cameras", "--cameras-of", tmp_path / "cameras" / "c"),
    ):  # fmt: skip
        code, out = run(capsys, *argv, "--overwrite")
        assert code == 1 and "would replace the capture" in out.err, argv
    assert (capture / "images" / "003.png").exists() and (tmp_path / "cameras" / "c" / "transforms.json").exists()


def test_a_changed_capture_is_rendered_anew(capsys, checkpoint, capture, tmp_path):
    args = ("render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--references", 0, "--frames", 2)
    assert run(capsys, *args)[0] == 0
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(capture / "images" / "000.png")
    code, out = run(capsys, *args)
    assert code == 1 and "not empty" in out.err
    assert run(capsys, *args, "--overwrite")[0] == 0
    (tmp_path / "out" / "frames" / "0001.png").unlink()
    assert run(capsys, *args)[0] == 1  # not whole any more, and not ours to repair in silence
    code, out = run(capsys, *args, "--overwrite", "--json")
    assert code == 0 and (tmp_path / "out" / "frames" / "0001.png").exists()
    code, out = run(capsys, *args, "--json")
    assert code == 0 and last(out)["views"] == 2


def test_a_rendering_may_follow_its_dry_run(capsys, checkpoint, capture, tmp_path):
    args = ("render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--frames", 2)
    assert run(capsys, *args, "--dry-run")[0] == 0 and run(capsys, *args)[0] == 0
    assert run(capsys, *args, "--dry-run")[0] == 0
    assert (tmp_path / "out" / "video.mp4").exists() and (tmp_path / "out" / "frusta.png").exists()


def test_held_out_views_of_several_lenses(capsys, checkpoint, capture, tmp_path):
    document = json.loads((capture / "transforms.json").read_text())
    for number, frame in enumerate(document["frames"]):
        frame["fl_x"] = frame["fl_y"] = 40.0 + 3 * number
    (capture / "transforms.json").write_text(json.dumps(document))
    code, out = run(capsys, "render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--targets", "rest")
    assert code == 0 and "9 real views" in out.out
    out = tmp_path / "spline"
    code, _ = run(capsys, "render", capture, "--out", out, "--model", checkpoint, "--trajectory", "spline")
    assert code == 0, "a model with a lens of its own does not mind theirs"
    places, targets = kaleidoscene.load("places"), {"targets": "4-6"}
    request = resolve_request(RequestOptions(capture=capture, **targets), places)
    assert request.cameras.intrinsics[:, 0, 0].tolist() == pytest.approx([52, 55, 58])
    request = resolve_request(RequestOptions(capture=capture, cameras_of=capture), places)
    assert request.cameras.intrinsics[3, 1, 1] == pytest.approx(49)
    request = resolve_request(RequestOptions(capture=capture, targets="rest"), kaleidoscene.load(str(checkpoint)))
    assert len(request.cameras.intrinsics[:, 0, 0].unique()) == 1


def test_a_corrected_lens_or_origin_is_rendered_anew(capsys, checkpoint, capture, tmp_path):
    document = json.loads((capture / "transforms.json").read_text())
    places = kaleidoscene.load("places")

    def identity():
        request = resolve_request(RequestOptions(capture=capture, targets="4-6", references="0-2"), places)
        job = RenderingJob(
            out=tmp_path / "out", name="places", model=places, request=request, plan=places.system.default_plan,
            precision="fp32", seed=0, fps=24.0, overwrite=False, capture=capture, sources=(),
        )  # fmt: skip
        return job._identity()

    before = identity()
    assert identity() == before
    document["frames"][1]["fl_x"] = document["frames"][1]["fl_y"] = 41.0  # of a reference, not of the targets
    (capture / "transforms.json").write_text(json.dumps(document))
    corrected = identity()
    assert corrected["seen"] != before["seen"] and corrected["lenses"] == before["lenses"]


def test_shards_of_something_else_are_left_alone(capsys, capture, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "shard-000000.tar").write_bytes(b"precious")
    args = ("convert", capture, tmp_path / "shards", "--to", "shards", "--shards.image-size", 8, 8)
    code, out = run(capsys, *args)
    assert code == 1 and "of something else" in out.err
    (tmp_path / "shards" / "shard-000000.tar").unlink()
    assert run(capsys, *args)[0] == 0 and run(capsys, *args)[0] == 0
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(capture / "images" / "001.png")
    code, out = run(capsys, *args)
    assert code == 1 and "begun with another sources" in out.err
