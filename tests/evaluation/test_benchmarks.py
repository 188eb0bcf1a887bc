"""Layouts, splits, resumable runs, reports and comparisons."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.api import load
from kaleidoscene.captures.conversion.rendered import write_rendered_capture
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.baselines import BASELINES
from kaleidoscene.evaluation.benchmark_run import BenchmarkRun, within
from kaleidoscene.evaluation.benchmark_scenes import GSO30, NERF_REFERENCES
from kaleidoscene.evaluation.benchmarks import BENCHMARKS, find_scenes
from kaleidoscene.evaluation.comparison import compare, paired_difference
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.metrics.registry import ALL_METRICS, IMAGE_METRICS, make_metrics
from kaleidoscene.evaluation.metrics.temporal import flicker
from kaleidoscene.evaluation.pictures import error_map
from kaleidoscene.evaluation.plots import Curve, draw_plot
from kaleidoscene.evaluation.protocols import Protocol, Split, hold_out
from kaleidoscene.evaluation.published import published_scores
from kaleidoscene.evaluation.report import markdown
from kaleidoscene.evaluation.results import Method, protocol_differences, read_report, write_report
from kaleidoscene.evaluation.run import HeldOutObject, _moved, score_scene
from kaleidoscene.evaluation.scene_views import CaptureViews, check_scenes
from kaleidoscene.families.rng.renderer import RngRenderer
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import rotation_about
from kaleidoscene.geometry.rays import unproject
from kaleidoscene.images.fitting import fit_views, seen_boxes
from tests import own_captures
from tests.captures.test_formats import write_rtmv
from tests.conftest import CAUSAL, REPOSITORY, ring, seen_by_browser, tiny_renderer
from tests.training.processes import together


def write_objects(folder, names=("one", "two", "three"), views=25, size=(32, 32)):
    generator = torch.Generator().manual_seed(0)
    for number, name in enumerate(names):
        path = folder / name
        path.mkdir(parents=True)
        rgba = torch.randint(0, 256, (views, *size, 4), generator=generator, dtype=torch.uint8).numpy()
        write_rendered_capture(path, rgba, ring(views, size, seed=number))
    return folder


def make_run(folder, data, *, names=("psnr", "ssim"), counts=(1, 3), seed=0, **changes):
    renderer = tiny_renderer(**CAUSAL, steps=1, guidance=1.0)
    protocol = Protocol(
        benchmark="objects", counts=counts, image_size=renderer.image_size, field_of_view=49.1, metrics=names, **changes
    )
    pairs, sets = make_metrics(names, None)
    scenes = find_scenes(BENCHMARKS["objects"], data)
    method = Method(name="tiny", settings={"seed": seed})
    return BenchmarkRun(folder, scenes, protocol, method, renderer, 1.0946, pairs, sets, seed)


def whole(run):
    run.begin()
    run.score()
    return run.report()


def test_splits_are_refused_when_a_target_is_given_away():
    with pytest.raises(KaleidosceneError, match="view 3 is a reference and a target"):
        Split({2: (1, 3)}, (3, 4))
    with pytest.raises(KaleidosceneError, match="3 references were asked for, the list names 2 views"):
        Split({3: (1, 2, 2)}, (5,))
    with pytest.raises(KaleidosceneError, match="no view to render"):
        Split({1: (0,)}, ())


@pytest.mark.parametrize("views", [9, 20, 50, 301])
def test_every_eighth_view_is_held_out_and_references_spread(views):
    split = hold_out(views, [1, 3, 6], "place")
    assert split.targets == tuple(range(0, views, 8))
    for count, chosen in split.references.items():
        assert len(set(chosen)) == count and list(chosen) == sorted(chosen)
        assert not set(chosen) & set(split.targets)
    first, middle, last = split.references[3]
    assert abs((middle - first) - (last - middle)) <= 2
    with pytest.raises(KaleidosceneError, match="place: 400 references were asked for"):
        hold_out(views, [400], "place")


def test_published_lists_have_their_lengths():
    assert len(GSO30) == len(set(GSO30)) == 30
    assert len(NERF_REFERENCES) == 8
    for single, several in NERF_REFERENCES.values():
        assert len(set(several)) == 10 and all(0 <= view < 100 for view in (single, *several))


def test_rtmv_is_evaluated_on_files_of_its_form(tmp_path, capsys):
    for name, views in (("one", 20), ("two", 21)):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_rtmv(tmp_path / "data" / name, views)
    arguments = ["evaluate", "--benchmark", "rtmv", "--data", str(tmp_path / "data"), "--model", "baseline:nearest"]
    assert main([*arguments, "--references", "2", "--out", str(tmp_path / "out")]) == 1
    assert "2 scenes of rtmv, there must be 10" in capsys.readouterr().err
    arguments += ["--scenes", "one", "two"]
    assert main([*arguments, "--references", "2", "10", "--out", str(tmp_path / "out")]) == 0
    report = read_report(tmp_path / "out")
    assert [(scene.scene, scene.references) for scene in report.scenes] == [
        ("one", 2), ("one", 10), ("two", 2), ("two", 10),
    ]  # fmt: skip
    assert "cut off at 1" in report.protocol.note
    first = find_scenes(BENCHMARKS["rtmv"], tmp_path / "data", ("one",))[0]
    split = first.split(first.read(), (1, 10))
    assert split.references[10] == tuple(range(10)) and split.targets == tuple(range(10, 20))
    (tmp_path / "data" / "one" / "00019.json").unlink()
    (tmp_path / "data" / "one" / "00019.exr").unlink()
    assert main([*arguments, "--references", "2", "--out", str(tmp_path / "b")]) == 1
    assert "19 views, protocol eschernet-rtmv needs 20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("benchmark", "folder", "only", "views", "targets", "references"),
    [
        ("gso30", "elephant_eschernet", ("elephant",), 25, tuple(range(10, 25)), {3: (0, 1, 2)}),
        ("nerf-synthetic", "chair_blender", ("chair",), 140, tuple(range(100, 140)), {1: (63,), 3: (78, 68, 51)}),
        ("llff", "fern_llff", ("fern_llff",), 20, (0, 8, 16), {1: (10,), 3: (3, 10, 17)}),
        ("capture", "redkitchen_7scenes", (), 200, tuple(range(0, 200, 8)), {1: (100,)}),
        ("capture", "fox_nerfstudio", (), 50, tuple(range(0, 50, 8)), {}),
        ("capture", "papercup_colmap", (), 77, tuple(range(0, 77, 8)), {}),
        ("capture", "maryrose_llff", (), 69, tuple(range(0, 69, 8)), {}),
    ],
)
def test_real_captures_of_each_format(shared_data, benchmark, folder, only, views, targets, references):
    (scene,) = find_scenes(BENCHMARKS[benchmark], shared_data / "captures" / folder, only)
    capture = scene.read()
    split = scene.split(capture, [1, 3])
    assert len(capture) == views and split.targets == targets
    for count, chosen in references.items():
        assert split.references[count] == chosen


@pytest.mark.parametrize(
    ("benchmark", "write", "views", "targets", "references"),
    [
        ("gso30", own_captures.eschernet, 25, tuple(range(10, 25)), {3: (0, 1, 2)}),
        ("llff", own_captures.llff, 24, (0, 8, 16), {}),
        ("capture", own_captures.seven_scenes, 24, (0, 8, 16), {}),
        ("capture", own_captures.nerfstudio, 24, (0, 8, 16), {}),
        ("capture", own_captures.colmap_binary, 24, (0, 8, 16), {}),
    ],
)
def test_our_captures_of_each_format(tmp_path, benchmark, write, views, targets, references):
    write(tmp_path / "place")
    only = () if benchmark == "capture" else ("place",)
    (scene,) = find_scenes(BENCHMARKS[benchmark], tmp_path / "place" if benchmark == "capture" else tmp_path, only)
    capture = scene.read()
    split = scene.split(capture, [1, 3])
    assert len(capture) == views and split.targets == targets
    for count in (1, 3):
        chosen = split.references[count]
        assert len(set(chosen)) == count and not set(chosen) & set(targets)
        assert chosen == references.get(count, chosen)


def test_views_come_at_the_size_of_the_model_and_what_is_beyond_the_image_does_not_count(tmp_path):
    """The lens of the pictures is narrower than the model's: white lies around them, and scores ignore it."""
    own_captures.blender(tmp_path / "bus")
    (scene,) = find_scenes(BENCHMARKS["nerf-synthetic"], tmp_path, ["bus"])
    capture = scene.read()
    views = CaptureViews("bus", capture.recentred(), (64, 64), 0.95703125)
    images, cameras, boxes = views.views([18, 22])
    assert images.shape == (2, 3, 64, 64) and len(cameras) == 2
    expected = fit_views(capture.select([18, 22]).images(), capture.select([18, 22]).cameras, (64, 64), 0.95703125)[0]
    torch.testing.assert_close(images, expected)
    top, left, bottom, right = boxes[0]
    # What is cut are whole pixels of the picture, so that its borders may differ by one.
    assert top == left and bottom == right and 0 <= 64 - bottom - top <= 1 and 0 < top < 12
    assert float(images[:, :, : top - 1].min()) > 0.999
    again, _, _ = views.views([22])
    assert again[0].equal(images[1])


def test_boxes_are_exact_for_a_crop_and_for_a_border():
    cameras = ring(2, (30, 40))
    focal = float(cameras.intrinsics[0, 1, 1]) / 30
    assert seen_boxes(cameras, (30, 40), focal) == [(0, 0, 30, 40)] * 2
    assert seen_boxes(cameras, (30, 40), 2 * focal) == [(0, 0, 30, 40)] * 2  # a crop shows no padding
    assert seen_boxes(cameras, (30, 40), focal / 2) == [(8, 10, 22, 30)] * 2  # 7.5 rows of border


def test_only_what_the_image_shows_is_scored():
    renderer = tiny_renderer(**CAUSAL, steps=1, guidance=1.0)
    thing = HeldOutObject("thing", torch.rand(6, 3, 16, 24), ring(6))

    class Padded(HeldOutObject):
        def views(self, indices):
            return self.images[list(indices)], self.cameras[list(indices)], [(2, 3, 14, 20)] * len(indices)

    split = Split({2: (0, 1)}, (3, 4, 5))
    score = score_scene(renderer, Padded("thing", thing.images, thing.cameras), split, 2, metrics={"psnr": psnr})
    cut = (..., slice(2, 14), slice(3, 20))
    torch.testing.assert_close(torch.tensor(score.values["psnr"]), psnr(score.images[cut], thing.images[3:][cut]))


def test_a_run_that_is_taken_up_again_equals_an_unbroken_one(tmp_path):
    data = write_objects(tmp_path / "data")
    report = whole(make_run(tmp_path / "whole", data))
    broken = make_run(tmp_path / "broken", data)
    broken.begin()
    replace(broken, scenes=broken.scenes[:1]).score()
    with pytest.raises(KaleidosceneError, match="the scores of one are missing|the scores of .* are missing"):
        broken.report()
    marker = tmp_path / "broken" / "scenes" / f"{broken.scenes[0].name}.json"
    before = marker.stat().st_mtime_ns
    assert whole(make_run(tmp_path / "broken", data)) == report
    assert marker.stat().st_mtime_ns == before  # not scored again
    # Shared by two processes, no scene is dropped or done twice.
    for rank, done in ((0, 2), (1, 3)):
        shared = make_run(tmp_path / "shared", data)
        shared.begin()
        shared.score(rank=rank, ranks=2)
        assert len(list((tmp_path / "shared" / "scenes").glob("*.json"))) == done
    assert shared.report() == report
    assert report.names == ["one", "three", "two"] and len(report.scenes) == 6
    with pytest.raises(KaleidosceneError, match="another method was begun here"):
        make_run(tmp_path / "whole", data, seed=1).begin()
    with pytest.raises(KaleidosceneError, match="another protocol was begun here"):
        make_run(tmp_path / "whole", data, counts=(1, 2)).begin()
    with pytest.raises(KaleidosceneError, match="not empty and no evaluation"):
        make_run(data, data).begin()
    # Other images under the same names are not the same scenes.
    other = write_objects(tmp_path / "other", names=("two", "one", "three"))
    with pytest.raises(KaleidosceneError, match="scored from other images, cameras or views"):
        make_run(tmp_path / "whole", other).score()
    assert "images or cameras of one" in protocol_differences(report, whole(make_run(tmp_path / "elsewhere", other)))
    (tmp_path / "whole" / "scenes" / "one.json").write_text("[")
    with pytest.raises(KaleidosceneError, match="one.json: not readable JSON"):
        make_run(tmp_path / "whole", data).score()


def test_the_numbers_are_those_of_the_pictures(tmp_path):
    data = write_objects(tmp_path / "data", names=("one",))
    run = make_run(tmp_path / "out", data)
    report = whole(run)
    capture = read_capture(data / "one").recentred()
    views = CaptureViews("one", capture, run.renderer.image_size, 1.0946)
    score = score_scene(run.renderer, views, Split({3: (0, 1, 2)}, tuple(range(10, 25))), 3)
    assert report.of(3)[0].values["psnr"] == tuple(score.values["psnr"])
    assert report.mean["3"]["psnr"] == pytest.approx(score.mean("psnr"))
    assert report.mean["3"]["copy_psnr"] == pytest.approx(sum(score.copy["psnr"]) / 15)


def test_the_oracle_of_the_scale_sweep_is_marked_and_never_worse(tmp_path):
    data = write_objects(tmp_path / "data", names=("one",))
    plain = whole(make_run(tmp_path / "plain", data))
    swept = whole(make_run(tmp_path / "swept", data, scale_sweep=(0.5, 1.0, 2.0)))
    one, three = swept.scenes
    assert one.values == plain.scenes[0].values and three.oracle is None
    assert one.oracle_scale in (0.5, 1.0, 2.0) and one.mean("psnr", "oracle") >= one.mean("psnr")
    assert "oracle_psnr" in swept.mean["1"] and "oracle_psnr" not in swept.mean["3"]
    assert protocol_differences(plain, swept) == ["scale_sweep: (), (0.5, 1.0, 2.0)"]
    axes = whole(make_run(tmp_path / "axes", data, scale_sweep=(0.5, 1.0, 2.0), sweep_axes=("all", "x", "y", "z")))
    assert axes.scenes[0].mean("psnr", "oracle") >= one.mean("psnr", "oracle") and one.oracle_axes == "all"
    for report, tries in ((axes, 12), (swept, 3)):
        assert f"with the best of {tries} scales of translations by the truth" in markdown(report)


def test_a_sweep_moves_targets_along_the_axes_of_the_reference():
    reference, targets = ring(1), ring(4, seed=3)
    local = reference.cam_from_world[0] @ targets.world_from_cam
    for axes, factors in (("all", (2, 2, 2)), ("x", (2, 1, 1)), ("y", (1, 2, 1)), ("z", (1, 1, 2))):
        moved = reference.cam_from_world[0] @ _moved(targets, reference, 2.0, axes).world_from_cam
        expected = local[:, :3, 3] * torch.tensor(factors)
        torch.testing.assert_close(moved[:, :3, 3], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(moved[:, :3, :3], local[:, :3, :3], rtol=0, atol=1e-5)


def test_reports_are_checked_when_they_are_read(tmp_path):
    data = write_objects(tmp_path / "data")
    report = whole(make_run(tmp_path / "out", data))
    path = tmp_path / "report.json"
    write_report(path, report)
    assert read_report(path) == report
    document = json.loads(path.read_text())

    def refuse(match, change):
        changed = json.loads(json.dumps(document))
        change(changed)
        path.write_text(json.dumps(changed))
        with pytest.raises(KaleidosceneError, match=match):
            read_report(path)

    refuse("schema version 7, this package reads 1", lambda d: d.update(version=7))
    refuse("not a report", lambda d: d.update(schema="other"))
    refuse("means do not follow", lambda d: d["mean"]["1"].update(psnr=40.0))
    refuse("means do not follow", lambda d: d["scenes"][0]["values"].update(psnr=[40.0] * 15))
    refuse("not every metric of the protocol", lambda d: d["scenes"][0]["values"].update(psnr=[40.0]))
    refuse("not every metric of the protocol", lambda d: d["scenes"][0]["values"].pop("ssim"))
    refuse("not every metric of sets", lambda d: d["protocol"].update(metrics=["psnr", "ssim", "fid"]))
    refuse("not every scene", lambda d: d["scenes"].pop())
    refuse("Unknown key .*did you mean", lambda d: d["protocol"].update(metric=1))
    refuse("the key 'method' is missing", lambda d: d.pop("method"))
    with pytest.raises(KaleidosceneError, match="no such file"):
        read_report(tmp_path / "none.json")


def test_comparisons_pair_scenes_and_refuse_other_protocols(tmp_path):
    data = write_objects(tmp_path / "data")
    first = whole(make_run(tmp_path / "a", data))
    second = whole(make_run(tmp_path / "b", data, seed=1))
    same = paired_difference(first, first, 1, "psnr")
    assert (same.mean, same.low, same.high, same.better) == (0, 0, 0, 0)
    found = paired_difference(first, second, 3, "psnr")
    assert found.mean == pytest.approx(second.mean["3"]["psnr"] - first.mean["3"]["psnr"])
    assert found.low < found.mean < found.high and found.scenes == 3
    # A difference that is the same at every scene has no spread.
    raised = tuple(
        replace(r, values={**r.values, "psnr": tuple(v + 1 for v in r.values["psnr"])}) for r in first.scenes
    )
    shifted = paired_difference(first, replace(first, scenes=raised), 1, "psnr")
    assert shifted.low == pytest.approx(1) == pytest.approx(shifted.high) and shifted.better == 3
    text = compare([first, second], ["a", "b"])
    assert "| b |" in text and "better at" in text and "psnr in dB (higher is better)" in text
    other = whole(make_run(tmp_path / "c", data, counts=(1, 2)))
    with pytest.raises(KaleidosceneError, match=r"different protocols .*counts: \(1, 3\), \(1, 2\)"):
        compare([first, other], ["a", "c"])
    fewer = replace(first, scenes=tuple(r for r in first.scenes if r.scene != "two"))
    with pytest.raises(KaleidosceneError, match="scenes: two is in one of them only"):
        compare([first, fewer], ["a", "d"])
    moved = replace(first, scenes=(replace(first.scenes[0], reference_views=(5,)), *first.scenes[1:]))
    with pytest.raises(KaleidosceneError, match="views of one with 1 references"):
        compare([first, moved], ["a", "e"])


def test_published_rows_stand_beside_ours_and_are_marked(tmp_path):
    report = whole(make_run(tmp_path / "a", write_objects(tmp_path / "data")))
    gso = replace(report, protocol=replace(report.protocol, benchmark="gso30"))
    text = compare([gso, gso], ["a", "b"])
    assert "| Kaleido (published, Kaleido, Table 2; its resolution and scenes) | 20.94 | 28.89 |" in text
    where = "published, Kaleido, Table 6; its resolution and scenes; which variant of SSIM is not said"
    assert f"| EscherNet ({where}) | 0.884 | 0.918 |" in text
    written = markdown(gso)
    assert written.index("PSNR as published (Kaleido, Table 2)") < written.index("SSIM as published (Kaleido, Table 6)")
    assert "| Kaleido (published) | 0.895 | 0.954 |" in written


def test_published_numbers_stand_in_their_columns():
    """Those of objects get better with every reference, in all models; and some are looked up in the tables."""
    for metric, up in (("psnr", 1), ("ssim-padded", 1), ("lpips-vgg", -1)):
        for benchmark in ("gso30", "rtmv"):
            for row in published_scores(benchmark, metric).rows.values():
                values = [up * row[n] for n in (1, 2, 3, 5, 10)]
                assert values == sorted(values) and len(set(values)) == 5
    assert published_scores("tanks-and-temples", "psnr").rows["Kaleido"] == {1: 11.79, 3: 13.2, 6: 14.61, 9: 15.88}
    assert published_scores("mipnerf360", "lpips-alex").rows["SEVA"] == {1: 0.573, 3: 0.364, 6: 0.319}
    assert published_scores("omniobject3d", "ssim").rows["SV3D"] == {1: 0.85}
    assert published_scores("gso30", "psnr-object") is None, "of whole images they are, not of objects alone"
    assert published_scores("llff", "flip") is None and published_scores("capture", "psnr") is None


def write_split(folder, count, train, test):
    (folder / f"train_test_split_{count}.json").write_text(json.dumps({"train_ids": train, "test_ids": test}))


def test_names_that_cannot_be_files_and_two_indices_are_refused(tmp_path):
    data = write_objects(tmp_path / "data", names=("one",), views=9)
    entry = {"context": [0, 8], "target": [3]}
    (data / "evaluation_index_a.json").write_text(json.dumps({"../one": entry}))
    with pytest.raises(KaleidosceneError, match="'../one' cannot be the name of a scene"):
        find_scenes(BENCHMARKS["re10k"], data)
    (data / "evaluation_index_b.json").write_text(json.dumps({"one": entry}))
    with pytest.raises(KaleidosceneError, match="2 files evaluation_index"):
        find_scenes(BENCHMARKS["re10k"], data)


def test_padding_is_white_for_metrics_of_sets_too():
    images = torch.rand(2, 3, 6, 8)
    shown = within(images, [(1, 2, 5, 8), (0, 0, 6, 8)])
    assert shown[1].equal(images[1]) and shown[0, :, 1:5, 2:].equal(images[0, :, 1:5, 2:])
    assert bool((shown[0, :, 0] == 1).all()) and bool((shown[0, :, :, :2] == 1).all())


def test_a_view_that_shows_too_little_is_refused_before_anything_is_rendered(tmp_path):
    data = write_objects(tmp_path / "data", names=("one",))
    run = make_run(tmp_path / "out", data)
    check_scenes(run.scenes, run.protocol, 1.0946)
    with pytest.raises(
        KaleidosceneError, match="one: view 10 shows .* pixels of what is rendered; the metrics need 11"
    ):
        check_scenes(run.scenes, run.protocol, 0.5)


def test_split_files_of_others(tmp_path):
    data = write_objects(tmp_path / "data", names=("one", "two"), views=9)
    write_split(data / "one", 3, [0, 4, 8], [1, 2])
    with pytest.raises(KaleidosceneError, match=r"two/train_test_split_3.json: no such file"):
        for scene in find_scenes(BENCHMARKS["dl3dv"], data):
            scene.split(scene.read(), [3])
    write_split(data / "two", 3, [0, 4, 9], [1, 2])
    one, two = find_scenes(BENCHMARKS["dl3dv"], data)
    split = one.split(one.read(), [3])
    assert split.references == {3: (0, 4, 8)} and split.targets == (1, 2)
    with pytest.raises(KaleidosceneError, match="train_ids names view 9; the capture has views 0 to 8"):
        two.split(two.read(), [3])
    write_split(data / "one", 1, [0], [1])
    with pytest.raises(KaleidosceneError, match="other test_ids"):
        one.split(one.read(), [3, 1])
    # In llff they come before our own, for all scenes or for none.
    (fern,) = find_scenes(BENCHMARKS["llff"], data, ["one"])
    assert fern.split(fern.read(), [3]).targets == (1, 2) and fern.note == "lists of the split files"
    (data / "two" / "train_test_split_3.json").unlink()
    (horns,) = find_scenes(BENCHMARKS["llff"], data, ["two"])
    with pytest.raises(KaleidosceneError, match=r"two/train_test_split_3.json: no such file"):
        horns.split(horns.read(), [3])
    index = {"one": {"context": [0, 8], "target": [3, 4, 5]}, "two": None}
    (data / "evaluation_index_re10k.json").write_text(json.dumps(index))
    (scene,) = find_scenes(BENCHMARKS["re10k"], data)
    split = scene.split(scene.read(), [2])
    assert scene.name == "one" and split.references == {2: (0, 8)} and split.targets == (3, 4, 5)
    with pytest.raises(KaleidosceneError, match="has 2 context views; give --references 2"):
        scene.split(scene.read(), [3])


def test_what_is_missing_or_laid_out_otherwise_is_said(tmp_path, capsys):
    data = write_objects(tmp_path / "data", names=("one", "two"), views=25)
    arguments = ["evaluate", "--data", str(data), "--out", str(tmp_path / "out")]

    def refuse(said, *more):
        assert main([*arguments, *more]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line and not (tmp_path / "out").exists()

    refuse("Unknown benchmark 'gso3': did you mean 'gso30'?", "--benchmark", "gso3")
    refuse("30 of 30 scenes of gso30 are missing, the first is alarm", "--benchmark", "gso30")
    refuse("no scenes of nerf-synthetic here; expected OBJECT/transforms_train.json", "--benchmark", "nerf-synthetic")
    refuse("Unknown scene in", "--scenes", "ones")
    refuse("2 scenes of objects, there must be 3", "--expect-scenes", "3")
    refuse("Unknown metric 'psn': did you mean 'psnr'?", "--metrics", "psn")
    refuse("needs weights that do not come with the package", "--metrics", "lpips-alex")
    refuse("needs weights that do not come with the package", "--metrics", "fid")
    refuse("takes 1 to 10 references, got 12", "--references", "12")
    refuse("must be different positive numbers", "--references", "1", "1")
    refuse("Unknown baseline 'nearst': did you mean 'nearest'?", "--model", "baseline:nearst")
    refuse("--steps is for models", "--model", "baseline:nearest", "--steps", "3")
    refuse("--scale-sweep needs positive factors", "--scale-sweep", "0.5", "-1")
    refuse("--scale-sweep needs positive factors", "--scale-sweep", "nan")
    refuse("have 1 among --references", "--scale-sweep", "0.5", "--references", "3")
    refuse("--device is for models", "--model", "baseline:nearest", "--device", "cuda")
    refuse("--like is for baselines", "--like", "other")
    refuse("--scenes names a scene twice", "--scenes", "one", "one")
    refuse("no such folder", "--data", str(tmp_path / "none"))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years")
    assert main([*arguments[:3], "--out", str(tmp_path / "precious"), "--overwrite"]) == 1
    assert "--overwrite drops evaluations only" in capsys.readouterr().err
    assert (tmp_path / "precious" / "thesis.tex").is_file()
    assert main([*arguments[:3], "--out", str(tmp_path), "--overwrite"]) == 1
    assert "would replace" in capsys.readouterr().err
    for folder in ("chair_blender", "chair_old"):
        (tmp_path / "chairs" / folder).mkdir(parents=True)
        for name in ("train", "test"):
            (tmp_path / "chairs" / folder / f"transforms_{name}.json").write_text("{}")
    refuse("two folders stand for the scene chair", "--benchmark", "nerf-synthetic", "--data", str(tmp_path / "chairs"))
    few = write_objects(tmp_path / "few", names=("short",), views=12)
    refuse("short: 12 views, protocol eschernet-gso needs 25", "--data", str(few))


def test_a_folder_is_known_by_its_own_name(tmp_path, monkeypatch):
    """Not by how it was written: ``.`` names nothing."""
    write_objects(tmp_path / "data", names=("one",))
    monkeypatch.chdir(tmp_path / "data" / "one")
    assert [scene.name for scene in find_scenes(BENCHMARKS["objects"], Path())] == ["one"]


def test_sequences_are_measured_beside_the_true_ones(tmp_path, capsys):
    data = write_objects(tmp_path / "data", names=("one", "two"))
    arguments = ["evaluate", "--data", str(data), "--references", "1", "3", "--model", "baseline:nearest"]
    arguments += ["--metrics", "psnr", "flicker", "view-to-view"]
    for name in ("a", "b"):
        assert main([*arguments, "--out", str(tmp_path / name)]) == 0
    report = read_report(tmp_path / "a")
    one = next(result for result in report.scenes if result.scene == "one" and result.references == 1)
    assert one.sequence == {"flicker": 0.0, "view-to-view": 100.0}, "copies of one reference stand still"
    capture = read_capture(data / "one").recentred()
    truth = CaptureViews("one", capture, (128, 128), load("default").system.focal_over_height).views(range(10, 25))[0]
    assert one.truth_sequence["flicker"] == pytest.approx(flicker(truth)) and one.truth_sequence["flicker"] > 1
    assert report.mean["1"]["truth_view-to-view"] < report.mean["1"]["view-to-view"] == 100
    assert "| 100.00 (" in (tmp_path / "a" / "report.md").read_text()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "side")]) == 0
    assert "## flicker (of the true views)" in (tmp_path / "side" / "comparison.md").read_text()
    document = json.loads((tmp_path / "a" / "report.json").read_text())
    del document["scenes"][0]["sequence"]["flicker"]
    (tmp_path / "a" / "report.json").write_text(json.dumps(document))
    with pytest.raises(KaleidosceneError, match="has not every metric of sequences"):
        read_report(tmp_path / "a")
    capsys.readouterr()
    assert main([*arguments[:-3], "flicker", "--out", str(tmp_path / "c")]) == 1
    assert "--metrics needs one of single images beside flicker" in capsys.readouterr().err


def test_a_view_counts_once():
    with pytest.raises(KaleidosceneError, match="View 3 is twice in the list of targets"):
        Split({1: (0,)}, (3, 4, 3))


def test_cameras_of_llff_are_those_of_its_own_file(tmp_path):
    """As published its scenes hold a model of COLMAP as well, which is not looked at."""
    scene = tmp_path / "fern"
    own_captures.llff(scene)
    (scene / "sparse" / "0").mkdir(parents=True)
    (scene / "sparse" / "0" / "cameras.bin").write_bytes(b"another reader would fail on this")
    (found,) = find_scenes(BENCHMARKS["llff"], tmp_path, ("fern",))
    assert len(found.read()) > 10


def test_images_that_are_no_numbers_are_refused():
    renderer = tiny_renderer(**CAUSAL, steps=1, guidance=1.0)
    thing = HeldOutObject("thing", torch.rand(6, 3, 16, 24), ring(6))
    split = Split({1: (0,)}, (3, 4))
    for view, what in ((0, "a reference"), (4, "a target")):
        images = thing.images.clone()
        images[view, 0, 0, 0] = float("nan")
        with pytest.raises(KaleidosceneError, match=f"thing: {what} holds numbers that are not finite"):
            score_scene(renderer, replace(thing, images=images), split, 1)
    with torch.no_grad():
        renderer.model.head.bias.fill_(float("nan"))
    with pytest.raises(KaleidosceneError, match="thing: a rendered view holds numbers that are not finite"):
        score_scene(renderer, thing, split, 1)


def test_one_command_and_a_comparison(tmp_path, capsys):
    data = write_objects(tmp_path / "data", names=("one", "two"))
    common = ["--data", str(data), "--references", "1", "3"]
    ours = ["--model", "rng"]  # renders fastest
    assert main(["evaluate", *common, *ours, "--out", str(tmp_path / "ours"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    report = read_report(tmp_path / "ours")
    assert said["mean"] == report.mean and report.method.weights and report.protocol.image_size == (64, 64)
    page = (tmp_path / "ours" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 4 and "src=" in page and "://" not in page
    order = sorted(report.scenes, key=lambda r: r.mean("psnr"))
    captions = re.findall(r"<figcaption>(\w+), N = (\d+)", page)
    assert captions == [(r.scene, str(r.references)) for r in order], "worst first"
    assert all(
        IMAGE_METRICS["psnr"].definition in text for text in (page, (tmp_path / "ours" / "report.md").read_text())
    )
    assert "2 scenes, 30 targets" in page
    before = (tmp_path / "ours" / "scenes" / "one.json").stat().st_mtime_ns
    assert main(["evaluate", *common, *ours, "--out", str(tmp_path / "ours")]) == 0  # nothing is rendered again
    assert (tmp_path / "ours" / "scenes" / "one.json").stat().st_mtime_ns == before
    assert (
        main(["evaluate", *common, "--out", str(tmp_path / "copy"), "--model", "baseline:nearest", "--like", "rng"])
        == 0
    )
    copied = read_report(tmp_path / "copy")
    assert copied.mean["3"]["psnr"] == copied.mean["3"]["copy_psnr"] == pytest.approx(report.mean["3"]["copy_psnr"])
    capsys.readouterr()
    out = tmp_path / "side"
    assert main(["compare", str(tmp_path / "copy"), str(tmp_path / "ours"), "--out", str(out)]) == 0
    assert "| rng |" in capsys.readouterr().out
    text = (out / "comparison.md").read_text()
    assert IMAGE_METRICS["psnr"].definition in text and "64x64 pixels" in text and '"torch": ' in text
    assert (out / "comparison.md").is_file() and (out / "comparison.png").stat().st_size > 1000
    assert main(["compare", str(tmp_path / "copy")]) == 1
    assert "at least 2 reports" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_the_scenes(tmp_path):
    data = write_objects(tmp_path / "data")
    common = ["--data", str(data), "--references", "2", "--model", "baseline:blend"]
    done = together(2, ["-m", "kaleidoscene", "evaluate", *common, "--out", str(tmp_path / "two")])
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["evaluate", *common, "--out", str(tmp_path / "one")]) == 0
    assert read_report(tmp_path / "two") == read_report(tmp_path / "one")
    assert done.stdout.count("report.json") == 1


def test_plots_show_every_point(tmp_path):
    curves = [Curve("ours", [(1.0, 18.0), (3.0, 20.0), (10.0, 21.0)]), Curve("theirs", [(1.0, 20.9)], dashed=True)]
    draw_plot(tmp_path / "plot.png", "title", "reference views", "PSNR in dB", curves)
    from PIL import Image

    picture = Image.open(tmp_path / "plot.png").convert("RGB")
    colours = {colour: count for count, colour in picture.getcolors(1 << 20)}
    assert colours[(0, 114, 178)] > 500 and colours[(230, 159, 0)] > 20


def test_error_maps_run_from_white_to_black():
    truth = torch.zeros(3, 1, 3)
    image = torch.tensor([0.0, 0.25, 0.8]).expand(3, 1, 3)
    expected = torch.tensor([[1.0, 1.0, 1.0], [0.9, 0.62, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(error_map(image, truth)[:, 0].mT, expected)


def test_the_report_opens_in_a_browser(tmp_path):
    """In a real one: every picture in it is decoded, nothing is asked from elsewhere, and the table can be read."""
    write_objects(tmp_path / "data")
    arguments = ["evaluate", "--data", str(tmp_path / "data"), "--model", "baseline:blend", "--references", "1", "3"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    look = """<script>window.addEventListener("load", () => {
      const pictures = [...document.images].map(image => image.naturalWidth > 0);
      document.body.dataset.drawn = pictures.filter(Boolean).length + "/" + pictures.length;
      const fetched = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:"));
      document.body.dataset.fetched = fetched.length;
      document.body.dataset.wide = document.documentElement.scrollWidth <= window.innerWidth;
    });</script>"""
    page = tmp_path / "page.html"
    page.write_text((tmp_path / "out" / "report.html").read_text() + look)
    out = seen_by_browser(page)
    # The curve, and three objects at two numbers of references.
    assert 'data-drawn="7/7"' in out and 'data-fetched="0"' in out and 'data-wide="true"' in out
    assert "<h1>objects: baseline:blend</h1>" in out


def test_the_models_own_lens_decides_the_crop():
    model = load("default")
    assert model.system.focal_over_height == pytest.approx(1.0946, abs=1e-3)


def test_every_name_stands_in_the_help_and_the_document(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told, document = " ".join(capsys.readouterr().out.split()), (REPOSITORY / "docs" / "evaluation.md").read_text()
    for name in (*BENCHMARKS, *ALL_METRICS, *BASELINES):
        assert re.search(rf"[\s:(]{name}[,;.)\s]", told), name
        assert f"`{name}`" in document, name


def test_plots_of_many_points_are_to_scale(tmp_path):
    """Two thousand steps: a round number of round ticks, and the line where it belongs."""
    draw_plot(tmp_path / "plot.png", "t", "x", "y", [Curve("a", [(float(n), 3.0) for n in range(0, 2001, 10)])])
    blue = [place for place in range(900) if Image.open(tmp_path / "plot.png").getpixel((place, 450)) == (0, 114, 178)]
    assert min(blue) <= 82 and 648 <= max(blue) <= 652  # from end to end of an axis of 0 to 2000


@pytest.mark.parametrize("values", [(7.0, 7.0), (-3.0, 12.0), (0.31, 0.32), (5.0, 900.0)])
def test_plots_of_any_range_are_drawn(tmp_path, values):
    draw_plot(tmp_path / "plot.png", "t", "x", "y", [Curve("a", [(1.0, values[0]), (2.0, values[1])])])
    draw_plot(tmp_path / "point.png", "t", "x", "y", [Curve("a", [(3.0, values[0])])])
    assert (tmp_path / "plot.png").is_file() and (tmp_path / "point.png").is_file()


def write_walls(folder, *, levels=1000.0):
    """Captures of a coloured wall with depth maps, from cameras beside each other."""
    views, size = 10, (24, 32)
    poses = torch.eye(4).repeat(views, 1, 1)
    poses[:, 0, 3] = torch.linspace(-0.4, 0.5, views)
    poses[:, 2, 3] = -2.0
    cameras = Cameras.from_field_of_view(poses, math.radians(49.1), size)
    depth = torch.full((views, *size), 2.7)
    place = unproject(cameras, depth)
    rgb = 0.5 + 0.4 * torch.sin(torch.stack([place[..., 0] * 9, place[..., 1] * 7, place[..., 0] * 4], -1))
    rgba = torch.cat([rgb, torch.ones_like(rgb[..., :1])], -1).mul(255).round().to(torch.uint8).numpy()
    for name in ("east", "west"):
        (folder / name).mkdir(parents=True)
        write_rendered_capture(folder / name, rgba, cameras, depth=depth.numpy())
    return folder


def test_depth_maps_of_captures_are_as_fine_as_sixteen_bits(tmp_path):
    depth = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0)) * 3
    depth[:, :2] = 0  # nothing there
    rgba = np.full((3, 24, 32, 4), 255, np.uint8)
    write_rendered_capture(tmp_path, rgba, ring(3, (24, 32), seed=1), depth=depth.numpy())
    back = read_capture(tmp_path).depths()
    assert (back - depth).abs().max() <= 0.51 * 3 / 65534 and bool((back[:, :2] == 0).all())


def test_frames_that_were_put_between_others_are_no_truth(tmp_path, capsys):
    data = write_walls(tmp_path / "data")
    path = data / "east" / "transforms.json"
    document = json.loads(path.read_text())
    for frame in document["frames"]:
        frame["interpolated"] = True
    path.write_text(json.dumps(document))
    arguments = ["evaluate", "--benchmark", "capture", "--data", str(data), "--references", "4"]
    assert main([*arguments, "--model", "baseline:nearest", "--out", str(tmp_path / "out")]) == 1
    assert "was put between others" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_cameras_that_a_method_tells_are_scored(tmp_path, capsys, monkeypatch):
    """Told as they are but for one of three, which is turned by 10 degrees: two pairs of three are as much off."""
    data = write_objects(tmp_path / "data", names=("one", "two"))
    encode = RngRenderer.encode

    def turned(self, images, cameras):
        made = encode(self, images, cameras)
        poses = cameras.world_from_cam.clone()
        poses[:, -1, :3, :3] = poses[:, -1, :3, :3] @ rotation_about("x", torch.tensor(math.radians(10.0)))
        return replace(made, estimated=replace(cameras, world_from_cam=poses))

    monkeypatch.setattr(RngRenderer, "encode", turned)
    common = ["evaluate", "--data", str(data), "--references", "1", "3", "--metrics", "psnr", "pose-ra5", "pose-ra15"]
    assert main([*common, "pose-rt5", "pose-auc30", "--model", "rng", "--out", str(tmp_path / "out")]) == 0
    report = read_report(tmp_path / "out")
    assert "pose-ra5" not in report.mean["1"]
    assert report.mean["3"]["pose-ra5"] == pytest.approx(100 / 3) and report.mean["3"]["pose-ra15"] == 100
    page = (tmp_path / "out" / "report.md").read_text()
    assert "relative rotation is told to less than 5 degrees" in page and "| 33.3 | 100.0 |" in page
    assert "## pose-ra15 in percent" in compare([report, report], ["a", "b"])
    assert main([*common, "--model", "default", "--out", str(tmp_path / "other")]) == 1
    assert "Metric pose-ra5 needs a method that estimates cameras, which default does not" in capsys.readouterr().err
    spoil = json.loads((tmp_path / "out" / "report.json").read_text())
    del spoil["scenes"][1]["pose"]["pose-rt5"]
    (tmp_path / "out" / "report.json").write_text(json.dumps(spoil))
    with pytest.raises(KaleidosceneError, match="not every metric of poses"):
        read_report(tmp_path / "out")


def test_depth_is_scored_where_method_and_capture_have_it(tmp_path, capsys):
    data = write_walls(tmp_path / "data")
    read = read_capture(data / "east")
    torch.testing.assert_close(read.depths(only=[3]), torch.full((1, 24, 32), 2.7), rtol=0, atol=1e-4)
    arguments = ["evaluate", "--benchmark", "capture", "--data", str(data), "--references", "4"]
    metrics = ["--metrics", "psnr", "depth-rel", "depth-a1", "reprojection"]
    out = tmp_path / "out"
    assert main([*arguments, *metrics, "--model", "baseline:plane-sweep", "--out", str(out)]) == 0
    report = read_report(out)
    mean = report.mean["4"]
    assert mean["depth-rel"] < 0.3 and mean["depth-a1"] > 0.7  # nothing is met at the sides, which few see
    assert mean["truth_reprojection"] > 30 and mean["reprojection"] > 15
    page = (out / "report.md").read_text()
    assert "depth-rel: mean of |d - d_true| / d_true" in page and "| depth-a1 |" in page
    side = compare([report, report], ["a", "b"])
    assert "## depth-rel (lower is better)" in side and "## depth-a1 (higher is better)" in side
    # A wall that is twice as far is wrong by as much as can be told: half of every depth.
    for scene in ("east", "west"):
        path = data / scene / "transforms.json"
        document = json.loads(path.read_text())
        for frame in document["frames"]:
            frame["depth_unit_scale_factor"] *= 2
        path.write_text(json.dumps(document))
    again = ["--model", "baseline:plane-sweep", "--out", str(out)]
    assert main([*arguments, *metrics, *again]) == 1  # the same files, and another unit
    assert "scored from other images, cameras or views than are there now" in capsys.readouterr().err
    far = tmp_path / "far"
    assert main([*arguments, *metrics[:4], "--model", "baseline:plane-sweep", "--out", str(far)]) == 0
    again = read_report(far)
    assert again.mean["4"]["depth-rel"] == pytest.approx(0.5, abs=0.1) and again.mean["4"]["depth-a1"] < 0.1
    changed = replace(report, scenes=tuple(replace(scene, depth={}) for scene in report.scenes))
    write_report(tmp_path / "changed.json", changed)
    with pytest.raises(KaleidosceneError, match="east has not every metric of depth"):
        read_report(tmp_path / "changed.json")
    capsys.readouterr()


def test_depth_is_refused_where_one_of_them_has_none(tmp_path, capsys):
    data = write_walls(tmp_path / "data")
    arguments = ["evaluate", "--benchmark", "capture", "--data", str(data), "--references", "4"]
    assert main([*arguments, "--metrics", "psnr", "depth-rel", "--out", str(tmp_path / "a")]) == 1
    said = capsys.readouterr().err
    assert "Metric depth-rel needs a method that renders depth, which default does not (" in said
    assert "baseline:plane-sweep" in said and "rng" in said
    path = data / "west" / "transforms.json"
    document = json.loads(path.read_text())
    del document["frames"][8]["depth_file_path"]
    path.write_text(json.dumps(document))
    model = ["--model", "baseline:plane-sweep"]
    for metric in ("depth-a1", "reprojection"):
        assert main([*arguments, *model, "--metrics", "psnr", metric, "--out", str(tmp_path / "b")]) == 1
        assert "west: view 8 has no depth map; the metrics need them" in capsys.readouterr().err
    document["frames"][8]["depth_file_path"] = "depth/000.png"
    path.write_text(json.dumps(document))
    Image.fromarray(np.zeros((24, 32), np.uint16)).save(data / "west" / "depth" / "000.png")
    assert main([*arguments, *model, "--metrics", "psnr", "depth-rel", "--out", str(tmp_path / "b")]) == 1
    assert "west: the depth map of view 0 is empty where it is rendered" in capsys.readouterr().err
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_neighbours_without_a_common_surface_are_named_before_anything_is_rendered(tmp_path, capsys):
    data = write_walls(tmp_path / "data")
    path = data / "west" / "transforms.json"
    document = json.loads(path.read_text())
    document["frames"][8]["transform_matrix"][0][3] += 50  # far beside the other target
    path.write_text(json.dumps(document))
    arguments = ["evaluate", "--benchmark", "capture", "--data", str(data), "--references", "4"]
    arguments += ["--metrics", "psnr", "reprojection", "--model", "baseline:plane-sweep", "--out", str(tmp_path / "a")]
    assert main(arguments) == 1
    assert "west: No two neighbouring frames see a surface in common." in capsys.readouterr().err
