"""The command line in one process: what it writes, and that bad input ends in one sentence and nothing half-written."""

import json
import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import kaleidoscene
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.cli.main import main
from kaleidoscene.families.kaleido.checkpoint import save_model
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.geometry.camera_path import write_camera_path
from tests.conftest import CAUSAL, randomised, ring, tiny_renderer

VIEWS = 25


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny network with random weights, saved as users save theirs."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    settings = tiny_renderer(**CAUSAL, steps=1, guidance=1.0).settings
    weights = dict(randomised(Kaleido(settings.model)).named_parameters())
    save_model(folder, settings, weights)
    return folder


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captures") / "thing"
    (folder / "images").mkdir(parents=True)
    names = [f"images/{n:03d}.png" for n in range(VIEWS)]
    generator = np.random.default_rng(0)
    for name in names:
        Image.fromarray(generator.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(folder / name)
    write_cameras(folder / "transforms.json", names, ring(VIEWS, (32, 48)), centred="object")
    return folder


def run(capsys, *argv) -> tuple[int, str, str]:
    code = main([str(a) for a in argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_render_an_orbit_writes_everything_and_its_capture_reads_back(capsys, checkpoint, capture, tmp_path):
    out = tmp_path / "out"
    code, text, _ = run(
        capsys, "render", capture, "--out", out, "--model", checkpoint, "--references", "0,3-5", "--frames", 6, "--json"
    )
    assert code == 0
    last = json.loads(text.strip().splitlines()[-1])
    assert last["views"] == 6 and last["psnr"] is None
    assert sorted(p.name for p in out.iterdir()) == [
        "camera_path.json",
        "contact_sheet.png",
        "frames",
        "request.json",
        "transforms.json",
        "video.mp4",
    ]
    assert not list(tmp_path.glob(".*partial"))
    back = kaleidoscene.read_capture(out)
    assert len(back) == 6 and back.images().shape == (6, 3, 16, 24)
    with av.open(str(out / "video.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 6
    first = back.images()[0].movedim(0, -1).numpy() * 255
    small = frames[0][:: frames[0].shape[0] // 16, :: frames[0].shape[1] // 24][:16, :24]
    assert np.abs(small.mean() - first.mean()) < 12


def test_render_held_out_views_scores_them(capsys, checkpoint, capture, tmp_path):
    args = ("render", capture, "--model", checkpoint, "--references", "0,1", "--targets", "10-12", "--json", "--out")
    code, text, _ = run(capsys, *args, tmp_path / "a")
    assert code == 0
    last = json.loads(text.strip().splitlines()[-1])
    assert len(last["psnr_each"]) == 3 and 0 < last["psnr"] < 30
    code, text, _ = run(capsys, *args, tmp_path / "b")
    assert json.loads(text.strip().splitlines()[-1])["psnr_each"] == last["psnr_each"]  # the same seed
    images = [(tmp_path / n / "frames" / "0001.png").read_bytes() for n in "ab"]
    assert images[0] == images[1]


@pytest.mark.parametrize("mode", ["joint", "independent", "autoregressive"])
def test_render_a_camera_path_in_every_mode(capsys, checkpoint, capture, tmp_path, mode):
    write_camera_path(tmp_path / "path.json", ring(5, (32, 48), seed=4))
    code, _, _ = run(
        capsys, "render", capture, "--out", tmp_path / "out", "--model", checkpoint,
        "--camera-path", tmp_path / "path.json", "--mode", mode, "--chunk", 2,
    )  # fmt: skip
    assert code == 0
    assert len(list((tmp_path / "out" / "frames").glob("*.png"))) == 5


def test_evaluate_writes_a_report_and_pictures(capsys, checkpoint, capture, tmp_path):
    arguments = ("--out", tmp_path / "scores", "--model", checkpoint, "--references", 1, 3, "--metrics", "psnr")
    code, text, _ = run(capsys, "evaluate", "--data", capture.parent, *arguments)
    assert code == 0 and "report.html" in text
    scores = json.loads((tmp_path / "scores" / "report.json").read_text())
    assert scores["protocol"]["benchmark"] == "objects" and scores["scenes"][0]["target_views"] == list(range(10, 25))
    assert set(scores["mean"]) == {"1", "3"} and scores["scenes"][0]["scene"] == "thing"
    assert (tmp_path / "scores" / "scenes" / "thing-3.png").exists()


def test_info_says_what_a_request_costs(capsys, checkpoint):
    code, text, _ = run(capsys, "info", "--model", checkpoint, "--references", 2, "--targets", 7, "--json")
    assert code == 0 and "GFLOP" in text
    cost = json.loads(text.strip().splitlines()[-1])
    assert cost["parameters"] == sum(t.numel() for t in load_file(checkpoint / "model.safetensors").values())
    assert cost["cache"] == 2 * 3 * 2 * (4 * 6) * 1 * 64 * 4  # keys and values, layers, views, tokens, heads, fp32


def test_info_and_a_dry_run_tell_the_same_of_one_request(capsys, capture, tmp_path):
    """By the plan of the default weights, eight views a call, at their size and at twice that."""
    for size in (128, 256):
        request = ("--references", "0,1", "--frames", 20, "--image-size", size, "--dry-run", "--out", tmp_path / "out")
        code, text, _ = run(capsys, "render", capture, *request)
        assert code == 0
        told = re.search(r"20 views from 2 references: ([\d,.]+) GFLOP", text)
        code, text, _ = run(capsys, "info", "--references", 2, "--targets", 20, "--image-size", size, size)
        assert code == 0 and f"operations     {told[1]} GFLOP" in text
        code, alone, _ = run(capsys, "info", "--references", 2, "--targets", 20, "--chunk", 20)
        assert size != 128 or f"{told[1]} GFLOP" in alone  # references are encoded once, in one call or in three


def test_info_goes_the_way_that_a_rendering_goes(capsys, capture, tmp_path):
    """Of two references dit3d decodes, and what became a reference does not change its way."""
    request = ("--model", "dit3d", "--chunk", 2)
    for mode in ("independent", "autoregressive"):
        dry = ("--references", "0,1,2", "--frames", 4, "--mode", mode, "--dry-run", "--out", tmp_path / "out")
        code, text, _ = run(capsys, "render", capture, *request, *dry)
        told = re.search(r"4 views from 3 references: ([\d,.]+) GFLOP", text)
        assert code == 0 and told is not None
        code, text, _ = run(capsys, "info", *request, "--references", 3, "--targets", 4, "--mode", mode)
        assert code == 0 and f"operations     {told[1]} GFLOP" in text


def test_info_counts_what_reprojection_looks_up(capsys):
    """Copies take longer than their operations tell: one step, 3 references and once more for two, 24 views."""
    code, text, _ = run(capsys, "info", "kaleido-nano-reprojection", "--references", 3, "--targets", 24, "--json")
    assert code == 0 and f"{24 * 128 * 128 * 32 * 5 / 1e6:,.0f} million lookups" in text
    code, text, _ = run(capsys, "info", "kaleido-nano-128", "--references", 3, "--targets", 24, "--json")
    assert code == 0 and "lookups" not in text


def test_info_counts_recipes_without_weights(capsys):
    code, text, _ = run(capsys, "info", "kaleido-small-256", "--image-size", 512, 256, "--steps", 2, "--json")
    assert code == 0 and "512x256" in text
    cost = json.loads(text.strip().splitlines()[-1])
    assert cost["parameters"] == pytest.approx(566.6e6, rel=1e-3) and cost["cache"] == 0


@pytest.mark.slow
def test_train_the_debug_recipe_and_render_from_it(capsys, capture, tmp_path):
    pytest.importorskip("moderngl")
    try:
        from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser

        Rasteriser((8, 8)).release()
    except kaleidoscene.KaleidosceneError as error:
        pytest.skip(str(error))
    args = ("train", "kaleido-debug", "--out", tmp_path / "run", "--train.steps", 6, "--train.log-every", 2)
    assert run(capsys, *args)[0] == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6
    code, text, _ = run(capsys, *args[:-3], 8)
    assert code == 0 and "going on from" in text
    out = tmp_path / "out"
    assert run(capsys, "render", capture, "--out", out, "--model", tmp_path / "run", "--frames", 2)[0] == 0


# --- bad input -------------------------------------------------------------------------------------------------------


def bad(capsys, tmp_path, *argv) -> str:
    """Run what must fail; returns its one sentence."""
    code, _, error = run(capsys, *argv)
    assert code == 1
    assert error.startswith("kaleidoscene: ") and error.count("\n") == 1, error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial"))
    return error


def test_reference_out_of_range(capsys, checkpoint, capture, tmp_path):
    error = bad(
        capsys, tmp_path, "render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--references", "0,25"
    )
    assert "view 25 is out of range, the capture has views 0 to 24" in error


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--frames", 0, "--frames must be from 1"),
        ("--references", "a", "expected numbers"),
        ("--trajectory", "orbitt", "did you mean 'orbit'"),
        ("--chunk", 0, "at least one target"),
        ("--camera-path", "absent.json", "no such file"),
        ("--format", "nerf", "Unknown capture format"),
        ("--steps", 0, "at least one step"),
        ("--fps", 0, "--fps must be above 0"),
        ("--device", "cuda:7", "cannot be used here"),
    ],
)
def test_bad_render_options(capsys, checkpoint, capture, tmp_path, flag, value, message):
    assert message in bad(
        capsys, tmp_path, "render", capture, "--out", tmp_path / "out", "--model", checkpoint, flag, value
    )


def test_missing_capture_and_empty_folder(capsys, checkpoint, tmp_path):
    assert "no such file" in bad(
        capsys, tmp_path, "render", tmp_path / "x", "--out", tmp_path / "out", "--model", checkpoint
    )
    (tmp_path / "empty").mkdir()
    assert "empty" in bad(
        capsys, tmp_path, "render", tmp_path / "empty", "--out", tmp_path / "out", "--model", checkpoint
    )


def test_a_truncated_image_leaves_nothing_behind(capsys, checkpoint, capture, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(capture, broken)
    file = broken / "images" / "004.png"
    file.write_bytes(file.read_bytes()[:200])
    error = bad(
        capsys, tmp_path, "render", broken, "--out", tmp_path / "out", "--model", checkpoint, "--references", "0,4"
    )
    assert "004.png: not a readable image" in error


def test_output_folder_not_empty_needs_overwrite(capsys, checkpoint, capture, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    args = ("render", capture, "--out", tmp_path / "full", "--model", checkpoint, "--frames", 2)
    assert "give --overwrite" in bad(capsys, tmp_path, *args)
    assert (tmp_path / "full" / "mine.txt").exists()
    assert run(capsys, *args, "--overwrite")[0] == 0
    assert not (tmp_path / "full" / "mine.txt").exists()


def test_the_output_may_not_swallow_its_capture(capsys, checkpoint, capture, tmp_path, monkeypatch):
    args = ("render", capture, "--model", checkpoint, "--frames", 2, "--overwrite", "--out")
    assert "would replace the capture" in bad(capsys, tmp_path, *args, capture)
    assert "would replace the capture" in bad(capsys, tmp_path, *args, capture.parent)
    monkeypatch.chdir(tmp_path)
    assert "the one we are in" in bad(capsys, tmp_path, *args, ".")
    assert (capture / "transforms.json").exists()


def test_train_refuses_shards_that_do_not_fit_the_recipe(capsys, tmp_path):
    from kaleidoscene.datasets.shard_writing import write_shard
    from tests.datasets.test_training_data import scenes

    write_shard(tmp_path / "shards" / "shard-000000.tar", [scenes(n) for n in range(4)])
    error = bad(capsys, tmp_path, "train", "kaleido-debug", "--out", tmp_path / "out", "--shards", tmp_path / "shards")
    assert "views of 6x10, the recipe trains at 32x32" in error
    (tmp_path / "file").write_text("")
    assert "is a file" in bad(capsys, tmp_path, "train", "kaleido-debug", "--out", tmp_path / "file")


def test_unknown_verb_recipe_and_flag_name_the_near_one(capsys, tmp_path):
    assert "did you mean 'render'" in bad(capsys, tmp_path, "rendr")
    assert "did you mean 'kaleido-nano'" in bad(capsys, tmp_path, "train", "kaleido-nan", "--out", tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        main(["train", "kaleido-debug", "--out", str(tmp_path / "out"), "--train.stpes", "3"])
    assert stop.value.code == 2
    assert "--train.steps" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _break_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def _break_config(folder: Path, change) -> None:
    document = json.loads((folder / "config.json").read_text())
    change(document)
    (folder / "config.json").write_text(json.dumps(document))


BROKEN = {
    "missing tensor": (_break_weights, lambda t: t.pop("head.bias"), "1 tensors are missing, the first is 'head.bias'"),
    "extra tensor": (
        _break_weights,
        lambda t: t.update(more=torch.zeros(2)),
        "do not belong to this model, the first is 'more'",
    ),
    "wrong shape": (
        _break_weights,
        lambda t: t.update({"head.bias": torch.zeros(3)}),
        r"'head.bias' has shape [3], expected [48]",
    ),
    "other family": (_break_config, lambda d: d.update(family="kaleidoo"), "did you mean 'kaleido'"),
    "other version": (_break_config, lambda d: d.update(format_version=9), "format version 9, expected 1"),
    "unknown key": (_break_config, lambda d: d["settings"]["model"].update(widht=3), "did you mean 'width'"),
    "missing key": (_break_config, lambda d: d["settings"]["model"].pop("width"), "the key 'width' is missing"),
    "wrong type": (_break_config, lambda d: d["settings"]["model"].update(depth="3"), "expected int, got '3'"),
    "bad value": (_break_config, lambda d: d["settings"]["model"].update(width=100), "multiple of 64"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_checkpoints_load_strictly(capsys, checkpoint, capture, tmp_path, name):
    import shutil

    how, change, message = BROKEN[name]
    shutil.copytree(checkpoint, tmp_path / "model")
    how(tmp_path / "model", change)
    assert message in bad(capsys, tmp_path, "render", capture, "--out", tmp_path / "out", "--model", tmp_path / "model")


def test_no_checkpoint_damaged_weights_and_unknown_name(capsys, checkpoint, capture, tmp_path):
    import shutil

    shutil.copytree(checkpoint, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not weights")
    args = ("render", capture, "--out", tmp_path / "out", "--model")
    assert "not a readable file of weights" in bad(capsys, tmp_path, *args, tmp_path / "model")
    assert "not a checkpoint" in bad(capsys, tmp_path, *args, tmp_path)
    assert "no such model" in bad(capsys, tmp_path, *args, "defualt")


def test_too_much_for_memory_says_what_would_fit(capsys, checkpoint, capture, tmp_path, monkeypatch):
    monkeypatch.setattr("kaleidoscene.memory.available_bytes", lambda device: 6_000_000)
    args = ("render", capture, "--out", tmp_path / "out", "--model", checkpoint, "--frames", 500)
    error = bad(capsys, tmp_path, *args)
    assert "500 targets in one call need" in error and "would fit" in error
    fits = int(error.split("--chunk ")[1].split()[0])
    assert run(capsys, *args, "--frames", 2 * fits, "--chunk", fits)[0] == 0


def test_evaluate_refuses_what_the_protocol_does_not_allow(capsys, checkpoint, capture, tmp_path):
    args = ("evaluate", "--data", capture, "--out", tmp_path / "out", "--model", checkpoint, "--references")
    assert "takes 1 to 10 references, got 11" in bad(capsys, tmp_path, *args, 11)


def test_varying_focal_length_is_refused(capsys, checkpoint, capture, tmp_path):
    error = bad(
        capsys,
        tmp_path,
        "render",
        capture,
        "--out",
        tmp_path / "out",
        "--model",
        checkpoint,
        "--trajectory",
        "dolly-zoom",
    )
    assert "focal length changes" in error


def test_help_does_not_wait_for_what_training_imports():
    slow = ("torch.distributed.tensor", "torch.distributed.checkpoint", "sympy", "scipy", "transformers", "viser")
    program = f"import sys, kaleidoscene.cli.render; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_the_installed_command_runs():
    done = subprocess.run(
        [sys.executable, "-m", "kaleidoscene", "rendr"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "did you mean 'render'" in done.stderr
    assert (
        subprocess.run(
            [sys.executable, "-m", "kaleidoscene", "--help"], capture_output=True, timeout=60, check=False
        ).returncode
        == 0
    )


FAULT = """
import sys, threading, time
import kaleidoscene.cli.info
from kaleidoscene.cli.main import entry

def out_of_memory(argv):
    threading.Thread(target=time.sleep, args=(60,)).start()  # as the one that writes checkpoints
    raise RuntimeError("out of memory")

kaleidoscene.cli.info.main = out_of_memory
sys.argv = ["kaleidoscene", "info", "kaleido-nano"]
entry()
"""


def test_a_fault_of_one_process_of_several_ends_it_at_once():
    """What nobody foresaw must not wait for threads or neighbours; the launcher ends the others."""
    started = time.monotonic()
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FAULT], env=environment, capture_output=True, text=True, check=False, timeout=55
    )
    assert done.returncode == 1 and "RuntimeError: out of memory" in done.stderr
    assert time.monotonic() - started < 50


@pytest.mark.parametrize("verb", ["render", "reconstruct", "capture", "interpolate"])
def test_what_a_verb_does_stands_at_the_left_of_its_help(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert not ended.value.code
    before = capsys.readouterr().out.split("positional arguments")[0].splitlines()[1:-1]
    assert sum(map(bool, before)) >= 1 and not any(line.startswith(" ") for line in before), before
    assert all(a or b for a, b in pairwise(before[1:])), "one empty line between paragraphs"
