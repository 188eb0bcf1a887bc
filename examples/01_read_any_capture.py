"""Read a capture of any supported format, say what is in it, and draw its cameras.

python examples/01_read_any_capture.py CAPTURE [FRUSTA.png]
"""

import sys
from pathlib import Path

import kaleidoscene
from kaleidoscene.captures.checking.pictures import write_frusta_picture


def main(path: Path, picture: Path) -> None:
    capture = kaleidoscene.read_capture(path)
    for note in capture.notes:
        print(note)
    h, w = capture.common_size
    print(f"{len(capture)} frames; as pinholes of one size they are {h}x{w}")
    first = capture.frames[0]
    print(f"first frame: {first.name}, {first.image_size}, distortion {first.distortion}")
    if not capture.is_posed:
        print(f"no cameras yet: kaleidoscene pose {path} --out CAPTURE")
        return
    cameras = capture.cameras
    print(f"focal lengths {cameras.intrinsics[:, 0, 0].min():.0f} to {cameras.intrinsics[:, 0, 0].max():.0f} px")
    print(f"middle {capture.origin().tolist()}, up {capture.up().tolist()}")
    images = capture.images(only=[0, len(capture) - 1])
    print(f"images are tensors in [0, 1]: {tuple(images.shape)}, mean {images.mean():.2f}")
    write_frusta_picture(picture, capture)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "frusta.png"))
