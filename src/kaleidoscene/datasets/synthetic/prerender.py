"""Render scenes ahead into shards: scans and procedural objects, from random cameras in random light."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from kaleidoscene.choices import check_range
from kaleidoscene.datasets.damage import allowed_damage
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import TexturedMesh, fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.procedural import random_object
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.rooms import moved_to_focus, random_room, sample_inside
from kaleidoscene.datasets.synthetic.viewpoints import (
    ViewpointKind,
    random_angles,
    sample_path,
    sample_viewpoints,
    shifted,
)
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import random_rotation
from kaleidoscene.images.files import read_image
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.serialisation import to_plain, write_aside

# Share of the scenes of many lenses whose principal points are moved.
_OFF_CENTRE = 0.2


@dataclass(frozen=True, kw_only=True)
class SyntheticScenes:
    """What to render ahead.

    Every scene is made from its own number alone, so that shards can be made in any order, in parallel, or again.
    """

    image_size: tuple[int, int] = (64, 64)
    views: int = 12
    scenes: int = 1024
    scenes_per_shard: int = 256
    meshes: Path | None = None
    """Folder of GLB or OBJ files; None renders procedural objects only."""
    photographs: Path | None = None
    """Folder of JPEG or PNG images as textures of procedural objects."""
    mesh_share: float = 0.5
    """Share of the scenes that show a mesh of ``meshes``."""
    wide_share: float = 0.35
    """Share of the scenes with the wide camera distribution."""
    near_share: float = 0.0
    """Share of the scenes with cameras near each other; the others have EscherNet's distribution."""
    room_share: float = 0.0
    """Share of the scenes that stand in a room or outdoors, with cameras inside (``rooms.py``); the others have nothing
    behind them."""
    lenses: tuple[float, float] | None = None
    """Least and greatest field of view in degrees; some scenes mix them, and some have their middle off the image's.
    None: 49.1 for all."""
    exclude: tuple[str, ...] = ()
    """Names of meshes (file names without ending) that are kept for validation."""
    damaged_share: float = 0.0
    """Share of the meshes that may be unreadable or without faces or texture coordinates: others are drawn in their
    place, and damaged-meshes.txt names them. Above it the work stops."""
    depth: bool = False
    clips: bool = False
    """Store films: the camera goes around the object, and frames are told apart by time in place of cameras."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "views", "scenes", "scenes_per_shard")
        check_range(self, 4, 8192, "image_size")
        check_range(self, 0, 1, "mesh_share", "wide_share", "near_share", "damaged_share", "room_share")
        check_range(self, 0, 2**62, "seed")
        if self.lenses is not None and not 5 <= self.lenses[0] <= self.lenses[1] <= 120:
            raise ValueError(f"lenses must be two angles from 5 to 120 degrees, the lesser first, got {self.lenses}.")
        if self.clips and (self.room_share or self.lenses):
            raise ValueError("clips are films of objects by one lens: leave room_share and lenses out.")
        if self.wide_share + self.near_share > 1:
            raise ValueError(f"wide_share and near_share are {self.wide_share:g} and {self.near_share:g}, above 1.")

    @property
    def num_shards(self) -> int:
        """Shards to write."""
        return -(-self.scenes // self.scenes_per_shard)


class SceneMaker:
    """Renders the scenes of a :class:`SyntheticScenes` by number; meshes are read once and kept."""

    def __init__(self, config: SyntheticScenes) -> None:
        self.config = config
        self.rasteriser = Rasteriser(config.image_size, supersampling=4 if max(config.image_size) <= 64 else 3)
        self.mesh_paths = without(list_meshes(config.meshes), config.exclude) if config.meshes else []
        self.photographs = read_photographs(config.photographs) if config.photographs else []
        self._meshes: dict[Path, list[TexturedMesh]] = {}
        self.damaged: dict[Path, str] = {}

    def make(self, number: int) -> StoredScene:
        """Render one scene."""
        config = self.config
        draw = np.random.default_rng([config.seed, number])
        generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
        if self.mesh_paths and draw.random() < config.mesh_share:
            path, mesh = self._sound_mesh(draw)
            parts, name = self._vary(mesh, draw, generator), path.stem
        else:
            parts, name = random_object(int(draw.integers(2**62)), self.photographs), "procedural"
        if config.clips:
            cameras = sample_path(config.views, config.image_size, generator)
        else:
            parts, cameras = placed(parts, config, self.photographs, config.views, draw, generator)
        lighting = Lighting.random(draw) if draw.random() < 0.7 else Lighting()
        renders = self.rasteriser.render(parts, cameras, lighting, depth=config.depth)
        name = f"{number:08d}-{name}"
        if config.clips:
            return StoredScene(name, renders.rgba, None, times=tuple(range(config.views)))
        return StoredScene(name, renders.rgba, cameras, renders.depth)

    def _sound_mesh(self, draw: np.random.Generator) -> tuple[Path, list[TexturedMesh]]:
        """A mesh at random, and another one as long as it cannot be used."""
        while True:
            path = self.mesh_paths[draw.integers(len(self.mesh_paths))]
            if path in self.damaged:
                continue
            try:
                return path, self._mesh(path)
            except KaleidosceneError as error:
                self.damaged[path] = str(error)
                allowed = allowed_damage(
                    self.config.damaged_share, len(self._meshes) + len(self.damaged), len(self.mesh_paths)
                )
                if len(self.damaged) > allowed or len(self.damaged) == len(self.mesh_paths):
                    raise

    def _mesh(self, path: Path) -> list[TexturedMesh]:
        if path not in self._meshes:
            self._meshes[path] = fit_unit_box(read_mesh(path))
        return self._meshes[path]

    @staticmethod
    def _vary(parts: list[TexturedMesh], draw: np.random.Generator, generator: torch.Generator) -> list[TexturedMesh]:
        """Stretch a scan a little and, one time in four, turn it over: few scans must stand for many objects."""
        stretch = np.diag(draw.uniform(0.8, 1.25, 3)) if draw.random() < 0.5 else np.eye(3)
        turn = random_rotation(generator=generator).numpy() if draw.random() < 0.25 else np.eye(3)
        matrix = (turn @ stretch).astype(np.float32)
        return fit_unit_box([part.transformed(matrix, np.zeros(3, np.float32)) for part in parts])


def placed(
    parts: list[TexturedMesh],
    config: SyntheticScenes,
    photographs: list[UInt8[np.ndarray, "h w 3"]],
    views: int,
    draw: np.random.Generator,
    generator: torch.Generator,
) -> tuple[list[TexturedMesh], Cameras]:
    """An object where it is to stand, with what is around it, and cameras that see it."""
    which = draw.random()
    near = which < config.wide_share + config.near_share
    kind: ViewpointKind = "wide" if which < config.wide_share else "near" if near else "eschernet"
    angles = random_angles(config.lenses, views, generator)
    if config.room_share and draw.random() < config.room_share:
        room = random_room(parts, draw, photographs)
        cameras = sample_inside(room, angles, config.image_size, draw)
        parts, cameras = moved_to_focus(room.parts, cameras)
    else:
        cameras = sample_viewpoints(kind, views, config.image_size, generator, angles)
    if config.lenses is not None and draw.random() < _OFF_CENTRE:
        cameras = shifted(cameras, 0.1, generator)
    return parts, cameras


def list_meshes(folder: Path) -> list[Path]:
    """All GLB and OBJ files of a folder, sorted.

    Raises:
        KaleidosceneError: There are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".glb", ".gltf", ".obj"})
    if not paths:
        raise KaleidosceneError(f"{folder}: no meshes here (expected .glb, .gltf or .obj).")
    return paths


def without(paths: list[Path], names: tuple[str, ...]) -> list[Path]:
    """The paths whose stem is not among ``names``.

    Raises:
        KaleidosceneError: One of the names is that of no path.
    """
    stems = [path.stem for path in paths]
    for name in names:
        if name not in stems:
            raise unknown_name("mesh to exclude", name, stems)
    return [path for path in paths if path.stem not in names]


def read_photographs(folder: Path) -> list[UInt8[np.ndarray, "h w 3"]]:
    """All images of a folder as textures.

    Raises:
        KaleidosceneError: There are none.
    """
    found = folder.iterdir() if folder.is_dir() else []
    paths = sorted(path for path in found if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise KaleidosceneError(f"{folder}: no images here (expected .jpg or .png).")
    return [to_bytes(read_image(path)[0]) for path in paths]


def claim_folder(config: SyntheticScenes, folder: Path) -> None:
    """Note in the folder what its shards show; refuse a folder that shows something else.

    Raises:
        KaleidosceneError: The folder was begun with another configuration.
    """
    note = folder / "scenes.json"
    document = _shown(config)
    # Folders of earlier versions do not know what has come since: it was at its default.
    if note.is_file() and (before := {**_shown(SyntheticScenes()), **json.loads(note.read_text())}) != document:
        key = next(key for key in document if document[key] != before.get(key))
        raise KaleidosceneError(
            f"{folder}: begun with {key} = {before.get(key)}, not {document[key]}; give another folder."
        )
    if note.is_file():  # other processes may be reading it
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_aside(note, json.dumps(document, indent=1))


def _shown(config: SyntheticScenes) -> dict[str, str]:
    """What the scenes of a folder depend on, as the folder remembers it."""
    return {key: str(value) for key, value in to_plain(config).items() if key != "damaged_share"}


def shard_path(folder: Path, number: int) -> Path:
    """Where shard ``number`` goes."""
    return folder / f"shard-{number:06d}.tar"


def write_next_shards(config: SyntheticScenes, folder: Path, numbers: list[int]):
    """Render and write the shards ``numbers`` that are not there yet; yields after each scene."""
    maker = SceneMaker(config)  # what cannot be rendered leaves no folder behind
    claim_folder(config, folder)
    for shard in numbers:
        path = shard_path(folder, shard)
        if path.with_suffix(".index.json").exists():
            continue
        scenes = []
        first = shard * config.scenes_per_shard
        for number in range(first, min(first + config.scenes_per_shard, config.scenes)):
            scenes.append(maker.make(number))
            yield number
        write_shard(path, scenes)
        _note_damaged(maker, folder)


def _note_damaged(maker: SceneMaker, folder: Path) -> None:
    """Add the meshes that could not be used to a list; other processes add theirs.

    Raises:
        KaleidosceneError: All together there are more than the allowed share of the meshes that were tried.
    """
    if not maker.damaged:
        return
    path = folder / "damaged-meshes.txt"
    known = path.read_text().splitlines() if path.is_file() else []
    mine = [" ".join(reason.splitlines()) for reason in maker.damaged.values()]
    with path.open("a") as file:
        file.writelines(f"{reason}\n" for reason in mine if reason not in known)
    # Processes that end a shard at the same moment may write one mesh twice.
    config, stored, found = maker.config, len(maker.mesh_paths), len({*known, *mine})
    scenes = config.scenes_per_shard * len(list(folder.glob("*.index.json")))
    allowed = allowed_damage(config.damaged_share, min(stored, int(scenes * config.mesh_share)), stored)
    if found > allowed:
        raise KaleidosceneError(
            f"{path}: {found} damaged meshes, {allowed:g} are allowed (--scenes.damaged-share); the last: {mine[-1]}"
        )
