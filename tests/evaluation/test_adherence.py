"""Cameras that are estimated again from true images, and the errors that are put in."""

import json
import math
from dataclasses import replace

import pytest
import torch

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.evaluation.adherence import ESTIMATORS, measure_adherence, structure_from_motion
from kaleidoscene.evaluation.results import read_report
from tests.conftest import ring
from tests.own_captures import ROOM


def turned(cameras, degrees):
    """Every camera about its own optical axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[c, -s], [s, c]])
    return turn, cameras.world_from_cam.double() @ turn


@pytest.mark.slow
@pytest.mark.parametrize("place", ["room", pytest.param("fern", marks=pytest.mark.real_data)])
def test_true_images_keep_to_their_cameras_and_known_errors_are_found(place, request):
    """Pictures of a place: the estimate is near its cameras, and off by what is added to these."""
    folder = ROOM
    if place == "fern":
        folder = request.getfixturevalue("shared_data") / "captures" / "fern_llff"
    capture = read_capture(folder).select(list(range(0, 20, 2)))
    images, cameras = capture.images(), capture.cameras
    found = {}

    def once(folder):
        found.update(found or structure_from_motion(folder))
        return found

    true = measure_adherence(images, cameras, once)
    assert true.frames == 10 and true.registered == 10
    assert true.ate_t < 0.01 and true.ate_r < 1.0 and true.ra5 == 100
    _, poses = turned(cameras, 6.0)
    wrong = measure_adherence(images, replace(cameras, world_from_cam=poses.float()), once)
    assert wrong.ate_r == pytest.approx(6.0, abs=0.5) and wrong.ate_t == pytest.approx(true.ate_t, abs=1e-3)
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(10, 3, generator=generator)
    extent = (cameras.centres - cameras.centres[0]).norm(dim=-1).max()
    moved = cameras.world_from_cam.clone()
    moved[:, :3, 3] += 0.05 * extent * shift
    off = measure_adherence(images, replace(cameras, world_from_cam=moved), once)
    assert 0.03 < off.ate_t < 0.1 and off.rt5 < true.rt5  # the similarity takes up a little of it


def test_views_that_cannot_be_placed_are_a_result():
    pytest.importorskip("pycolmap")
    flat = torch.full((4, 3, 40, 56), 0.5)
    kept = measure_adherence(flat, ring(4, (40, 56)), structure_from_motion)
    assert (kept.frames, kept.registered, kept.ate_t) == (4, 0, None)


def test_a_straight_path_has_no_alignment_but_its_pairs():
    cameras = ring(5, (40, 56))
    poses = cameras.world_from_cam.clone()
    poses[:, :3, 3] = torch.linspace(0, 1, 5)[:, None] * torch.tensor([1.0, 2.0, 0.5])
    straight = replace(cameras, world_from_cam=poses)
    kept = measure_adherence(
        torch.rand(5, 3, 40, 56), straight, lambda _: {f"{n:04d}.png": poses[n].double() for n in range(5)}
    )
    assert kept.registered == 5 and kept.ate_t is None and kept.ra5 == 100


def test_any_estimator_serves(monkeypatch, tmp_path, capsys):
    """One that knows the truth finds no error; the report has a row for it and one for the true images."""
    from tests.evaluation.test_benchmarks import write_objects

    data = write_objects(tmp_path / "data", names=("one",))
    asked = read_capture(data / "one").recentred().cameras[list(range(10, 25))].world_from_cam.double()
    monkeypatch.setitem(ESTIMATORS, "oracle", lambda folder: {f"{n:04d}.png": asked[n] for n in range(0, 15, 2)})
    common = ["evaluate", "--data", str(data), "--out", str(tmp_path / "out"), "--references", "2", "--model"]
    assert main([*common, "baseline:nearest", "--adherence", "oracle"]) == 0
    kept = read_report(tmp_path / "out").scenes[0].adherence
    assert (kept.frames, kept.registered, kept.ra5, kept.auc30) == (15, 8, 100, 100) and kept.ate_t < 1e-6
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| one | 2 | 8 of 15 | 0.000 | 0.000 | 100.0 |" in text and "| one | true images | 8 of 15 |" in text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["protocol"]["adherence"] == "oracle"
    assert main([*common, "baseline:nearest", "--adherence", "colmap"]) == 1
    assert "Unknown estimator of cameras 'colmap': did you mean 'pycolmap'?" in capsys.readouterr().err
