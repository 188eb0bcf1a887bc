"""README and examples do what they say."""

import ast
import re
import runpy
import shlex
import sys

import pytest

from anyview.cli import common, evaluate, info, render, synthesize
from anyview.cli.main import VERBS, main
from anyview.cli.train import RECIPES
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
COMMANDS = re.findall(r"^anyview [^\n#]+", README, re.M)
OPTIONS = {
    "render": render.RenderOptions,
    "evaluate": evaluate.EvaluateOptions,
    "info": info.InfoOptions,
    "synthesize": synthesize.SynthesizeOptions,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_parse(command):
    verb, *rest = shlex.split(command)[1:]
    assert verb in VERBS
    if verb == "train":
        assert rest[0] in RECIPES
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


def test_example_00(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["00", str(tmp_path / "out")])
    runpy.run_path(str(REPOSITORY / "examples" / "00_render_from_python.py"), run_name="__main__")
    assert (tmp_path / "out" / "contact_sheet.png").exists()


def test_example_01(tmp_path, monkeypatch, shared_data):
    mesh = shared_data / "meshes" / "test" / "ycb_strawberry.glb"
    monkeypatch.setattr(sys, "argv", ["01", str(mesh), str(tmp_path / "capture")])
    try:
        runpy.run_path(str(REPOSITORY / "examples" / "01_make_a_capture.py"), run_name="__main__")
    except Exception as error:
        if "No OpenGL" in str(error):
            pytest.skip(str(error))
        raise
    assert len(list((tmp_path / "capture" / "images").glob("*.png"))) == 27


def test_links_of_the_documents_lead_somewhere():
    for document in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not link.startswith("http"):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_files_that_the_paper_table_names_exist():
    text = (REPOSITORY / "docs" / "papers.md").read_text()
    for name in re.findall(
        r"`((?:families|flow|nn|data|codecs|encoders|geometry|rendering|training)/[\w/]+\.py)`", text
    ):
        assert (REPOSITORY / "src" / "anyview" / name).exists(), name
    for name in re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", text):
        assert (REPOSITORY / name).exists(), name
