"""Three images of an object in, a turn around it out.

python examples/00_render_from_python.py [OUT]
"""

import sys
from pathlib import Path

import kaleidoscene

CAPTURE = Path(__file__).parent / "captures" / "school_bus"


def main(out: Path) -> None:
    model = kaleidoscene.load("default")
    capture = kaleidoscene.read_capture(CAPTURE)
    references = capture.select([0, 1, 2])
    views = model.render(references, cameras=kaleidoscene.trajectories.orbit(references, frames=12), seed=0)
    views.save(out, overwrite=True)
    print(f"wrote {len(views.images)} views to {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/example"))
