"""Peak memory of autoregressive renders of 48 and 480 frames: it must not grow with the number of frames."""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import peak_mebibytes, write_result

EXAMPLE = "examples/captures/school_bus"


def render(frames: int) -> None:
    from kaleidoscene.cli.main import main as kaleidoscene  # noqa: PLC0415  only in the measured process

    with tempfile.TemporaryDirectory() as out:
        code = kaleidoscene(
            ["render", EXAMPLE, "--out", f"{out}/r", "--references", "0-2", "--frames", str(frames),
             "--mode", "autoregressive", "--max-references", "6", "--steps", "1"]
        )  # fmt: skip
        assert code == 0
        assert len(list(Path(f"{out}/r/frames").glob("*.png"))) == frames
    print(f"peak {peak_mebibytes():.0f}")


def main() -> None:
    peaks = {}
    for frames in (48, 480):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.render_memory", str(frames)], capture_output=True, text=True, check=True
        )
        peaks[frames] = float(done.stdout.strip().splitlines()[-1].split()[1])
    lines = [
        "Default weights, 3 references, at most 6 in a call, one step; peak resident memory of the whole process.",
        "",
    ]
    lines += ["| frames | peak MiB |", "|---|---|", *(f"| {n} | {peak:.0f} |" for n, peak in peaks.items())]
    lines += ["", f"Ratio {peaks[480] / peaks[48]:.3f}: frames are written as they come."]
    write_result("render_memory", "Memory of long autoregressive renders", lines)


if __name__ == "__main__":
    render(int(sys.argv[1])) if len(sys.argv) > 1 else main()
