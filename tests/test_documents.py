"""README and examples do what they say."""

import ast
import json
import re
import runpy
import shlex
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import kaleidoscene
from kaleidoscene.cli import (
    ablate,
    bench,
    capture,
    check,
    common,
    compare,
    completion,
    convert,
    evaluate,
    generate,
    info,
    interpolate,
    pose,
    reconstruct,
    render,
    synthesize,
    view,
)
from kaleidoscene.cli.main import VERBS, main
from kaleidoscene.families.checkpoints import WEIGHTS
from kaleidoscene.families.registry import find_recipe
from kaleidoscene.geometry.poses import invert
from tests import own_captures
from tests.conftest import REPOSITORY
from tests.datasets.test_clips import write_video

DEFAULT = WEIGHTS / "default"
ROOMS = "|".join(path.name for path in (REPOSITORY / "src" / "kaleidoscene").iterdir() if path.is_dir())
README = (REPOSITORY / "README.md").read_text()
COMMANDS = re.findall(r"^kaleidoscene [^\n#]+", README, re.M)
BUS = REPOSITORY / "examples" / "captures" / "school_bus"
OPTIONS = {
    "ablate": ablate.AblateOptions,
    "bench": bench.BenchOptions,
    "capture": capture.CaptureOptions,
    "check": check.CheckOptions,
    "compare": compare.CompareOptions,
    "completion": completion.CompletionOptions,
    "convert": convert.ConvertOptions,
    "pose": pose.PoseOptions,
    "reconstruct": reconstruct.ReconstructOptions,
    "generate": generate.GenerateOptions,
    "render": render.RenderOptions,
    "evaluate": evaluate.EvaluateOptions,
    "info": info.InfoOptions,
    "interpolate": interpolate.InterpolateOptions,
    "synthesize": synthesize.SynthesizeOptions,
    "view": view.ViewOptions,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_parse(command):
    verb, *rest = shlex.split(command)[1:]
    assert verb in VERBS
    if verb == "train":
        assert find_recipe(rest[0])
        with pytest.raises(SystemExit) as stop:
            main(["train", rest[0], *rest[1:], "--help"])
        assert stop.value.code == 0
    else:
        common.parse(OPTIONS[verb], rest, verb)


def test_there_are_commands_and_python_in_the_readme():
    assert len(COMMANDS) >= 6
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        ast.parse(block)


def test_the_readme_python_runs(tmp_path, monkeypatch):
    block = re.search(r"```python\n(.*?)```", README, re.S)
    assert block is not None
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(block.group(1).replace("frames=24", "frames=2"), "README.md", "exec"), {})
    assert (tmp_path / "out" / "orbit" / "video.mp4").exists()


def run_example(monkeypatch, name, *argv):
    (path,) = (REPOSITORY / "examples").glob(f"{name}_*.py")
    assert len(path.read_text().splitlines()) < 120
    monkeypatch.setattr(sys, "argv", [name, *map(str, argv)])
    runpy.run_path(str(path), run_name="__main__")


def test_example_00(tmp_path, monkeypatch):
    run_example(monkeypatch, "00", tmp_path / "out")
    assert (tmp_path / "out" / "contact_sheet.png").exists()


def test_example_01(tmp_path, monkeypatch, capsys):
    run_example(monkeypatch, "01", BUS, tmp_path / "frusta.png")
    assert (tmp_path / "frusta.png").exists() and "30 frames" in capsys.readouterr().out


def test_example_02_is_a_path_that_renders(tmp_path, monkeypatch):
    run_example(monkeypatch, "02", BUS, tmp_path / "path.json", 0, 1)
    assert len(kaleidoscene.read_camera_path(tmp_path / "path.json")) == 51
    argv = ["render", BUS, "--out", tmp_path / "out", "--camera-path", tmp_path / "path.json", "--model", "rng"]
    assert main([str(word) for word in argv]) == 0


def test_example_03_puts_poses_right(tmp_path, monkeypatch, capsys):
    """The bus with its poses inverted and one image missing comes back as it was, up to the world's axes."""
    shutil.copytree(BUS, tmp_path / "bus")
    document = json.loads((tmp_path / "bus" / "transforms.json").read_text())
    for frame in document["frames"]:
        frame["transform_matrix"] = torch.linalg.inv(torch.tensor(frame["transform_matrix"])).tolist()
    (tmp_path / "bus" / "transforms.json").write_text(json.dumps(document))
    (tmp_path / "bus" / document["frames"][5]["file_path"]).unlink()
    run_example(monkeypatch, "03", tmp_path / "bus", tmp_path / "fixed")
    out = capsys.readouterr().out
    assert "left out: frames [5]" in out and "converted: " in out
    before = kaleidoscene.read_capture(BUS).select([n for n in range(30) if n != 5]).cameras.world_from_cam
    after = kaleidoscene.read_capture(tmp_path / "fixed").cameras.world_from_cam
    between = [invert(poses[0]) @ poses for poses in (before, after)]
    torch.testing.assert_close(between[0], between[1], rtol=0, atol=1e-4)


def test_example_04(tmp_path, monkeypatch, capsys):
    shutil.copytree(BUS, tmp_path / "second")
    run_example(monkeypatch, "04", tmp_path / "shards", BUS, tmp_path / "second")
    assert "images (2, 8, 3, 64, 64)" in capsys.readouterr().out


def test_example_05(tmp_path, monkeypatch):
    own_captures.object_file(tmp_path / "pot.glb")
    try:
        run_example(monkeypatch, "05", tmp_path / "pot.glb", tmp_path / "capture")
    except Exception as error:
        if "No OpenGL" in str(error):
            pytest.skip(str(error))
        raise
    assert len(list((tmp_path / "capture" / "images").glob("*.png"))) == 30


def test_example_06(tmp_path, monkeypatch):
    run_example(monkeypatch, "06", DEFAULT, tmp_path / "copy", "--steps", 3)
    copied = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert copied["settings"]["sampling"]["schedule"]["steps"] == 3
    assert (tmp_path / "copy" / "model.safetensors").stat().st_size < 32 * 2**20
    first, second = (tmp_path / name / "model.safetensors" for name in ("copy", "mean"))
    shifted = {name: tensor.float() + 0.5 for name, tensor in load_file(first).items()}
    shutil.copytree(tmp_path / "copy", tmp_path / "shifted")
    save_file(shifted, tmp_path / "shifted" / "model.safetensors")
    run_example(monkeypatch, "06", tmp_path / "copy", second.parent, "--also", tmp_path / "shifted", 0.25)
    for name, tensor in load_file(second).items():
        torch.testing.assert_close(tensor.float(), load_file(first)[name].float() + 0.125, rtol=1e-3, atol=1e-3)


def test_example_07(tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "film.mp4", [(40, (200, 30, 30))])
    run_example(monkeypatch, "07", tmp_path / "film.mp4", tmp_path / "sheet.png", "default")
    assert (tmp_path / "sheet.png").exists() and "its last 3 frames made; PSNR" in capsys.readouterr().out


def test_links_of_the_documents_lead_somewhere():
    for document in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not link.startswith("http"):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_files_that_the_paper_table_names_exist():
    text = (REPOSITORY / "docs" / "papers.md").read_text()
    for name in re.findall(
        r"`((?:" + ROOMS + r")/[\w/]+\.py)`",
        text,
    ):
        assert (REPOSITORY / "src" / "kaleidoscene" / name).exists(), name
    for name in re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", text):
        assert (REPOSITORY / name).exists(), name
