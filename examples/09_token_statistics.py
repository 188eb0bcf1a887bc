"""Measure the tokens of a 3DRAE checkpoint over training scenes and write the statistics into its folder.

    python examples/09_token_statistics.py RUN_OR_CHECKPOINT SHARDS [--batches 64]

Diffusion over the tokens (3DDiT) is trained on tokens of mean 0 and variance 1.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.sampling import SINGLE
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.rae3d.recipes import rae3d_nano
from kaleidoscene.families.rae3d.statistics import FILE, TokenStatistics
from kaleidoscene.families.rae3d.system import load_system
from kaleidoscene.families.rae3d.task import tokens_of


def main(run: str, shards: Path, batches: int) -> None:
    folder = resolve(run)
    system = load_system(folder)
    scenes = ShardFolder(shards)
    usual = rae3d_nano().data
    most = min(usual.sampling.views, scenes.fewest_views)
    targets = min(usual.sampling.max_targets or most, most - 1)
    sampling = SINGLE if most == 1 else replace(usual.sampling, views=most, max_targets=targets)
    size = min(usual.batch_size, len(scenes))
    data = replace(usual, image_size=system.image_size, depth=False, batch_size=size, sampling=sampling)
    views = ViewBatches(scenes, data)

    def tokens() -> Iterator[torch.Tensor]:
        for number in range(batches):
            yield tokens_of(system.autoencoder.model, views[number], features=system.autoencoder.features)

    with torch.no_grad():
        TokenStatistics.of(tokens()).save(folder)
    print(f"wrote {folder / FILE} from {batches * data.batch_size} scenes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("shards", type=Path)
    parser.add_argument("--batches", type=int, default=64)
    options = parser.parse_args()
    try:
        main(options.run, options.shards, options.batches)
    except KaleidosceneError as error:
        raise SystemExit(str(error)) from error
