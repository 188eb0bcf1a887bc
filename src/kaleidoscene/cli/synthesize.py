"""kaleidoscene synthesize: render scenes ahead, for training or for a held-out test set."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from rich.progress import track

from kaleidoscene.captures.formats import transforms_json
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes, list_meshes, shard_path, write_next_shards
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.viewpoints import sample_viewpoints
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.randomness import seeded
from kaleidoscene.rendering.outputs import whole_folder

# Of 16 bits the highest number stands for an unknown depth.
_DEPTH_LEVELS = 65534


@dataclass(frozen=True, kw_only=True)
class SynthesizeOptions:
    """Render training scenes into shards, or with --captures one capture for every mesh (the test protocol)."""

    out: tyro.conf.Positional[Path]
    """Folder of shards (interrupted work goes on where it was) or of captures."""
    scenes: SyntheticScenes = SyntheticScenes()
    captures: bool = False
    """Render every mesh of --scenes.meshes from 25 EscherNet views in studio light, as a transforms.json capture
    (with --scenes.depth and depth maps)."""
    workers: int = 1
    """Processes."""
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(SynthesizeOptions, argv, "synthesize")
    started = time.perf_counter()
    if options.captures:
        made = _captures(options)
    else:
        made = write_shards(options.scenes, options.out, workers=options.workers)
        ShardFolder(options.out)  # leaves the catalogue that runs start from
    seconds = time.perf_counter() - started
    print(f"{made} views in {seconds:.1f} s ({made / seconds:.0f} a second) in {options.out}")
    if options.json:
        print_json({"out": str(options.out), "views": made, "seconds": seconds})


def write_shards(scenes: SyntheticScenes, folder: Path, *, workers: int) -> int:
    """Render the shards that are not there yet; returns the number of views made."""
    missing = [n for n in range(scenes.num_shards) if not shard_path(folder, n).with_suffix(".index.json").exists()]
    if workers <= 1:
        total = sum(min(scenes.scenes_per_shard, scenes.scenes - n * scenes.scenes_per_shard) for n in missing)
        return scenes.views * sum(
            1 for _ in track(write_next_shards(scenes, folder, missing), "rendering", total=total)
        )
    jobs = [(scenes, folder, [shard]) for shard in missing]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return scenes.views * sum(track(pool.imap_unordered(_work, jobs), "rendering", total=len(jobs)))


def _work(job: tuple[SyntheticScenes, Path, list[int]]) -> int:
    torch.set_num_threads(1)
    return sum(1 for _ in write_next_shards(*job))


def _captures(options: SynthesizeOptions) -> int:
    scenes = options.scenes
    if scenes.meshes is None:
        raise KaleidosceneError("--captures needs meshes: give --scenes.meshes FOLDER.")
    paths = list_meshes(scenes.meshes)
    stems = [path.stem for path in paths]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise KaleidosceneError(
            f"{scenes.meshes}: two meshes are named {twice!r}; captures are named after their meshes."
        )
    if there := next((stem for stem in stems if (options.out / stem).exists()), None):
        raise KaleidosceneError(f"{options.out / there}: is there already; give another folder.")
    rasteriser = Rasteriser(scenes.image_size, supersampling=4)
    for number, path in enumerate(track(paths, "rendering")):
        cameras = sample_viewpoints("eschernet", 25, scenes.image_size, seeded(scenes.seed, number))
        renders = rasteriser.render(fit_unit_box(read_mesh(path)), cameras, Lighting(), depth=scenes.depth)
        with whole_folder(options.out / path.stem, overwrite=False) as folder:
            write_capture(folder, renders.rgba, cameras, depth=renders.depth)
    return 25 * len(paths)


def write_capture(folder: Path, rgba: np.ndarray, cameras: Cameras, *, depth: np.ndarray | None = None) -> None:
    """Write RGBA views and transforms.json, and depth maps (world units, 0 where there is nothing) in 16 bits."""
    names = [f"images/{view:03d}.png" for view in range(len(rgba))]
    (folder / "images").mkdir()
    for name, image in zip(names, rgba, strict=True):
        Image.fromarray(image).save(folder / name)
    depths, unit = None, 1.0
    if depth is not None:
        unit = float(depth.max()) / _DEPTH_LEVELS
        depths = [f"depth/{view:03d}.png" for view in range(len(rgba))]
        (folder / "depth").mkdir()
        for name, plane in zip(depths, depth, strict=True):
            Image.fromarray(np.round(plane / unit).astype(np.uint16)).save(folder / name)
    transforms_json.write(folder / "transforms.json", names, cameras, centred="object", depths=depths, depth_unit=unit)
