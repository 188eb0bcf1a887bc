"""Benchmarks by name: where their scenes are, and how many there must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.evaluation.benchmark_scenes import (
    GSO30,
    NERF_REFERENCES,
    BenchmarkScene,
    find_by_files,
    find_first_views,
    find_gso,
    find_held_out,
    find_nerf_synthetic,
    find_rtmv,
)

_PUBLISHED = ("psnr", "ssim")
_ESCHERNET = ("psnr-uint8", "ssim-uniform7-uint8", "psnr", "ssim")


@dataclass(frozen=True)
class Benchmark:
    """How to find the scenes of a benchmark.

    Attributes:
        name: As on the command line.
        find: Scenes below a folder.
        expects: The layout, in words for messages and help.
        scenes: Names that must all be there unless some are asked for; empty where any will do.
        scene_count: How many there must be where their names are not known here.
        counts: Usual numbers of references.
        metrics: Usual metrics.
        note: What the split is.
    """

    name: str
    find: Callable[[Path], list[BenchmarkScene]]
    expects: str
    scenes: tuple[str, ...] = ()
    scene_count: int | None = None
    counts: tuple[int, ...] = (1, 2, 3, 5, 10)
    metrics: tuple[str, ...] = _PUBLISHED
    note: str = ""


_EVERY_EIGHTH = "SCENE/ captures; train_test_split_N.json beside the images where a published list is to be followed"
_OURS = "every 8th view in the order of names is a target; references are evenly spread over the others (our lists)"
_SPLIT_FILES = "SCENE/ captures with train_test_split_N.json, or evaluation_index*.json beside them (pixelSplat)"
_LLFF = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")
_MIPNERF = ("bicycle", "bonsai", "counter", "flowers", "garden", "kitchen", "room", "stump", "treehill")

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "objects", find_first_views, "captures of 25 views each (kaleidoscene synthesize --captures)",
            note="references are views 0 to N - 1, targets views 10 to 24",
        ),
        Benchmark(
            "gso30", find_gso, "OBJECT/render_mvs_25/model/NNN.png and NNN.npy (EscherNet's renders)", GSO30,
            metrics=_ESCHERNET, note="references are views 0 to N - 1, targets views 10 to 24",
        ),
        Benchmark(
            "rtmv", find_rtmv, "SCENE/NNNNN.exr and NNNNN.json (the scenes of google_scanned)", scene_count=10,
            metrics=_ESCHERNET,
            note="references are views 0 to N - 1, targets views 10 to 19; linear colours are cut off at 1, where the "
            "published code lets them wrap around",
        ),
        Benchmark(
            "nerf-synthetic", find_nerf_synthetic, "OBJECT/transforms_train.json and transforms_test.json",
            tuple(NERF_REFERENCES), metrics=_ESCHERNET,
            note="references are EscherNet's lists of training views, targets the test views that are there",
        ),
        Benchmark(
            "llff", find_held_out, "SCENE/poses_bounds.npy; train_test_split_N.json beside it for a published list",
            _LLFF, counts=(1, 3), note=_OURS,
        ),
        Benchmark("mipnerf360", find_held_out, _EVERY_EIGHTH, _MIPNERF, counts=(1, 3, 6), note=_OURS),
        Benchmark(
            "tanks-and-temples", find_held_out, _EVERY_EIGHTH, ("train", "truck"), counts=(1, 3, 6, 9), note=_OURS
        ),
        Benchmark("omniobject3d", find_by_files, _SPLIT_FILES, counts=(1,), note="lists of the files"),
        Benchmark("dl3dv", find_by_files, _SPLIT_FILES, counts=(1, 3), note="lists of the files"),
        Benchmark("re10k", find_by_files, _SPLIT_FILES, counts=(2,), note="lists of the files"),
        Benchmark("co3d", find_by_files, _SPLIT_FILES, counts=(1, 3), note="lists of the files"),
        Benchmark(
            "capture", find_held_out, "one capture of any format, or a folder of them", counts=(1, 3, 6), note=_OURS
        ),
    )
}  # fmt: skip


def find_scenes(
    benchmark: Benchmark, data: Path, only: Sequence[str] = (), expected: int | None = None
) -> list[BenchmarkScene]:
    """The scenes to evaluate: all that the benchmark has, or those of some names.

    Args:
        benchmark: One of :data:`BENCHMARKS`.
        data: Its folder.
        only: Names; empty for all.
        expected: How many there must be; None: as many as the benchmark says, if it does.

    Raises:
        KaleidosceneError: The folder is laid out otherwise, or a scene is missing.
    """
    scenes = benchmark.find(data)
    found = {scene.name: scene for scene in scenes}
    if not found:
        raise KaleidosceneError(f"{data}: no scenes of {benchmark.name} here; expected {benchmark.expects}.")
    for name in found:
        if sum(scene.name == name for scene in scenes) > 1:
            raise KaleidosceneError(f"{data}: two folders stand for the scene {name}.")
        if Path(name).name != name or name.startswith("."):
            raise KaleidosceneError(f"{data}: {name!r} cannot be the name of a scene (it names files).")
    if len(set(only)) < len(only):
        raise KaleidosceneError("--scenes names a scene twice.")
    for name in only:
        if name not in found:
            raise unknown_name(f"scene in {data}:", name, found)
    wanted = list(only) or list(benchmark.scenes) or list(found)
    if missing := [name for name in wanted if name not in found]:
        raise KaleidosceneError(
            f"{data}: {len(missing)} of {len(wanted)} scenes of {benchmark.name} are missing, the first is "
            f"{missing[0]}; a mean over the others would be another number (name some with --scenes)."
        )
    if expected is None and not only:
        expected = benchmark.scene_count
    if expected not in (None, len(wanted)):
        raise KaleidosceneError(
            f"{data}: {len(wanted)} scenes of {benchmark.name}, there must be {expected}; a mean over others would be "
            "another number (name some with --scenes)."
        )
    return [found[name] for name in wanted]
