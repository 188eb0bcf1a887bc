"""Pictures of what a network renders of held-out captures while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.evaluation.protocols import Split
from kaleidoscene.evaluation.run import HeldOutObject, Score
from kaleidoscene.folders import whole_folder
from kaleidoscene.images.files import write_image
from kaleidoscene.rendering.outputs import SheetRow, frame_name, write_contact_sheet

SHEET = "sheet.png"
_SHOWN, _COLUMNS = 4, 6


def write_samples(
    folder: Path, objects: Sequence[HeldOutObject], splits: Sequence[Split], scores: Sequence[Score]
) -> None:
    """Renderings of some captures, each a capture of its own, and a sheet of them beside the truth.

    Args:
        folder: To be made; what is there is replaced, as a run does that takes up its last checkpoint.
        objects: What was rendered.
        splits: Of each.
        scores: Of each, at one number of references.
    """
    rows = []
    with whole_folder(folder, overwrite=True) as partial:
        for thing, split, score in list(zip(objects, splits, scores, strict=True))[:_SHOWN]:
            (partial / score.scene / "frames").mkdir(parents=True)
            names = [frame_name(number) for number in range(len(score.images))]
            for name, image in zip(names, score.images, strict=True):
                write_image(partial / score.scene / name, image)
            cameras = thing.cameras[list(split.targets)]
            write_cameras(partial / score.scene / "transforms.json", names, cameras, centred="object")
            given, true = (thing.images[list(views)] for views in (split.references[score.references], split.targets))
            rows += [
                SheetRow(f"{score.scene[:14]}\ngiven", list(given[:_COLUMNS])),
                SheetRow("rendered", list(score.images[:_COLUMNS])),
                SheetRow("truth", list(true[:_COLUMNS])),
            ]
        write_contact_sheet(partial / SHEET, rows)
