"""What reconstructions write besides their numbers: turntables, clouds, and the bar while they work."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.captures.ply import write_ply
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.upright import rotation_between
from kaleidoscene.images.files import write_image
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.rendering.outputs import write_video

_DRAWN = 256


def write_turntable(
    folder: Path, path: Cameras, draw: Callable[[Cameras], tuple[Tensor, Tensor]], *, fps: float,
    on_frame: Callable[[int, int], None],
) -> None:  # fmt: skip
    """``turntable.mp4``: two pictures side by side from each camera of a path.

    Args:
        folder: Where to.
        path: Cameras ``(frames,)``.
        draw: Makes them of what one camera sees: coloured and lit.
        fps: Of the video.
        on_frame: Progress.
    """
    pictures = folder / "turntable"
    pictures.mkdir()
    names = []
    for number in range(len(path)):
        names.append(pictures / f"{number:04d}.png")
        write_image(names[-1], torch.cat(draw(path[number]), dim=-1))
        on_frame(number + 1, len(path))
    write_video(folder / "turntable.mp4", names, fps=fps)
    shutil.rmtree(pictures)


def check_libraries() -> None:
    """Raise if a cloud could not be written in the end.

    Raises:
        KaleidosceneError: trimesh is not there.
    """
    try:
        import skimage  # noqa: F401, PLC0415  extras
        import trimesh  # noqa: F401, PLC0415
    except ImportError as error:
        raise KaleidosceneError(
            f"GLB files and meshes need trimesh and scikit-image ({error}): pip install 'kaleidoscene[reconstruction]'."
        ) from error


def write_cloud(folder: Path, cloud: SurfacePoints, up: Float[Tensor, " 3"]) -> None:
    """A cloud as ``cloud.ply`` in its own world, and as ``cloud.glb`` whose y axis is up, as viewers expect.

    Raises:
        KaleidosceneError: trimesh is not there.
    """
    check_libraries()
    import trimesh  # noqa: PLC0415  an extra

    write_ply(
        folder / "cloud.ply",
        PointCloud(cloud.positions, cloud.bytes, cloud.normals, cloud.confidence),
    )
    turn = rotation_between(up.to(cloud.positions), cloud.positions.new_tensor([0.0, 1.0, 0.0]))
    points: Any = trimesh.PointCloud((cloud.positions @ turn.T).numpy(), cloud.bytes.numpy())
    points.export(folder / "cloud.glb")


def enlarged(cameras: Cameras) -> Cameras:
    """The same cameras with more pixels."""
    h, w = cameras.image_size
    return cameras.resize(_DRAWN, round(w * _DRAWN / h / 2) * 2)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work; yields what is called with a kind, what is done and the total."""
    columns = TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(kind: str, done: int, total: int) -> None:
            if kind not in tasks:
                tasks[kind] = bar.add_task(kind, total=total)
            bar.update(tasks[kind], completed=done)

        yield advance
