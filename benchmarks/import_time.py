"""Time of `import kaleidoscene` beyond torch's own, in fresh processes."""

import statistics
import subprocess
import sys

from benchmarks.common import write_result


def seconds(statement: str) -> float:
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    torch_alone, both = seconds("import torch"), seconds("import kaleidoscene")
    lines = [
        "| import | seconds |",
        "|---|---|",
        f"| torch | {torch_alone:.2f} |",
        f"| kaleidoscene (with torch) | {both:.2f} |",
    ]
    lines += ["", f"Beyond torch: {both - torch_alone:.2f} s (medians of 5 processes)."]
    write_result("import_time", "Import time", lines)


if __name__ == "__main__":
    main()
