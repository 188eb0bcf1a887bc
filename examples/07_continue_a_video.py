"""Continue a video with a model that was trained on clips: the same weights that render new views.

    python examples/07_continue_a_video.py VIDEO OUT.png MODEL [KNOWN] [NEW]

Writes a contact sheet: known frames, what really followed, what the model makes of it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import kaleidoscene
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.video import continue_video
from kaleidoscene.images.pixels import centre_box, resize_image, to_bytes
from kaleidoscene.images.videos import video_frames

CLIP = 8  # frames of a clip in the training of kaleido-nano-video


def read_frames(path: Path, count: int, size: tuple[int, int]) -> torch.Tensor:
    """The first frames, every fourth, their middle cropped to the model's aspect ratio and resampled."""
    frames = []
    for _, frame in video_frames(path, range(0, 4 * count, 4)):
        top, left, height, width = centre_box((frame.shape[0], frame.shape[1]), size)
        cut = np.ascontiguousarray(frame[top : top + height, left : left + width])
        frames.append(resize_image(torch.from_numpy(cut).movedim(-1, 0).float() / 255, size))
    return torch.stack(frames)


def main(video: Path, out: Path, model: str, known: int = 5, new: int = 3) -> None:
    renderer = kaleidoscene.load(model).system.renderer
    assert isinstance(renderer, KaleidoRenderer)
    frames = read_frames(video, known + new, renderer.image_size)
    made = continue_video(renderer, frames[None, :known], new, clip=CLIP, seeds=list(range(new)))[0]
    rows = [torch.cat(list(row), dim=-1) for row in (frames, torch.cat([frames[:known], made]))]
    sheet = to_bytes(torch.cat(rows, dim=-2))
    Image.fromarray(sheet).resize((3 * sheet.shape[1], 3 * sheet.shape[0]), Image.Resampling.NEAREST).save(out)
    error = (made - frames[known:]).square().mean().item()
    psnr = -10 * np.log10(error)
    print(f"wrote {out}: above the video, below its last {new} frames made; PSNR {psnr:.2f} dB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:6]))
