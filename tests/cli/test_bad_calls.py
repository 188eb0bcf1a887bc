"""Bad calls of every verb: one sentence that says what was wrong, an exit code, and nothing half-written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kaleidoscene.cli.common import error_sentence
from kaleidoscene.cli.main import VERBS, main
from tests.conftest import REPOSITORY

CAPTURE = str(REPOSITORY / "examples" / "captures" / "school_bus")
RENDER = f"render {CAPTURE} --out out"
TRAIN = "train kaleido-debug --out out"
CALLS = {
    "frobnicate": "Unknown verb 'frobnicate'",
    "rendr": "did you mean 'render'",
    # render: what is asked for
    "render": "PATH and --out PATH must be given",
    f"render {CAPTURE}": "--out PATH must be given",
    "render nothing --out out": "nothing: no such file or folder",
    "render notes.txt --out out": "notes.txt",
    "render empty --out out": "empty",
    f"{RENDER} --refrences 0": "Perhaps you meant --references",
    f"{RENDER} --seed abc": "--seed: expected a whole number, got 'abc'",
    f"{RENDER} --fps fast": "--fps: expected a number, got 'fast'",
    f"{RENDER} --seed -1": "--seed must be from 0 to",
    f"{RENDER} --seed 1180591620717411303424": "--seed must be from 0 to",
    f"{RENDER} --guidance nan": "guidance must be at least 0, got nan",
    f"{RENDER} --guidance -1": "guidance must be at least 0, got -1",
    f"{RENDER} --guidance inf": "guidance must be at least 0",
    f"{RENDER} --steps 0": "at least one step, got 0",
    f"{RENDER} --steps -3": "at least one step, got -3",
    f"{RENDER} --chunk 0": "at least one target, got 0",
    f"{RENDER} --max-references 0": "max_references must be at least 1",
    f"{RENDER} --mode sideways": "sideways",
    f"{RENDER} --order backwards": "backwards",
    f"{RENDER} --precision fp8": "fp8",
    f"{RENDER} --device banana": "expected cpu, cuda, cuda:1 or mps",
    f"{RENDER} --device cuda:7": "cannot be used here",
    f"{RENDER} --model nobody": "no such model",
    f"{RENDER} --model empty": "not a checkpoint",
    f"{RENDER} --model notes.txt": "notes.txt",
    f"{RENDER} --model default --depth": "rng",
    f"{RENDER} --model rng --guidance 2": "which rng does not",
    f"{RENDER} --model rng --steps 2": "which rng does not",
    f"{RENDER} --fps 0": "--fps must be above 0",
    f"{RENDER} --fps nan": "--fps must be above 0",
    f"{RENDER} --fps 1e9": "--fps must be above 0 and at most 1000",
    f"{RENDER} --frames 0": "--frames must be from 1",
    f"{RENDER} --frames -3": "--frames must be from 1",
    f"{RENDER} --frames 1000000000": "--frames must be from 1 to 1000000",
    f"{RENDER} --frames 2.5": "--frames: expected a whole number",
    f"{RENDER} --frames 1000000 --fps 1000": "views take",
    f"{RENDER} --frames 1000000 --dry-run": "GiB are free",
    f"{RENDER} --interpolate -1": "--interpolate must be from 0 to 6",
    f"{RENDER} --interpolate 9": "--interpolate must be from 0 to 6",
    f"{RENDER} --samples 0": "--samples must be from 1 to 1000, got 0",
    f"{RENDER} --samples 2000": "--samples must be from 1 to 1000",
    f"{RENDER} --samples two": "--samples: expected a whole number",
    f"{RENDER} --samples 2 --model rng": "which rng does not",
    f"{RENDER} --samples 2 --interpolate 1": "--samples and --interpolate do not go together",
    "capture": "PATH and --out PATH must be given",
    "capture nothing --out out": "nothing: no such file or folder",
    "capture empty --out out": "empty",
    f"capture {CAPTURE} --out out": "has cameras already",
    "capture photos --out out --frames 1": "--frames must be at least 2, got 1",
    "capture one.png --out out --distance 0": "--distance must be above 0",
    f"{RENDER} --distance 2": "--distance places the camera of a single photograph: school_bus has cameras",
    "render one.png --out out --model rng --elevation 30": "--elevation places the camera of a single photograph: rng",
    "capture broken.png --out out": "broken.png",
    "capture photos --out full": "not empty",
    "capture photos --out photos --overwrite": "photos",
    "completion": "{bash,zsh,fish} must be given",
    "completion powershell": "powershell",
    "view": "Give captures, renderings, a run or a scene file",
    f"view {CAPTURE} empty": "empty: the folder is empty",
    "view nothing.ply": "nothing.ply: no such file",
    "view nothing": "nothing: no such file or folder",
    f"view {CAPTURE} --host 203.0.113.1": "--host 203.0.113.1 --port 8080: nothing can listen there",
    f"view {CAPTURE} --port 0": "--port must be from 1 to 65534, got 0",
    "view nothing.safetensors": "nothing.safetensors: no such scene file",
    "view nothing.safetensors --compare truth": "it takes no other references",
    "view nothing.safetensors --image-size 256": "--image-size is for new views of a capture",
    f"view {CAPTURE} --model none --image-size 256": "--image-size is for new views of a capture",
    f"view {CAPTURE} --image-size 200": "Views of 200 pixels: expected a multiple of 128",
    f"view {CAPTURE} --model nobody": "nobody: no such model",
    f"view {CAPTURE} --references 0,99 --export page.html": "view 99 is out of range",
    "view photos --export page.html": "has no pose",
    "generate": "--out PATH must be given",
    "generate --out out --model nobody": "nobody: no such model",
    "generate --out out --model rng": "Generating needs a method that draws scenes of nothing, which rng does not",
    "generate --out out --model default --samples 0": "--samples must be from 1 to 1000, got 0",
    "generate --out out --frames 0": "--frames must be from 1",
    "info rng-nano --image-size 65 65": "Images of 65x65 are no whole number of patches",
    "info --model rae3d --image-size 0 0": "Views of 0x0 are none",
    "info --image-size -128 -128": "are no whole number of tokens",
    "capture one.png --out out --pose-model rng": "--pose-model tells cameras of several pictures",
    "generate --out out --label 2": "not trained with class labels",
    "generate --out out --distance 0": "--distance must be above 0",
    "generate --out out --elevation 91": "--elevation must be from -90 to 90",
    "generate --out out --fps 0": "--fps must be above 0",
    "generate --out out --seed -1": "--seed must be from 0 to",
    "generate --out notes.txt": "is a file",
    f"{RENDER} --distance -2": "--distance must be above 0",
    f"{RENDER} --distance nan": "--distance must be above 0",
    f"{RENDER} --elevation 500": "--elevation must be from -90 to 90",
    f"{RENDER} --elevation nan": "--elevation must be from -90 to 90",
    f"{RENDER} --num-references 0": "0 references were asked for",
    f"{RENDER} --num-references -2": "-2 references were asked for",
    f"{RENDER} --num-references 1000": "has 30 views to choose from",
    f"{RENDER} --image-size 200": "Views of 200 pixels: expected a multiple of 128",
    f"{RENDER} --image-size 0": "Views of 0 pixels: expected a multiple of 128",
    f"{RENDER} --model rae3d --image-size 128": "Views of 128 pixels: models of rae3d render 64 alone",
    f"{RENDER} --select best": "best",
    f"{RENDER} --select nearest": "--select nearest needs targets",
    f"{RENDER} --references 5-2": "5-2 runs backwards; write 2-5",
    f"{RENDER} --references 0,0": "view 0 is named twice",
    f"{RENDER} --references 0-3,2": "view 2 is named twice",
    f"{RENDER} --references a": "expected numbers such as",
    f"{RENDER} --references 1;2": "expected numbers such as",
    f"{RENDER} --references 99": "view 99 is out of range",
    f"{RENDER} --references 0-99999999999": "expected numbers such as",
    f"{RENDER} --references 1.5": "expected numbers such as",
    f"{RENDER} --targets ,": "expected numbers such as",
    f"{RENDER} --targets 7-": "expected numbers such as",
    f"{RENDER} --targets 99": "view 99 is out of range",
    f"{RENDER} --targets 9-3": "9-3 runs backwards",
    f"{RENDER} --targets 0-29": "every view is a target",
    f"{RENDER} --references 0-29 --targets rest": "all 30 views are references",
    f"{RENDER} --targets 3 --camera-path nothing.json": "--targets and --camera-path were both given",
    f"{RENDER} --camera-path nothing.json": "nothing.json: no such file",
    f"{RENDER} --camera-path notes.txt": "not readable JSON",
    f"{RENDER} --camera-path list.json": "list.json",
    f"{RENDER} --cameras-of nothing": "nothing",
    f"{RENDER} --trajectory bogus": "Unknown trajectory 'bogus'",
    f"{RENDER} --trajectory orbti": "did you mean 'orbit'",
    f"{RENDER} --trajectory orbit:speed=3": "Unknown parameter of orbit 'speed'",
    f"{RENDER} --trajectory orbit:degrees=far": "degrees must be a number, got 'far'",
    f"{RENDER} --trajectory orbit:degrees=nan": "NaN",
    f"{RENDER} --trajectory orbit:degrees": "degrees must be a number",
    f"{RENDER} --format colmap": "expected sparse/0",
    f"{RENDER} --format bogus": "bogus",
    f"render {CAPTURE} --out notes.txt": "is a file",
    f"render {CAPTURE} --out full": "not empty",
    f"render {CAPTURE} --out {CAPTURE} --overwrite": "school_bus",
    f"render {CAPTURE} --out . --overwrite": "the output folder is the one we are in",
    "render one.png --out out --targets 1": "view 1 is out of range",
    "render broken.png --out out": "broken.png",
    "render video.mp4 --out out": "video.mp4",
    "render photos --out out": "2 images without cameras",
    # interpolate
    "interpolate": "PATH and --out PATH must be given",
    "interpolate photos --out out --doublings 1.5": "expected a whole number",
    "interpolate photos --out out --rate -5": "--rate must be above 0",
    "interpolate one.png --out out --model nobody": "one.png",
    "interpolate empty --out out": "0 frames",
    "interpolate photos --out out --model rng": "expected 'film'",
    # reconstruct
    "reconstruct nothing --out out": "nothing",
    "reconstruct photos --out out --model default": "rng",
    "reconstruct photos --out out --frames -1": "0 or more",
    f"reconstruct {CAPTURE} --out out --model default --fit.texture -5": "texture must be at least 64",
    f"reconstruct {CAPTURE} --out out --model default --fit.references nan": "references must be above 0",
    f"reconstruct {CAPTURE} --out out --model default --fit.surface.steps 0": "steps must be at least 1",
    "reconstruct photos --out out --references 5": "out of range",
    "reconstruct photos --out out --references 0,0": "named twice",
    "reconstruct empty --out out": "empty",
    f"reconstruct {CAPTURE} --out out --model capture": "no views with a camera and a depth map",
    "reconstruct photos --out out --model capture": "no views with a camera and a depth map",
    f"reconstruct {CAPTURE} --out out --model capture --references 0,0": "named twice",
    f"reconstruct {CAPTURE} --out out --model capture --mesh.resolution 9999": "resolution must be at least 8",
    f"reconstruct {CAPTURE} --out out --model capture --mesh.truncation nan": "truncation must be at least 1",
    # check, convert, pose
    "check nothing": "nothing: no such file or folder",
    "check": "PATH must be given",
    f"check {CAPTURE} --format bogus": "bogus",
    "convert nothing out --to nerfstudio": "nothing",
    f"convert {CAPTURE} out --to bogus": "invalid choice 'bogus'",
    f"convert {CAPTURE} out": "--to",
    f"convert {CAPTURE} full --to nerfstudio": "not empty",
    f"convert {CAPTURE} out --to shards --shards.image-size 0 8": "image_size",
    f"convert {CAPTURE} out --to shards --shards.scenes-per-shard 0": "scenes_per_shard",
    f"convert {CAPTURE} out --to shards --shards.field-of-view 200": "field_of_view",
    f"convert {CAPTURE} out --to latents": "give --latents.autoencoder",
    f"pose {CAPTURE} --out out": "has cameras already",
    "pose nothing --out out": "nothing",
    "pose empty --out out": "empty",
    # train
    "train": "recipe is missing",
    "train bogus": "Unknown recipe 'bogus'",
    "train kaleido-nan": "did you mean 'kaleido-nano'",
    f"pose {CAPTURE}/images --out out --pose.seed -1": "seed must be at least 0",
    f"{TRAIN} --data.image-size 48 64": "--data.image-size 48 64: the network of this recipe is of 32x32",
    "train kaleido-nano-places --out out --init places --data.image-size 64 64": "batches of several shapes; leave it",
    "train rng-nano --out out --data.image-size 128 128": "the network of this recipe is of 64x64",
    f"{TRAIN} --train.steps 0": "steps must be at least 1, got 0",
    f"{TRAIN} --train.steps x": "--train.steps: expected a whole number",
    f"{TRAIN} --train.workers -1": "workers must be at least 0",
    f"{TRAIN} --train.ema-decay 1.5": "ema_decay must be at least 0 and at most 1",
    f"{TRAIN} --train.precision int8": "int8",
    f"{TRAIN} --train.device banana": "cannot be used here",
    f"{TRAIN} --train.accumulate 0": "accumulate must be at least 1",
    f"{TRAIN} --train.timeout 0": "timeout must be above 0",
    f"{TRAIN} --train.sharding hybrid": "shard_size belongs to sharding 'hybrid'",
    f"{TRAIN} --train.optim.learning-rate nan": "learning_rate must be at least 0",
    f"{TRAIN} --train.optim.learning-rate -1": "learning_rate must be at least 0",
    f"{TRAIN} --train.optim.betas 0.9 2": "betas must be at least 0",
    f"{TRAIN} --train.optim.clip 0": "clip must be above 0",
    f"{TRAIN} --train.optim.cooldown 2": "cooldown must be at least 0 and at most 1",
    f"{TRAIN} --train.optim.optimiser sgd": "sgd",
    f"{TRAIN} --data.batch-size 0": "batch_size must be at least 1",
    f"{TRAIN} --data.batch-size 100000": "a batch needs 100000",
    f"{TRAIN} --data.reference-dropout 2": "reference_dropout must be at least 0 and at most 1",
    f"{TRAIN} --data.sampling.views 1": "at least 2 views",
    f"{TRAIN} --shards nothing": "nothing",
    f"{TRAIN} --shards empty": "no shards here",
    f"{TRAIN} --held-out nothing": "nothing",
    f"{TRAIN} --init nobody": "no such model",
    f"{TRAIN} --fresh head": "--fresh names parts",
    f"{TRAIN} --rollback 2": "--rollback must be above 0 and at most 1",
    "train kaleido-debug --out notes.txt": "is a file",
    "train kaleido-debug --out full": "not empty and not a run",
    # ablate
    "ablate --out out": "--held-out PATH must be given",
    "ablate --out out --held-out nothing": "nothing: no such folder",
    "ablate --out out --held-out empty": "no scenes of objects here",
    "ablate --out out --held-out empty --objects 0": "--objects must be at least 1",
    "ablate --out out --held-out empty --suite bogus": "Unknown suite 'bogus'",
    "ablate --out out --held-out empty --scale huge": "huge",
    "ablate --out out --held-out empty --rows bogus": "bogus",
    "ablate --out out --held-out empty --batch 0": "--batch must be at least 1",
    # evaluate, compare
    "evaluate": "--data PATH and --out PATH must be given",
    "evaluate --data nothing --out out": "nothing",
    "evaluate --data empty --out out": "empty",
    "evaluate --data empty --out out --benchmark bogus": "bogus",
    "evaluate --data empty --out out --benchmark scene3d --model nobody": "scene3d",
    "evaluate --data empty --out out --benchmark objects --model baseline:magic": "no scenes of objects here",
    "compare a b": "a: no such file",
    "compare notes.txt notes.txt": "notes.txt",
    "compare": "at least 2 reports, got 0",
    # info, bench
    "info bogus": "Unknown recipe 'bogus'",
    "info default --references 0": "--references must be at least 1",
    "info default --targets -1": "--targets must be at least 1",
    "bench --suites bogus": "invalid choice 'bogus'",
    # synthesize
    "synthesize": "PATH must be given",
    "synthesize out --scenes.views -1": "views must be at least 1, got -1",
    "synthesize out --scenes.views 0": "views must be at least 1",
    "synthesize out --scenes.scenes 0": "scenes must be at least 1",
    "synthesize out --scenes.scenes-per-shard 0": "scenes_per_shard must be at least 1",
    "synthesize out --scenes.image-size 0 8": "image_size must be at least 4",
    "synthesize out --scenes.image-size 64 99999": "image_size must be at least 4 and at most 8192",
    "synthesize out --scenes.image-size 64": "Expected 2 values",
    "synthesize out --scenes.mesh-share 7": "mesh_share must be at least 0 and at most 1",
    "synthesize out --scenes.mesh-share nan": "mesh_share",
    "synthesize out --scenes.wide-share 0.7 --scenes.near-share 0.7": "wide_share and near_share",
    "synthesize out --scenes.seed -1": "seed must be at least 0",
    "synthesize out --scenes.meshes nothing": "no meshes here",
    "synthesize out --scenes.meshes empty": "no meshes here",
    "synthesize out --scenes.photographs empty": "no images here",
    "synthesize out --scenes.clips --scenes.depth": "without depth",
    "synthesize out --workers 0": "--workers must be at least 1",
    "synthesize out --captures": "--captures needs meshes",
    "synthesize out --captures --scenes.meshes nothing": "no meshes here",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where calls are made: some files that are no input."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "video.mp4").write_bytes(b"no video")
    (tmp_path / "photos").mkdir()
    for path in ("one.png", "photos/a.png", "photos/b.png"):
        Image.fromarray(np.full((40, 56, 3), 90, np.uint8)).save(tmp_path / path)
    return tmp_path


def there(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def call(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize("words", CALLS)
def test_a_bad_call_says_in_a_sentence_what_was_wrong(words, folder, capsys):
    before = there(folder)
    code = call(words.split())
    error = capsys.readouterr().err.strip()
    assert code in (1, 2) and CALLS[words] in error, error
    assert error.startswith("kaleidoscene") and len(error.splitlines()) == 1, error
    assert "Traceback" not in error
    assert there(folder) == before


def test_all_verbs_are_called_badly():
    verbs = {words.split()[0] for words in CALLS}
    assert verbs >= set(VERBS) and len(CALLS) >= 150


def test_what_the_parser_says_becomes_a_sentence():
    def box(*lines: str) -> str:
        return "\n".join([" Title", *("-" * 30 if line == "-" else f"   {line}" for line in lines)])

    said = error_sentence(box("-", "Error parsing recipe.train: it is bad.", "-", "For full helptext, see x"))
    assert said == "it is bad."
    said = error_sentence(box("-", "Missing from x:", "--out PATH", "Folder. (required)", "DATA", "-", "For full"))
    assert said == "--out PATH and DATA must be given; --help tells what for."
    near = ("Perhaps you meant:", "--seed INT", "(default: 0)")
    said = error_sentence(box("-", "Unrecognized options: --sed", "-", *near, "-", "For full"))
    assert said == "Unrecognized options: --sed. Perhaps you meant --seed."


def test_paths_in_messages_are_not_cut(folder, capsys):
    long = "/".join(["a-long-name-of-a-folder"] * 12)
    assert call(["render", long, "--out", "out", "--sed", "1"]) == 2
    assert call(["render", long, "--out", "out"]) == 1
    assert f"{long}: no such file or folder." in capsys.readouterr().err
