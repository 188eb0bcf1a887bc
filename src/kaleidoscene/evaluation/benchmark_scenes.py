"""Scenes of benchmarks: how their folders are laid out, and which views are references and targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.registry import FORMATS, read_capture
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.evaluation.protocols import ESCHERNET_GSO, ESCHERNET_RTMV, FirstViews, Split, hold_out
from kaleidoscene.files import read_json


@dataclass(frozen=True, eq=False)
class BenchmarkScene:
    """One scene on disk.

    Attributes:
        name: Unique in its benchmark.
        read: Gives the capture whose views ``split`` numbers.
        split: Makes the split of a capture for some numbers of references.
        note: Where the split comes from, if it is not what the benchmark says.
    """

    name: str
    read: Callable[[], Capture]
    split: Callable[[Capture, Sequence[int]], Split]
    note: str = ""


GSO30 = (
    "alarm", "backpack", "bell", "blocks", "chicken", "cream", "elephant", "grandfather", "grandmother", "hat",
    "leather", "lion", "lunch_bag", "mario", "oil", "school_bus1", "school_bus2", "shoe", "shoe1", "shoe2", "shoe3",
    "soap", "sofa", "sorter", "sorting_board", "stucking_cups", "teapot", "toaster", "train", "turtle",
)  # fmt: skip
"""The objects of SyncDreamer's and EscherNet's evaluation, in their spelling."""

NERF_REFERENCES: dict[str, tuple[int, tuple[int, ...]]] = {
    "chair": (63, (78, 68, 51, 72, 83, 39, 92, 6, 47, 48)),
    "drums": (64, (98, 4, 33, 61, 93, 84, 51, 94, 10, 88)),
    "ficus": (45, (58, 44, 0, 3, 31, 62, 37, 26, 32, 38)),
    "hotdog": (83, (83, 53, 70, 45, 44, 39, 22, 80, 10, 0)),
    "lego": (69, (79, 37, 65, 54, 15, 20, 99, 25, 56, 17)),
    "materials": (13, (80, 59, 6, 12, 40, 8, 65, 35, 41, 15)),
    "mic": (3, (48, 28, 85, 83, 14, 9, 42, 21, 75, 93)),
    "ship": (24, (94, 40, 6, 26, 77, 68, 99, 74, 24, 58)),
}
"""EscherNet's training views: the single reference, and the list whose beginnings serve for 2, 3, 5 and 10."""


def _captures_below(folder: Path) -> list[Path]:
    """Folders below one, or itself if it is a capture with cameras."""
    below = _folders(folder)
    posed = (form for name, form in FORMATS.items() if name not in ("photos", "video"))
    return [folder] if any(form.find(folder) is not None for form in posed) else below


def find_first_views(
    folder: Path, views: FirstViews = ESCHERNET_GSO, format: str | None = None
) -> list[BenchmarkScene]:
    """Captures below a folder, of which the first views are references."""

    def scene(path: Path) -> BenchmarkScene:
        return BenchmarkScene(
            path.resolve().name, lambda: read_capture(path, format=format),
            lambda capture, counts: views.split(len(capture), counts, path.name),
        )  # fmt: skip

    return [scene(path) for path in _captures_below(folder)]


def find_rtmv(folder: Path) -> list[BenchmarkScene]:
    """Scenes of RTMV."""
    return find_first_views(folder, ESCHERNET_RTMV, "rtmv")


def find_gso(folder: Path) -> list[BenchmarkScene]:
    """Objects of GSO-30 as EscherNet rendered them."""
    # The file of the capture may be named for its format ("elephant_eschernet"); the object is its first word.
    found = find_first_views(folder)
    return [replace(scene, name=_gso_name(scene.name)) for scene in found]


def _gso_name(name: str) -> str:
    stem = name.removesuffix("_eschernet")
    return stem if stem in GSO30 else name


def find_nerf_synthetic(folder: Path) -> list[BenchmarkScene]:
    """Objects of Blender's, with EscherNet's lists of references."""

    def scene(path: Path) -> BenchmarkScene:
        name = path.resolve().name.split("_")[0]

        def read() -> Capture:
            training = read_capture(path / "transforms_train.json")
            test = read_capture(path / "transforms_test.json")
            return replace(training, name=name, frames=training.frames + test.frames)

        def split(capture: Capture, counts: Sequence[int]) -> Split:
            training = len(read_capture(path / "transforms_train.json"))
            return _nerf_split(name, training, len(capture), counts)

        return BenchmarkScene(name, read, split)

    paths = [folder] if (folder / "transforms_test.json").is_file() else _folders(folder)
    return [scene(path) for path in paths if (path / "transforms_test.json").is_file()]


def _nerf_split(name: str, training: int, views: int, counts: Sequence[int]) -> Split:
    if name not in NERF_REFERENCES:
        raise unknown_name("object of nerf-synthetic", name, NERF_REFERENCES)
    single, several = NERF_REFERENCES[name]
    references = {}
    for count in counts:
        chosen = (single,) if count == 1 else several[:count]
        if len(chosen) < count:
            raise KaleidosceneError(
                f"{name}: the published list has {len(several)} references, {count} were asked for."
            )
        if training != 100:
            raise KaleidosceneError(f"{name}: {training} training views; the published lists number 100.")
        references[count] = chosen
    return Split(references, tuple(range(training, views)))


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise KaleidosceneError(f"{folder}: no such folder.")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_held_out(folder: Path) -> list[BenchmarkScene]:
    """Every eighth view; or split files (``train_test_split_N.json``), which then every scene must have."""
    paths = _captures_below(folder)
    published = any(any(path.glob("train_test_split_*.json")) for path in paths)

    def scene(path: Path) -> BenchmarkScene:
        def split(capture: Capture, counts: Sequence[int]) -> Split:
            if published:
                return _split_of_files(path, capture, counts)
            return hold_out(len(capture), counts, path.name)

        note = "lists of the split files" if published else ""
        # As published the scenes of LLFF hold models of COLMAP as well.
        form = "llff" if (path / "poses_bounds.npy").is_file() else None
        return BenchmarkScene(path.resolve().name, lambda: _by_name(read_capture(path, format=form)), split, note)

    return [scene(path) for path in paths]


def _by_name(capture: Capture) -> Capture:
    return replace(
        capture, frames=tuple(sorted(capture.frames, key=lambda frame: (str(frame.image), frame.position or 0)))
    )


def find_by_files(folder: Path) -> list[BenchmarkScene]:
    """Captures with lists of references and targets beside them."""
    index = [path for path in sorted(folder.glob("evaluation_index*.json"))] if folder.is_dir() else []
    if len(index) > 1:
        raise KaleidosceneError(f"{folder}: {len(index)} files evaluation_index*.json; leave the one that is meant.")
    if index:
        return _by_index(folder, index[0])

    def scene(path: Path) -> BenchmarkScene:
        return BenchmarkScene(
            path.resolve().name, lambda: _by_name(read_capture(path)),
            lambda capture, counts: _split_of_files(path, capture, counts),
        )  # fmt: skip

    paths = [folder] if any(folder.glob("train_test_split_*.json")) else _folders(folder)
    return [scene(path) for path in paths]


def _split_of_files(path: Path, capture: Capture, counts: Sequence[int]) -> Split:
    """SEVA's files: indices into the images sorted by name."""
    references, targets = {}, None
    for count in counts:
        file = path / f"train_test_split_{count}.json"
        document = read_json(file)
        keys = ("train_ids", "test_ids")
        if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in keys):
            raise KaleidosceneError(f'{file}: expected an object with the lists "train_ids" and "test_ids".')
        for key in keys:
            _check_indices(document[key], len(capture), f"{file}: {key}")
        if targets is not None and targets != tuple(document["test_ids"]):
            raise KaleidosceneError(
                f"{file}: other test_ids than the file for {counts[0]} references; evaluate them apart."
            )
        references[count], targets = tuple(document["train_ids"]), tuple(document["test_ids"])
    assert targets is not None
    return Split(references, targets)


def _check_indices(values: list[Any], views: int, where: str) -> None:
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < views:
            raise KaleidosceneError(f"{where} names view {value!r}; the capture has views 0 to {views - 1}.")


def _by_index(folder: Path, file: Path) -> list[BenchmarkScene]:
    """PixelSplat's index: ``{scene: {"context": [...], "target": [...]} or null}``."""
    document = read_json(file)
    if not isinstance(document, dict):
        raise KaleidosceneError(f"{file}: expected an object of scenes.")

    def scene(name: str, entry: Any) -> BenchmarkScene:
        keys = ("context", "target")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), list) for key in keys):
            raise KaleidosceneError(f'{file}: {name} needs the lists "context" and "target".')

        def split(capture: Capture, counts: Sequence[int]) -> Split:
            for key in keys:
                _check_indices(entry[key], len(capture), f"{file}: {key} of {name}")
            if list(counts) != [len(entry["context"])]:
                raise KaleidosceneError(
                    f"{file}: {name} has {len(entry['context'])} context views; give --references "
                    f"{len(entry['context'])}."
                )
            return Split({len(entry["context"]): tuple(entry["context"])}, tuple(entry["target"]))

        return BenchmarkScene(name, lambda: read_capture(folder / name), split)

    return [scene(name, entry) for name, entry in document.items() if entry is not None]
