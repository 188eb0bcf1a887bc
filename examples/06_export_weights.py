"""Make a small checkpoint of a run: averaged weights in half precision, other sampling defaults if wanted.

    python examples/06_export_weights.py RUN OUT [--steps 2] [--guidance 1.0]
    python examples/06_export_weights.py RUN OUT --also OTHER 0.25 --also ANOTHER 0.25

The second takes the mean of the weights of several checkpoints of one network, half of RUN here ("model soup",
Wortsman et al. 2022: runs that start from the same weights often are better together than any of them).
This is how the folders of src/kaleidoscene/weights were made; RUN may be of any family.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from kaleidoscene.families.checkpoints import read_weights, resolve, write_checkpoint

_USE = ("sampling", "render_plan", "background", "held_out_psnr")


def read_description(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def network_of(folder: Path) -> dict[str, Any]:
    """Everything that a checkpoint says of itself but how views are drawn with it."""
    settings = read_description(folder)["settings"]
    return {name: value for name, value in settings.items() if name not in _USE}


def mean_weights(run: Path, others: list[tuple[Path, float]]) -> dict[str, torch.Tensor]:
    """Weights of ``run`` and others, these with their shares and that with what is left of 1."""
    left = 1 - sum(share for _, share in others)
    if left < 0 or any(share < 0 for _, share in others):
        raise SystemExit("Shares must be at least 0 and at most 1 together.")
    mean = {name: left * tensor.float() for name, tensor in read_weights(run).items()}
    for folder, share in others:
        if network_of(folder) != network_of(run):
            raise SystemExit(f"{folder}: another network, image size or lens than {run}.")
        for name, tensor in read_weights(folder).items():
            mean[name] += share * tensor.float()
    return mean


def main(run: str, out: Path, steps: int | None, guidance: float | None, also: list[tuple[str, str]]) -> None:
    folder = resolve(run)
    description = read_description(folder)
    sampling = description["settings"].get("sampling", {})
    if not sampling and (steps is not None or guidance is not None):
        raise SystemExit(f"{folder}: family {description['family']} samples nothing: no --steps, no --guidance.")
    if steps is not None:
        sampling["schedule"]["steps"] = steps
    if guidance is not None:
        sampling["guidance"] = guidance
    weights = mean_weights(folder, [(resolve(other), float(share)) for other, share in also])
    write_checkpoint(out, description, weights, dtype=torch.float16)
    size = (out / "model.safetensors").stat().st_size
    print(f"wrote {out} from {folder}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--also", nargs=2, action="append", default=[], metavar=("CHECKPOINT", "SHARE"))
    options = parser.parse_args()
    main(options.run, options.out, options.steps, options.guidance, options.also)
