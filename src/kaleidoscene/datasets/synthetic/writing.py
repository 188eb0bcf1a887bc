"""Synthetic scenes rendered ahead: shards for training, captures for tests."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from kaleidoscene.captures.conversion.rendered import write_rendered_capture
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.prerender import (
    SceneMaker,
    SyntheticScenes,
    claim_folder,
    list_meshes,
    placed,
    read_photographs,
    shard_path,
    write_next_shards,
)
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.viewpoints import sample_viewpoints
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import whole_folder
from kaleidoscene.randomness import seeded

CAPTURE_VIEWS = 25


def write_synthetic_shards(scenes: SyntheticScenes, folder: Path, *, workers: int) -> int:
    """Render the shards that are not there yet; returns the number of views made.

    Raises:
        KaleidosceneError: Films are asked for with depth, or a mesh is damaged.
    """
    if scenes.clips and scenes.depth:
        raise KaleidosceneError("--scenes.clips and --scenes.depth: films are stored without depth.")
    if workers < 1:
        raise KaleidosceneError(f"--workers must be at least 1, got {workers}.")
    missing = [n for n in range(scenes.num_shards) if not shard_path(folder, n).with_suffix(".index.json").exists()]
    if workers <= 1:
        total = sum(min(scenes.scenes_per_shard, scenes.scenes - n * scenes.scenes_per_shard) for n in missing)
        return scenes.views * sum(
            1 for _ in track(write_next_shards(scenes, folder, missing), "rendering", total=total)
        )
    SceneMaker(scenes)  # what cannot be rendered leaves no folder behind
    claim_folder(scenes, folder)
    jobs = [(scenes, folder, [shard]) for shard in missing]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        return scenes.views * sum(track(pool.imap_unordered(_work, jobs), "rendering", total=len(jobs)))


def _work(job: tuple[SyntheticScenes, Path, list[int]]) -> int:
    torch.set_num_threads(1)
    return sum(1 for _ in write_next_shards(*job))


def write_synthetic_captures(scenes: SyntheticScenes, out: Path) -> int:
    """Render every mesh from 25 views in studio light, as a capture each; returns the number of views.

    Views are EscherNet's, unless rooms or lenses are asked for.

    Raises:
        KaleidosceneError: There are no meshes, two have one name, or a capture is there already.
    """
    if scenes.meshes is None:
        raise KaleidosceneError("--captures needs meshes: give --scenes.meshes FOLDER.")
    paths = list_meshes(scenes.meshes)
    stems = [path.stem for path in paths]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise KaleidosceneError(
            f"{scenes.meshes}: two meshes are named {twice!r}; captures are named after their meshes."
        )
    if there := next((stem for stem in stems if (out / stem).exists()), None):
        raise KaleidosceneError(f"{out / there}: is there already; give another folder.")
    rasteriser = Rasteriser(scenes.image_size, supersampling=4)
    photographs = read_photographs(scenes.photographs) if scenes.photographs else []
    for number, path in enumerate(track(paths, "rendering")):
        parts, generator = fit_unit_box(read_mesh(path)), seeded(scenes.seed, number)
        if scenes.room_share or scenes.lenses:
            draw = np.random.default_rng([scenes.seed, number])
            parts, cameras = placed(parts, scenes, photographs, CAPTURE_VIEWS, draw, generator)
        else:
            cameras = sample_viewpoints("eschernet", CAPTURE_VIEWS, scenes.image_size, generator)
        renders = rasteriser.render(parts, cameras, Lighting(), depth=scenes.depth)
        with whole_folder(out / path.stem, overwrite=False) as folder:
            is_room = bool((renders.rgba[..., 3] == 255).all())  # walls everywhere
            centred = "scene" if is_room else "object"
            write_rendered_capture(folder, renders.rgba, cameras, depth=renders.depth, centred=centred)
    return CAPTURE_VIEWS * len(paths)
