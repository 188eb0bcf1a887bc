"""Single pictures in folders of classes (ImageNet's layout) to training scenes of one view with a label.

What 3DDiT learns from first (section 3.3, appendix B): how scenes look in general. A label is the place of a folder
among all, in the order of their names, as ImageNet counts its classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.photos import intrinsics_of, photographs
from kaleidoscene.datasets.from_captures import ShardConfig, scene_of
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import natural_key
from kaleidoscene.images.files import list_images

CLASSES = "classes.json"
"""Beside the shards: names of the classes, by label."""
LENSES = "lenses.json"
"""Beside the pictures of a class, if lenses are known: degrees across each by its name."""


def class_folders(source: Path) -> list[Path]:
    """Folders of classes, by label.

    Raises:
        KaleidosceneError: There are none, one has no pictures or other files, or pictures lie beside them.
    """
    if not source.is_dir():
        raise KaleidosceneError(f"{source}: pictures with labels are a folder with a folder for each class.")
    if beside := list_images(source):
        raise KaleidosceneError(f"{beside[0]}: lies beside the folders of classes, and belongs to none.")
    folders = sorted(path for path in source.iterdir() if path.is_dir() and path.name[0] != ".")
    if not folders:
        raise KaleidosceneError(f"{source}: no folders of classes here.")
    for folder in folders:
        pictures = list_images(folder)
        if not pictures:
            raise KaleidosceneError(f"{folder}: no pictures of this class.")
        known = {*pictures, folder / LENSES}
        if others := sorted(path for path in folder.iterdir() if path.name[0] != "." and path not in known):
            raise KaleidosceneError(f"{others[0]}: is no picture of a kind that is read here.")
    return folders


def read_lenses(folder: Path) -> dict[str, float]:
    """Degrees across pictures of a class by name; of pictures that are not named, EXIF tells, or a guess.

    Raises:
        KaleidosceneError: The file does not say angles by name.
    """
    path = folder / LENSES
    if not path.is_file():
        return {}
    try:
        lenses = {str(name): float(angle) for name, angle in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise KaleidosceneError(f"{path}: not a table of degrees across pictures by name ({error}).") from None
    for name, angle in lenses.items():
        if not 1 <= angle <= 175:
            raise KaleidosceneError(f"{path}: {name} is {angle:g} degrees across, expected 1 to 175.")
        if not (folder / name).is_file():
            raise KaleidosceneError(f"{path}: names {name}, which is not there.")
    return lenses


def pictures_of(folder: Path, label: int, config: ShardConfig) -> Iterator[StoredScene]:
    """The pictures of a class, each a scene whose only camera is its world; lenses are kept.

    Args:
        folder: Of the class.
        label: Of the class.
        config: How scenes are stored.

    Raises:
        KaleidosceneError: A picture or the table of lenses does not read.
    """
    lenses, config = read_lenses(folder), replace(config, field_of_view=None)
    for path in sorted(list_images(folder), key=natural_key):
        capture = photographs(path.stem, folder, [path])
        frame = capture.frames[0]
        if frame.image_size is None:
            raise KaleidosceneError(f"{path}: cannot be read as a picture.")
        angle = lenses.get(path.name)
        if angle is not None:
            focal = frame.image_size[1] / 2 / math.tan(math.radians(angle) / 2)
            frame = replace(frame, intrinsics=intrinsics_of(focal, frame.image_size))
        posed = replace(frame, world_from_cam=torch.eye(4, dtype=torch.float64))
        scene = scene_of(Capture(path.stem, "photos", folder, (posed,)), f"{folder.name}-{path.name}", config)
        yield replace(scene, label=label)
