"""Pictures of an evaluation: truth, rendering and error side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kaleidoscene.evaluation.metrics.registry import IMAGE_METRICS
from kaleidoscene.evaluation.protocols import Split
from kaleidoscene.evaluation.run import Score
from kaleidoscene.images.pixels import colour_ramp, to_bytes
from kaleidoscene.serialisation import save_aside

_SHOWN = 4


def picture_name(scene: str, references: int) -> str:
    """Name of the picture of a scene at a number of references."""
    return f"{scene}-{references}.png"


def error_map(image: Float[Tensor, "3 h w"], truth: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Mean absolute error of the channels from white (0) over orange to black (0.5 and more)."""
    error = ((image - truth).abs().mean(0) * 2).clamp(0, 1)
    return colour_ramp(error, ((1.0, 1.0, 1.0), (0.9, 0.62, 0.0), (0.0, 0.0, 0.0)))


def write_scene_pictures(folder: Path, score: Score, truth: Float[Tensor, "n 3 h w"], split: Split) -> None:
    """Some targets from the worst to the best: truth above, rendering, and the error below."""
    name = next(iter(score.values))
    sign = 1 if IMAGE_METRICS[name].higher_is_better else -1
    values = score.values[name]
    order = sorted(range(len(values)), key=lambda n: sign * values[n])
    places = sorted({round(n * (len(order) - 1) / max(1, _SHOWN - 1)) for n in range(_SHOWN)})
    shown = [order[place] for place in places]
    columns = [torch.cat([truth[n], score.images[n], error_map(score.images[n], truth[n])], dim=1) for n in shown]
    picture = Image.fromarray(to_bytes(torch.cat(columns, dim=2)))
    save_aside(folder / picture_name(score.scene, score.references), lambda file: picture.save(file, "png"))
