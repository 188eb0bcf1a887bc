"""Milliseconds a view while looking around in the window: ``python -m benchmarks.window [CAPTURE] [--threads 1 2]``."""

import argparse
from pathlib import Path
from statistics import median

import torch

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.geometry.trajectories import orbit
from kaleidoscene.viewer.live import LiveScene

BUS = Path(__file__).parents[1] / "examples" / "captures" / "school_bus"


def main(path: Path, threads: list[int], models: list[str], references: int) -> None:
    capture = read_capture(path)
    poses = orbit(capture, 24).world_from_cam
    for model in models:
        scene = LiveScene(load(model), capture, list(range(references)))
        for count in threads:
            torch.set_num_threads(count)
            scene.view(poses[0])
            for kind, look in {"view": scene.view, **({"draft": scene.draft} if scene.drafts else {})}.items():
                taken = [1000 * look(pose).seconds for pose in poses]
                said = f"median {median(taken):.0f} ms, longest {max(taken):.0f} ms"
                print(f"{model}, {kind}, {count} threads: {said}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", type=Path, nargs="?", default=BUS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", default=["default", "rng"])
    parser.add_argument("--references", type=int, default=3)
    options = parser.parse_args()
    main(options.capture, options.threads, options.models, options.references)
