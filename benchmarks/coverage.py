"""What new views come out at, by how much of them references show: the numbers that ``render`` tells beforehand.

    python -m benchmarks.coverage CAPTURES --model places [--references 1 2 3 5 9]

CAPTURES is what ``kaleidoscene synthesize --captures`` writes, of scenes that nothing was trained or chosen on but for
this. Views from 10 on are targets. The thirds of the views that are shown least, more and most make three bands, fewer
where many are shown whole; each line is one of ``held_out_psnr`` in the settings of weights: largest share, quartiles
of PSNR.
"""

import argparse
import itertools
from pathlib import Path

import torch

import kaleidoscene
from kaleidoscene.evaluation.held_out import read_objects
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.geometry.coverage import coverage

FIRST_TARGET, BANDS = 10, 3


def main(captures: Path, name: str, counts: list[int]) -> None:
    system = kaleidoscene.load(name).system
    shares, scores = [], []
    for thing in read_objects(captures, system):
        targets = list(range(FIRST_TARGET, len(thing.cameras)))
        for count in counts:
            given = list(range(count))
            scene = system.renderer.encode(thing.images[None, :count], thing.cameras[given].reshape(1, count))
            asked = thing.cameras[targets].reshape(1, len(targets))
            made = system.renderer.render(scene, asked, seeds=targets, independent=True).images[0]
            shares.append(coverage(thing.cameras[given], thing.cameras[targets], torch.zeros(3)))
            scores.append(psnr(made, thing.images[targets]))
    share, score = torch.cat(shares), torch.cat(scores).double()
    thirds = [round(float(share.quantile(band / BANDS)), 1) for band in range(1, BANDS)]
    limits = sorted({0.0, *thirds, 1.0})
    for low, high in itertools.pairwise(limits):
        inside = score[(share > low if low else share >= 0) & (share <= high)]
        quartiles = inside.quantile(inside.new_tensor([0.25, 0.75])).tolist()
        print(f"[{high:.1f}, {quartiles[0]:.1f}, {quartiles[1]:.1f}]  of {len(inside)} views", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path)
    parser.add_argument("--model", default="places")
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 3, 5, 9])
    options = parser.parse_args()
    main(options.captures, options.model, options.references)
