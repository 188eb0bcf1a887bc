"""``kaleidoscene interpolate`` on real files: videos, folders of images, renderings; and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.cli.main import main
from kaleidoscene.families.film import Film, load_interpolator
from kaleidoscene.families.film.checkpoint import save_model
from kaleidoscene.families.film.recipe import film_debug
from kaleidoscene.geometry.poses import interpolate_poses
from kaleidoscene.images.files import read_image
from kaleidoscene.images.videos import video_frames, video_timing
from kaleidoscene.workflows.request import RequestOptions, resolve_request
from tests import own_captures
from tests.conftest import ring

SIZE = (26, 38)


@pytest.fixture(scope="module")
def blender(tmp_path_factory) -> Path:
    """A checkpoint that blends: what it puts between is known."""
    folder = tmp_path_factory.mktemp("models") / "blender"
    settings = film_debug().settings
    weights = {name: torch.zeros_like(p) for name, p in Film(settings.model).named_parameters()}
    save_model(folder, settings, weights)
    return folder


def pictures(folder: Path, grey: list[int], size: tuple[int, int] = SIZE) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{n:03d}.png" for n in range(len(grey))]
    for name, level in zip(names, grey, strict=True):
        Image.fromarray(np.full((*size, 3), level, np.uint8)).save(folder / name)
    return names


def film(path: Path, grey: list[int], rate: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.options = 64, 96, "yuv420p", {"crf": "1"}
        for level in grey:
            frame = np.full((64, 96, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return path


def levels(folder: Path) -> list[int]:
    paths = sorted((folder / "frames").iterdir())
    return [round(float(read_image(path)[0].mean()) * 255) for path in paths]


def run(*argv) -> int:
    return main([str(word) for word in argv])


def test_a_folder_of_images_is_doubled_twice(tmp_path, blender, capsys):
    pictures(tmp_path / "in", [0, 80, 40])
    assert run("interpolate", tmp_path / "in", "--out", tmp_path / "out", "--model", blender, "--doublings", 2,
               "--no-find-cuts", "--json") == 0  # fmt: skip
    assert levels(tmp_path / "out") == [0, 20, 40, 60, 80, 70, 60, 50, 40]
    timing = video_timing(tmp_path / "out" / "video.mp4")
    assert len(timing.times) == 9 and timing.spacing == pytest.approx(1 / 48, rel=1e-3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["frames", "video.mp4"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["made"] == 6


def test_images_of_a_folder_come_in_the_order_of_their_numbers(tmp_path, blender):
    for name, level in (("frame_1", 0), ("frame_2", 40), ("frame_10", 80)):
        folder = tmp_path / "in"
        pictures(folder, [level])
        (folder / "000.png").rename(folder / f"{name}.png")
    assert run("interpolate", tmp_path / "in", "--out", tmp_path / "out", "--model", blender, "--no-find-cuts") == 0
    assert levels(tmp_path / "out") == [0, 20, 40, 60, 80]


def test_a_video_at_another_rate_keeps_its_length(tmp_path, blender):
    path = film(tmp_path / "in.mp4", [0, 30, 60, 90, 120, 150], rate=10)
    assert run("interpolate", path, "--out", tmp_path / "out", "--model", blender, "--rate", 25) == 0
    shown = levels(tmp_path / "out")
    assert len(shown) == 13 and np.abs(np.array(shown) - 12 * np.arange(13)).max() <= 2
    assert video_timing(tmp_path / "out" / "video.mp4").times[-1] == pytest.approx(0.48, abs=1e-3)


def test_cuts_of_a_video_are_found_and_kept(tmp_path, blender, capsys):
    path = film(tmp_path / "in.mp4", [10, 20, 30, 220, 230, 240])
    assert run("interpolate", path, "--out", tmp_path / "out", "--model", blender) == 0
    assert "1 cuts were found" in capsys.readouterr().out
    shown = levels(tmp_path / "out")
    assert len(shown) == 11 and abs(shown[5] - 30) <= 2 and abs(shown[6] - 220) <= 2
    assert run("interpolate", path, "--out", tmp_path / "all", "--model", blender, "--no-find-cuts") == 0
    assert abs(levels(tmp_path / "all")[5] - 125) <= 2


def test_frames_of_a_rendering_get_cameras_and_a_mark(tmp_path, blender, capsys):
    folder, cameras = tmp_path / "in", ring(3, SIZE)
    write_cameras(folder / "transforms.json" if folder.mkdir() is None else folder, pictures(folder, [0, 80, 40]),
                  cameras, centred="object")  # fmt: skip
    (folder / "camera_path.json").write_text('{"fps": 5.0}')
    assert run("interpolate", folder, "--out", tmp_path / "out", "--model", blender) == 0
    made = read_capture(tmp_path / "out")
    assert [frame.interpolated for frame in made.frames] == [False, True, False, True, False]
    assert made.centred == "object" and any(finding.kind == "interpolated" for finding in made.findings)
    poses = made.cameras.world_from_cam.double()
    assert torch.allclose(poses[::2], cameras.world_from_cam.double(), atol=1e-5)
    middle = interpolate_poses(poses[0], poses[2], torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(poses[1], middle, atol=1e-5)
    assert video_timing(tmp_path / "out" / "video.mp4").spacing == pytest.approx(0.1, rel=1e-3)
    # As targets they are no truth, and as references they are not chosen.
    capsys.readouterr()
    assert run("render", tmp_path / "out", "--out", tmp_path / "views", "--num-references", 5) == 1
    assert "has 3 views to choose from" in capsys.readouterr().err
    assert run("render", tmp_path / "out", "--out", tmp_path / "views", "--targets", "1,2", "--dry-run") == 0
    text = capsys.readouterr().out
    assert "2 as references (0, 4)" in text and "1 targets were put between others" in text
    options = RequestOptions(capture=tmp_path / "out", references="0", targets="1,2")
    assert resolve_request(options, load("default")).scored == (1,)


def test_frames_of_a_capture_are_those_its_cameras_see(tmp_path, blender):
    own_captures.nerfstudio(tmp_path / "room", 3)  # through a lens that bends
    capture = read_capture(tmp_path / "room")
    assert any(frame.distortion.kind != "none" for frame in capture.frames)
    assert run("interpolate", tmp_path / "room", "--out", tmp_path / "out", "--model", blender) == 0
    made = read_capture(tmp_path / "out")
    assert torch.allclose(made.images(only=[2]), capture.images(only=[1]), atol=0.003)
    assert torch.allclose(made.cameras.intrinsics[2], capture.cameras.intrinsics[1])


def test_render_goes_on_to_a_denser_film(tmp_path, blender, capsys):
    capture = Path(__file__).parents[2] / "examples" / "captures" / "school_bus"
    assert run("render", capture, "--out", tmp_path / "out", "--frames", 3, "--interpolate", 1,
               "--interpolator", blender, "--fps", 4) == 0  # fmt: skip
    assert "2 of them made." in capsys.readouterr().out
    inside = read_capture(tmp_path / "out" / "interpolated")
    assert [frame.interpolated for frame in inside.frames] == [False, True, False, True, False]
    ours = [frame for _, frame in video_frames(tmp_path / "out" / "interpolated" / "video.mp4", range(5))]
    assert len(ours) == 5
    rendered = read_image(tmp_path / "out" / "frames" / "0001.png")[0]
    assert torch.equal(rendered, read_image(tmp_path / "out" / "interpolated" / "frames" / "000002.png")[0])


def test_a_run_is_trained_from_rendered_films_and_goes_on(tmp_path, capsys):
    clips = tmp_path / "clips"
    assert run("synthesize", clips, "--scenes.image-size", 24, 32, "--scenes.views", 4, "--scenes.scenes", 6,
               "--scenes.scenes-per-shard", 3, "--scenes.clips") == 0  # fmt: skip
    train = ("train", "film-debug", "--out", tmp_path / "run", "--shards", clips, "--held-out", clips)
    assert run(*train, "--train.steps", 4, "--train.validate-every", 4) == 0
    assert run(*train, "--train.steps", 6, "--train.validate-every", 2) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records][-1] == 6
    scored = [record for record in records if "held_out/psnr" in record]
    assert scored and all(record["held_out/psnr_of_blending"] > 10 for record in scored)
    sheets = sorted(path.parent.name for path in (tmp_path / "run" / "samples").glob("*/sheet.png"))
    assert sheets == ["step-00000004", "step-00000006"]
    interpolator = load_interpolator(tmp_path / "run")
    assert interpolator.between(*torch.rand(2, 3, *SIZE)).shape == (3, *SIZE)


def test_scores_of_a_network_that_blends_are_those_of_blending(tmp_path):
    clips = tmp_path / "clips"
    assert run("synthesize", clips, "--scenes.image-size", 24, 32, "--scenes.views", 5, "--scenes.scenes", 3,
               "--scenes.clips") == 0  # fmt: skip
    recipe = film_debug()
    task = recipe.make_task("cpu")
    network = Film(recipe.settings.model)
    for p in network.parameters():
        torch.nn.init.zeros_(p)
    scores = task.validation(clips)(network, None)
    assert scores["psnr"] == pytest.approx(scores["psnr_of_blending"], abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["in", "--doublings", "7"], "--doublings must be from 0 to 6, got 7"),
        (["in", "--doublings", "-1"], "--doublings must be from 0 to 6"),
        (["in", "--rate", "0"], "--rate must be above 0"),
        (["in", "--rate", "nan"], "--rate must be above 0"),
        (["in", "--source-rate", "1e9"], "--source-rate must be above 0 and at most 1000"),
        (["in", "--rate", "30", "--doublings", "1"], "--doublings and --rate were both given"),
        (["one"], "1 frames; expected a video, or a folder with two images"),
        (["nothing"], "nothing: "),
        (["no.mp4"], "no such video"),
        (["sizes"], "frame 1 is 20x38, those before it are 26x38"),
        (["in", "--model", "default"], "expected 'film'"),
        (["in", "--model", "nobody"], "no such model"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(tmp_path, blender, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "in", [0, 80])
    pictures(tmp_path / "one", [0])
    pictures(tmp_path / "sizes", [0])
    Image.fromarray(np.zeros((20, 38, 3), np.uint8)).save(tmp_path / "sizes" / "1.png")
    model = [] if "--model" in words else ["--model", blender]
    try:
        code = run("interpolate", *words, "--out", "out", *model)
    except SystemExit as stop:  # options that the parser refuses
        code = stop.code
    assert code in (1, 2)
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_shards_of_posed_scenes_are_no_clips(tmp_path, capsys):
    assert run("synthesize", tmp_path / "scenes", "--scenes.image-size", 24, 32, "--scenes.views", 3,
               "--scenes.scenes", 2) == 0  # fmt: skip
    assert run("train", "film-debug", "--out", tmp_path / "run", "--shards", tmp_path / "scenes") == 1
    assert "film learns from clips" in capsys.readouterr().err
    assert run("train", "film-debug", "--out", tmp_path / "run2") == 1
    assert "give --shards" in capsys.readouterr().err


def test_paths_of_films_go_round_in_small_steps():
    from kaleidoscene.datasets.synthetic.viewpoints import sample_path

    for seed in range(20):
        cameras = sample_path(9, SIZE, torch.Generator().manual_seed(seed))
        positions = cameras.world_from_cam[:, :3, 3]
        distances = positions.norm(dim=-1)
        assert 1.3 < float(distances.min()) and float(distances.max()) < 2.4
        assert torch.allclose(distances.diff(), distances.diff()[:1].expand(8), atol=1e-5)
        cosines = (positions[1:] * positions[:-1]).sum(-1) / (distances[1:] * distances[:-1])
        angles = torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))
        assert float(angles.max()) < 11 and float(angles.min()) > 0.1
        forward = cameras.world_from_cam[:, :3, 2]
        assert float((forward * -positions / distances[:, None]).sum(-1).min()) > 0.9


def test_films_have_no_depth(capsys, tmp_path):
    assert run("synthesize", tmp_path / "out", "--scenes.clips", "--scenes.depth") == 1
    assert "without depth" in capsys.readouterr().err
    assert replace(film_debug(), loss=replace(film_debug().loss, perceptual=1.0)).remark
