"""Time of `import kaleidoscene`, of its first names and of the command line's help, in fresh processes."""

import statistics
import subprocess
import sys
import time

from benchmarks.common import write_result

RUNS = 7


def seconds(statement: str) -> float:
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(RUNS)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def command(*words: str) -> float:
    taken = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "kaleidoscene", *words], capture_output=True, check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    torch_alone, names = seconds("import torch"), seconds("from kaleidoscene import load, read_capture")
    lines = [
        "| what | seconds |",
        "|---|---|",
        f"| `import torch` | {torch_alone:.2f} |",
        f"| `import kaleidoscene` | {seconds('import kaleidoscene'):.2f} |",
        f"| `from kaleidoscene import load, read_capture` (with torch) | {names:.2f} |",
        f"| `kaleidoscene --help` | {command('--help'):.2f} |",
        f"| `kaleidoscene --version` | {command('--version'):.2f} |",
        f"| `kaleidoscene render --help` | {command('render', '--help'):.2f} |",
    ]
    lines += ["", f"Names beyond torch: {names - torch_alone:.2f} s (medians of {RUNS} processes, started cold)."]
    write_result("import_time", "Import time", lines)


if __name__ == "__main__":
    main()
