"""Captures of our own in the forms that users have: the rendered room and the school bus, of which all is known.

Each writer follows the definition of its format, not the code that reads it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.distortion import Distortion

REPOSITORY = Path(__file__).parents[1]
ROOM = REPOSITORY / "tests" / "room"
BUS = REPOSITORY / "examples" / "captures" / "school_bus"
ROOM_DEPTH_UNIT = 0.0005
LENS = Distortion.opencv(0.06, -0.08, -0.001, 0.0005)
_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def pictures(source: Path) -> list[Path]:
    return sorted((source / "images").iterdir())


def truth(source: Path = ROOM) -> Cameras:
    """Cameras of the renderer, in double precision."""
    return read_capture(source).exact_cameras.to(torch.float64)


def halved_bus(folder: Path) -> Path:
    """The school bus of the examples at half its size, 128 pixels."""
    document = json.loads((BUS / "transforms.json").read_text())
    for place in (document, *document["frames"]):
        place.update({key: place[key] / 2 for key in ("fl_x", "fl_y", "cx", "cy")}, w=128, h=128)
    (folder / "images").mkdir(parents=True)
    (folder / "transforms.json").write_text(json.dumps(document))
    for path in pictures(BUS):
        Image.open(path).resize((128, 128), Image.Resampling.BOX).save(folder / "images" / path.name)
    return folder


def _world_from_cam(cameras: Cameras) -> np.ndarray:
    return cameras.world_from_cam.double().numpy()


def _cam_from_world(cameras: Cameras) -> np.ndarray:
    return np.linalg.inv(_world_from_cam(cameras))


def bent(image: np.ndarray, intrinsics: np.ndarray, lens: Distortion) -> np.ndarray:
    """A pinhole's picture as a lens takes it: each pixel shows the ray that the lens puts there (by iteration)."""
    h, w = image.shape[:2]
    y, x = np.mgrid[:h, :w] + 0.5
    wanted = np.stack([(x - intrinsics[0, 2]) / intrinsics[0, 0], (y - intrinsics[1, 2]) / intrinsics[1, 1]], -1)
    rays = torch.from_numpy(wanted)
    for _ in range(30):
        rays = rays + torch.from_numpy(wanted) - lens.apply(rays)
    rays = rays.numpy()
    u, v = rays[..., 0] * intrinsics[0, 0] + intrinsics[0, 2], rays[..., 1] * intrinsics[1, 1] + intrinsics[1, 2]
    grid = torch.from_numpy(np.stack([2 * u / w - 1, 2 * v / h - 1], -1))[None]
    tensor = torch.from_numpy(image.astype(np.float64)).movedim(-1, 0)[None]
    out = torch.nn.functional.grid_sample(tensor, grid, align_corners=False, padding_mode="border")[0]
    return out.movedim(0, -1).round().clamp(0, 255).to(torch.uint8).numpy()


def nerfstudio(folder: Path, views: int | None = None) -> Cameras:
    """The room through a lens, as nerfstudio has phone captures."""
    cameras = truth()[: views or 24]
    k = cameras.intrinsics[0].numpy()
    (folder / "images").mkdir(parents=True)
    frames = []
    for path, pose in zip(pictures(ROOM), _world_from_cam(cameras), strict=False):
        image = bent(np.asarray(Image.open(path)), k, LENS)
        Image.fromarray(image).save(folder / "images" / path.name, quality=95, subsampling=0)
        frames.append({"file_path": f"images/{path.name}", "transform_matrix": (pose @ _OPENGL).tolist()})
    h, w = cameras.image_size
    k1, k2, p1, p2 = LENS.coefficients
    document = {
        "camera_model": "OPENCV", "fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "w": w, "h": h,
        "k1": k1, "k2": k2, "p1": p1, "p2": p2, "frames": frames,
    }  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps(document))
    return cameras


def blender(folder: Path) -> Cameras:
    """The bus as NeRF-synthetic has its objects: RGBA, one angle, test views beside the training views."""
    cameras = truth(BUS)
    for split, views in (("train", range(0, 20)), ("test", range(20, 27))):
        (folder / split).mkdir(parents=True)
        frames = []
        for number in views:
            shutil.copyfile(pictures(BUS)[number], folder / split / f"r_{number}.png")
            matrix = (_world_from_cam(cameras)[number] @ _OPENGL).tolist()
            frames.append({"file_path": f"./{split}/r_{number}", "rotation": 0.01, "transform_matrix": matrix})
        angle = 2 * math.atan(64 / 140)
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return cameras[:20]


def eschernet(folder: Path) -> Cameras:
    """The bus as the GSO-30 renders lie: a 3x4 world-to-camera matrix in Blender's axes beside each picture."""
    cameras, folder = truth(BUS)[:25], folder / "render_mvs_25" / "model"
    folder.mkdir(parents=True)
    for number, matrix in enumerate(_cam_from_world(cameras)):
        shutil.copyfile(pictures(BUS)[number], folder / f"{number:03d}.png")
        np.save(folder / f"{number:03d}.npy", (_OPENGL @ matrix)[:3])
    return cameras


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """``w x y z``, by the eigenvector of Bar-Itzhack's matrix."""
    r = rotation
    k = np.array([
        [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0], [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
        [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
        [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
    ]) / 3  # fmt: skip
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    return np.array([w, x, y, z]) * np.sign(w)


def room_points(cameras: Cameras, count: int = 400) -> np.ndarray:
    """Places on the surfaces of the room, from its depth maps."""
    points = []
    for path in sorted((ROOM / "depth").iterdir()):
        number = int(path.stem)
        depth = np.asarray(Image.open(path)).astype(np.float64) * ROOM_DEPTH_UNIT
        draw = np.random.default_rng(number)
        v, u = draw.integers(0, depth.shape[0], count), draw.integers(0, depth.shape[1], count)
        k = cameras.intrinsics[number].double().numpy()
        rays = np.stack([(u + 0.5 - k[0, 2]) / k[0, 0], (v + 0.5 - k[1, 2]) / k[1, 1], np.ones(count)], -1)
        local = rays * depth[v, u][:, None]
        pose = _world_from_cam(cameras)[number]
        points.append(local @ pose[:3, :3].T + pose[:3, 3])
    return np.concatenate(points)


def colmap_text(folder: Path, *, lens: Distortion | None = LENS) -> Cameras:
    """The room as COLMAP's text files; with a lens OPENCV, otherwise PINHOLE."""
    cameras, sparse = truth(), folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    (folder / "images").mkdir()
    k, (h, w) = cameras.intrinsics[0].numpy(), cameras.image_size
    pinhole = f"{k[0, 0]} {k[1, 1]} {k[0, 2]} {k[1, 2]}"
    coefficients = "" if lens is None else " " + " ".join(map(str, lens.coefficients))
    kind = "PINHOLE" if lens is None else "OPENCV"
    (sparse / "cameras.txt").write_text(f"# a comment\n7 {kind} {w} {h} {pinhole}{coefficients}\n")
    lines = []
    for number, (path, matrix) in enumerate(zip(pictures(ROOM), _cam_from_world(cameras), strict=True), 1):
        image = np.asarray(Image.open(path))
        image = image if lens is None else bent(image, k, lens)
        Image.fromarray(image).save(folder / "images" / path.name, quality=95, subsampling=0)
        numbers = [*_quaternion(matrix[:3, :3]), *matrix[:3, 3]]
        lines += [f"{number} {' '.join(map(repr, map(float, numbers)))} 7 {path.name}", ""]
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    points = room_points(cameras)
    rows = [f"{n} {x} {y} {z} 200 90 10 0.5" for n, (x, y, z) in enumerate(points.tolist(), 1)]
    (sparse / "points3D.txt").write_text("\n".join(rows) + "\n")
    return cameras


def colmap_binary(folder: Path) -> Cameras:
    """The same without a lens in COLMAP's binary files, written by COLMAP's own library."""
    import pycolmap

    cameras = colmap_text(folder, lens=None)
    sparse = folder / "sparse" / "0"
    pycolmap.Reconstruction(str(sparse)).write_binary(str(sparse))
    for name in ("cameras", "images", "points3D"):
        (sparse / f"{name}.txt").unlink()
    return cameras


def llff(folder: Path) -> Cameras:
    """The room as LLFF has forward-facing places: sizes and focal length of originals four times as large."""
    cameras, (h, w) = truth(), (288, 384)
    (folder / "images_4").mkdir(parents=True)
    rows = []
    for path, pose, k in zip(pictures(ROOM), _world_from_cam(cameras), cameras.intrinsics.tolist(), strict=True):
        shutil.copyfile(path, folder / "images_4" / path.name)
        right, down, forward, centre = pose[:3].T
        hwf = np.array([4 * h, 4 * w, 4 * k[0][0]])
        rows.append(np.concatenate([np.stack([down, right, -forward, centre, hwf], 1).flatten(), [0.6, 6.0]]))
    np.save(folder / "poses_bounds.npy", np.stack(rows))
    return cameras


def dtu(folder: Path) -> Cameras:
    """The room as IDR prepares DTU's scans: projections of millimetres, and the sphere that is the world."""
    cameras = truth()
    (folder / "image").mkdir(parents=True)
    scale = np.diag([800.0, 800.0, 800.0, 1.0])
    scale[:3, 3] = (30.0, -20.0, 500.0)
    arrays = {}
    for number, (path, matrix) in enumerate(zip(pictures(ROOM), _cam_from_world(cameras), strict=True)):
        shutil.copyfile(path, folder / "image" / f"{number:06d}.jpg")
        world = np.eye(4)
        world[:3] = cameras.intrinsics[number].numpy() @ matrix[:3] @ np.linalg.inv(scale)
        arrays |= {f"world_mat_{number}": world, f"scale_mat_{number}": scale}
    np.savez(folder / "cameras.npz", **arrays)
    return cameras


def co3d(folder: Path) -> Cameras:
    """The room as the samples of CO3D that PoseDiffusion ships: PyTorch3D's row vectors, axes left, up, forward."""
    cameras = truth()
    folder.mkdir(parents=True)
    flip, rotations, translations, focal = np.diag([-1.0, -1.0, 1.0]), [], [], []
    for number, (path, matrix) in enumerate(zip(pictures(ROOM), _cam_from_world(cameras), strict=True)):
        shutil.copyfile(path, folder / f"frame{number:06d}.jpg")
        rotations.append((flip @ matrix[:3, :3]).T)
        translations.append(flip @ matrix[:3, 3])
        focal.append([cameras.intrinsics[number, axis, axis].item() / (288 / 2) for axis in (0, 1)])
    np.savez(folder / "gt_cameras.npz", gtR=np.stack(rotations), gtT=np.stack(translations), gtFL=np.array(focal))
    return cameras


def seven_scenes(folder: Path) -> Cameras:
    """The room as 7-Scenes has sequences: a 4x4 pose a frame, depth in millimetres."""
    cameras = truth()
    folder.mkdir(parents=True)
    for number, (path, pose) in enumerate(zip(pictures(ROOM), _world_from_cam(cameras), strict=True)):
        Image.open(path).save(folder / f"frame-{number:06d}.color.png", compress_level=1)
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose, delimiter="\t")
        depth = ROOM / "depth" / f"{number:03d}.png"
        if depth.is_file():
            metres = np.asarray(Image.open(depth)) * ROOM_DEPTH_UNIT
            Image.fromarray(np.round(1000 * metres).astype(np.uint16)).save(folder / f"frame-{number:06d}.depth.png")
    np.savetxt(folder / "camera-intrinsics.txt", cameras.intrinsics[0].numpy())
    return cameras


def scannet(folder: Path) -> Cameras:
    """The room as ScanNet's exporter writes a scene."""
    cameras = truth()
    for name in ("color", "pose", "depth", "intrinsic"):
        (folder / name).mkdir(parents=True)
    for number, (path, pose) in enumerate(zip(pictures(ROOM), _world_from_cam(cameras), strict=True)):
        shutil.copyfile(path, folder / "color" / f"{number}.jpg")
        np.savetxt(folder / "pose" / f"{number}.txt", pose)
    four = np.eye(4)
    four[:3, :3] = cameras.intrinsics[0].numpy()
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", four)
    return cameras


def re10k_lines(cameras: Cameras) -> list[str]:
    """A camera file of RealEstate10K: microseconds, lens over sides, two zeros, camera from world."""
    h, w = cameras.image_size
    lines = ["https://www.youtube.com/watch?v=none"]
    for number, (k, matrix) in enumerate(zip(cameras.intrinsics.tolist(), _cam_from_world(cameras), strict=True)):
        lens = [k[0][0] / w, k[1][1] / h, k[0][2] / w, k[1][2] / h, 0, 0]
        lines.append(" ".join(map(repr, [100_000 * number, *lens, *map(float, matrix[:3].flatten())])))
    return lines


def re10k(folder: Path) -> Cameras:
    """The room with a camera file beside its folder of frames."""
    cameras = truth()
    folder.mkdir(parents=True)
    for number, path in enumerate(pictures(ROOM)):
        Image.open(path).save(folder / f"{100_000 * number}.png", compress_level=1)
    folder.with_suffix(".txt").write_text("\n".join(re10k_lines(cameras)))
    return cameras


def video(path: Path, views: int = 24) -> None:
    """A walk through the room, H.264, ten frames a second."""
    film(path, [np.asarray(Image.open(picture)) for picture in pictures(ROOM)[:views]])


def pan(path: Path, frames: int) -> None:
    """A slow pan over one picture of the room: no cut in it."""
    picture = np.asarray(Image.open(pictures(ROOM)[8]))
    film(path, [picture[10:250, 2 * n : 2 * n + 320] for n in range(frames)])


def film(path: Path, frames: list[np.ndarray]) -> None:
    """Pictures one after the other, H.264, ten a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "16"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def photographs(folder: Path, views: int = 6, *, equivalent: int | None = None) -> list[Path]:
    """Pictures of the room without cameras; with a focal length of so many millimetres in their EXIF."""
    folder.mkdir(parents=True)
    for path in pictures(ROOM)[:views]:
        image, exif = Image.open(path), Image.Exif()
        if equivalent is not None:
            exif.get_ifd(0x8769)[0xA405] = equivalent
        image.save(folder / path.name, quality=95, subsampling=0, exif=exif)
    return sorted(folder.iterdir())


def object_parts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and picture of a pot: a ring of quads about the z axis that widens to its rim."""
    turn, height = np.meshgrid(np.linspace(0, 2 * np.pi, 17), np.linspace(0, 1.3, 4), indexing="ij")
    radius = 0.4 + 0.15 * height
    vertices = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], -1).reshape(-1, 3)
    i, j = (index.ravel() for index in np.meshgrid(np.arange(16), np.arange(3), indexing="ij"))
    corner = 4 * i + j
    faces = np.concatenate([
        np.stack([corner, corner + 4, corner + 5], 1), np.stack([corner, corner + 5, corner + 1], 1)
    ])  # fmt: skip
    picture = np.random.default_rng(1).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return vertices.astype(np.float32), faces, picture


def object_file(path: Path) -> None:
    """The pot as a GLB with its picture in it."""
    import trimesh

    vertices, faces, picture = object_parts()
    turn, height = np.meshgrid(np.linspace(0, 1, 17), np.linspace(0, 1, 4), indexing="ij")
    uv = np.stack([turn, height], -1).reshape(-1, 2)
    visual = trimesh.visual.TextureVisuals(uv=uv, image=Image.fromarray(picture))
    trimesh.Trimesh(vertices, faces, visual=visual, process=False).export(path)


FORMATS: dict[str, tuple[Callable[[Path], Cameras], str]] = {
    "nerfstudio": (nerfstudio, "nerfstudio"), "blender": (blender, "blender"), "eschernet": (eschernet, "eschernet"),
    "colmap-text": (colmap_text, "colmap"), "colmap-binary": (colmap_binary, "colmap"), "llff": (llff, "llff"),
    "dtu": (dtu, "dtu"), "co3d": (co3d, "co3d"), "7scenes": (seven_scenes, "7scenes"),
    "scannet": (scannet, "scannet"), "re10k": (re10k, "re10k"),
}  # fmt: skip
"""By a name of ours: what writes it, and the name the registry has for it."""
