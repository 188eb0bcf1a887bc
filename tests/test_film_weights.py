"""The interpolator in the package: small, described, and better than blending on films it has never seen."""

import json

import pytest
import torch

import kaleidoscene
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.procedural import random_object
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.viewpoints import sample_path
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.families.checkpoints import WEIGHTS
from kaleidoscene.families.film import load_interpolator
from tests.conftest import REPOSITORY, check_shipped

pytestmark = pytest.mark.slow

FILM = WEIGHTS / "film"


def test_they_are_small_and_described():
    check_shipped("film", "Licence", family="film", mebibytes=6)


def test_they_find_the_frame_between_better_than_blending_does():
    interpolator, rasteriser = load_interpolator("film"), Rasteriser((112, 144), supersampling=2)
    gains = []
    for seed in range(4):
        cameras = sample_path(3, (112, 144), torch.Generator().manual_seed(seed))
        rgba = (
            torch.from_numpy(rasteriser.render(random_object(1000 + seed, []), cameras, Lighting()).rgba).float() / 255
        )
        first, middle, last = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).movedim(-1, 1)
        made = interpolator.between(first, last)
        gains.append(float(psnr(made, middle) - psnr(0.5 * (first + last), middle)))
    assert sum(gains) / len(gains) > 2, gains


def test_render_makes_a_denser_film_with_them(tmp_path, capsys):
    bus = str(REPOSITORY / "examples" / "captures" / "school_bus")
    out = tmp_path / "out"
    assert main(["render", bus, "--out", str(out), "--frames", "3", "--interpolate", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["interpolated"] == 6
    dense = kaleidoscene.read_capture(out / "interpolated")
    assert [frame.interpolated for frame in dense.frames] == [False, True, True, True] * 2 + [False]


def test_they_render_no_cameras(capsys, tmp_path):
    bus = str(REPOSITORY / "examples" / "captures" / "school_bus")
    assert main(["render", bus, "--model", "film", "--out", str(tmp_path / "out")]) == 1
    assert "kaleidoscene interpolate" in capsys.readouterr().err
