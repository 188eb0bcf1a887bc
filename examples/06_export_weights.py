"""Make a small checkpoint of a run: averaged weights in half precision, other sampling defaults if wanted.

    python examples/06_export_weights.py RUN OUT [--steps 2] [--guidance 1.0]

This is how src/anyview/weights/default was made.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from anyview.api import resolve
from anyview.families.kaleido.checkpoint import read_settings, read_weights, save_model


def main(run: str, out: Path, steps: int | None, guidance: float | None) -> None:
    folder = resolve(run)
    settings = read_settings(folder)
    sampling = settings.sampling
    if steps is not None:
        sampling = replace(sampling, schedule=replace(sampling.schedule, steps=steps))
    if guidance is not None:
        sampling = replace(sampling, guidance=guidance)
    save_model(out, replace(settings, sampling=sampling), read_weights(folder), dtype=torch.float16)
    size = (out / "model.safetensors").stat().st_size
    print(f"wrote {out} from {folder}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    options = parser.parse_args()
    main(options.run, options.out, options.steps, options.guidance)
