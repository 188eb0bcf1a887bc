"""Write a camera path through some views of a capture, as `kaleidoscene render --camera-path` takes it.

python examples/02_write_a_trajectory.py CAPTURE PATH.json [KEYFRAME ...]
"""

import sys
from pathlib import Path

import torch

import kaleidoscene
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at


def main(path: Path, out: Path, keyframes: list[int]) -> None:
    capture = kaleidoscene.read_capture(path)
    # Smoothly through views of the capture, as a photographer would walk.
    walk = kaleidoscene.trajectories.spline(capture.select(keyframes).cameras, frames=30)
    # Then half a turn about the middle, starting where the walk ends.
    start = kaleidoscene.trajectories.View.of(walk, centre=capture.origin(), up=capture.up(), start=-1)
    turn = kaleidoscene.trajectories.orbit(start, frames=20, degrees=180.0)
    # A path is a tensor of poses: any camera can stand in it.
    last = turn.centres[-1]
    above = look_at(last + 0.2 * start.distance * capture.up(), capture.origin(), capture.up())
    single = Cameras(above[None], turn.intrinsics[-1:], turn.image_size)
    whole = Cameras.concatenate([walk, turn, single])
    kaleidoscene.write_camera_path(out, whole, fps=24.0)
    length = torch.linalg.norm(whole.centres.diff(dim=0), dim=-1).sum()
    print(f"wrote {out}: {len(whole)} frames, {length:.2f} world units long")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(word) for word in sys.argv[3:]] or [0, 1, 2])
