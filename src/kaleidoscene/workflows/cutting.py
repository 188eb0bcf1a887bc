"""Masks of the photographs of a capture: cut out by what they show, or taken from a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frame_files import frame_size, read_alpha, read_mask, read_pixels
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import from_pixels, to_pixels
from kaleidoscene.geometry.rays import pixel_centres, to_sampling_grid
from kaleidoscene.images.files import SUFFIXES
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.images.undistortion import pinhole_of
from kaleidoscene.reconstruction.cutting import CutOutConfig, cut_out
from kaleidoscene.reconstruction.grab_cut import refined
from kaleidoscene.rendering.outputs import SheetRow, write_contact_sheet

SHEET = "cut_out.png"
_SHOWN, _DRAWN = 12, 256
# Silhouettes that fit their body less are worth a look: of one view, and of the typical one.
_ODD, _LOOSE = 0.6, 0.8


@dataclass(frozen=True, eq=False)
class Masked:
    """A capture with masks.

    Attributes:
        capture: Its frames have them.
        steps: What was done, as sentences.
        advice: What is to be looked at, likewise.
    """

    capture: Capture
    steps: tuple[str, ...]
    advice: tuple[str, ...] = ()


def cut_out_capture(capture: Capture, folder: Path, config: CutOutConfig) -> Masked:
    """Masks of the object that a capture's cameras look at, below ``masks``, and ``cut_out.png``, which shows them.

    Masks and alpha that are there already are kept.

    Args:
        capture: With cameras; its images are files.
        folder: Of the capture.
        config: How.

    Raises:
        KaleidosceneError: The cameras look at no one object, or none could be told from what is behind it.
    """
    own = [_own_mask(frame) for frame in capture.frames]
    kept = sum(mask is not None for mask in own)
    if kept == len(own) and all(frame.mask is not None for frame in capture.frames):
        return Masked(capture, ("The images have masks already, which are kept; nothing was cut out.",))
    if kept == len(own):
        return Masked(capture, ("The images have alpha, which is kept; nothing was cut out.",))
    if len(capture) > 1:
        _check_focus(capture)
    size = _within(capture.common_size, config.size)
    small = torch.cat([
        torch.nn.functional.interpolate(capture.images(only=[number]), size, mode="area")
        for number in range(len(capture))
    ])  # fmt: skip
    try:
        found = cut_out(small, capture.cameras.resize(*size), capture.origin().float(), config)
    except KaleidosceneError as error:
        raise KaleidosceneError(f"{capture.name}: {error}") from error
    frames = []
    for frame, mask, mine in zip(capture.frames, found.masks, own, strict=True):
        whole = _as_taken(capture, frame, mask, config.detail) if mine is None else mine
        frames.append(frame if frame.mask is not None else _with_mask(frame, whole, folder))
    masked = replace(capture, frames=tuple(frames))
    _write_sheet(folder / SHEET, masked)
    typical = float(found.fit.median())
    said = (
        f"The object was cut out of {len(capture) - kept} images; their outlines fit one body to {100 * typical:.0f} %."
    )
    if len(capture) == 1:
        said = f"The object was cut out by its colours alone, as one picture has them: look at {SHEET}."
    if kept:
        said += f" Masks and alpha of {kept} more were there, and are kept."
    odd = [frame.name for frame, fit in zip(frames, found.fit.tolist(), strict=True) if fit < _ODD]
    advice = []
    if typical < _LOOSE and len(capture) > 1:
        advice.append(f"The outlines do not fit one body well: look at {SHEET}, and give --masks if it is not right.")
    elif odd and len(capture) > 1:
        shown = ", ".join(odd[:6]) + (" ..." if len(odd) > 6 else "")
        advice.append(f"The outline in {len(odd)} images ({shown}) does not fit the others: look at {SHEET}.")
    return Masked(masked, (said,), tuple(advice))


def take_masks(capture: Capture, masks: Path, folder: Path) -> Masked:
    """Masks of others, by the names of the images, copied below ``masks``, and ``cut_out.png``, which shows them.

    Args:
        capture: Its images are files.
        masks: Folder; an image's mask has its name, whatever its ending.
        folder: Of the capture.

    Raises:
        KaleidosceneError: An image has no mask or two, or one of another size.
    """
    frames = []
    for frame, file in zip(capture.frames, masks_of(capture, masks), strict=True):
        whole = read_mask(replace(frame, mask=file))[0] > 0.5
        frames.append(_with_mask(frame, whole, folder))
    masked = replace(capture, frames=tuple(frames))
    _write_sheet(folder / SHEET, masked)
    return Masked(masked, (f"Masks of {len(frames)} images were taken from {masks.name}.",))


def masks_of(capture: Capture, masks: Path) -> list[Path]:
    """The mask of each image, by its name.

    Raises:
        KaleidosceneError: There is no such folder, or an image has no mask in it, or two.
    """
    if not masks.is_dir():
        raise KaleidosceneError(f"{masks}: no such folder of masks.")
    files: dict[str, list[Path]] = {}
    for path in sorted(masks.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            files.setdefault(path.stem, []).append(path)
    for frame in capture.frames:
        mine = files.get(frame.image.stem, [])
        if len(mine) != 1:
            many = "has no mask" if not mine else f"has {len(mine)} masks"
            raise KaleidosceneError(f"{masks}: {frame.image.name} {many} of its name.")
    return [files[frame.image.stem][0] for frame in capture.frames]


def _within(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Height and width made so much smaller that neither is longer."""
    h, w = size
    scale = min(1.0, longest / max(h, w))
    return max(1, round(h * scale)), max(1, round(w * scale))


def _own_mask(frame: Frame) -> Bool[Tensor, "h w"] | None:
    """What the files say of the object already: a mask, or alpha that is not 1 everywhere."""
    if frame.mask is not None:
        return read_mask(frame)[0] > 0.5
    alpha = read_alpha(frame)
    return None if alpha is None or float(alpha.min()) >= 1 else alpha[0] > 0.5


def _check_focus(capture: Capture) -> None:
    """Raise unless most cameras have the point they look at in their picture."""
    cameras, focus = capture.cameras, capture.origin().float()
    toward = torch.nn.functional.normalize(focus - cameras.centres, dim=-1)
    cosines = (toward * cameras.directions).sum(-1)
    h, w = cameras.image_size
    corner = torch.atan(0.5 * torch.tensor([h, w]).float().norm() / cameras.intrinsics[:, 1, 1].amin())
    if float((cosines > corner.cos()).float().mean()) < 0.5:
        raise KaleidosceneError(
            f"{capture.name}: the cameras look about in a place; objects are cut out where all look at one."
        )


def _as_taken(capture: Capture, frame: Frame, mask: Bool[Tensor, "mh mw"], detail: int) -> Bool[Tensor, "h w"]:
    """A mask that was found in what :attr:`Capture.cameras` see, of the photograph as its lens took it."""
    assert frame.intrinsics is not None
    size = h, w = frame_size(frame)
    small = _within(size, detail)
    matrix = frame.intrinsics.double()
    pixels = pixel_centres(small, matrix) * matrix.new_tensor([w / small[1], h / small[0]])
    rays = frame.distortion.remove(from_pixels(pixels, matrix))
    places = to_pixels(rays, capture.framing(frame).matrix @ pinhole_of(matrix, frame.distortion, size))
    grid = to_sampling_grid(places, capture.common_size).float()
    coarse = torch.nn.functional.grid_sample(mask[None, None].float(), grid[None], align_corners=False)[0, 0]
    photograph = to_bytes(read_pixels([frame])[0])
    cell = max(capture.common_size) / float(capture.framing(frame).matrix[0, 0]) / max(mask.shape)
    return refined(photograph, coarse, cell * max(small) / max(size))


def _with_mask(frame: Frame, mask: Bool[Tensor, "h w"], folder: Path) -> Frame:
    (folder / "masks").mkdir(exist_ok=True)
    path = folder / "masks" / f"{frame.image.stem}.png"
    Image.fromarray(255 * mask.numpy().astype(np.uint8)).save(path)
    return replace(frame, mask=path)


def _write_sheet(path: Path, capture: Capture) -> None:
    """Photographs above what is left of them."""
    shown = range(0, len(capture), -(-len(capture) // _SHOWN))

    def small(images: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "3 sh sw"]:
        h, w = images.shape[-2:]
        return torch.nn.functional.interpolate(images, _within((h, w), _DRAWN), mode="area")[0]

    rows = [
        SheetRow("photographs", [small(capture.images(only=[number])) for number in shown]),
        SheetRow("cut out", [small(capture.images(masked=True, only=[number])) for number in shown]),
    ]
    write_contact_sheet(path, rows)
