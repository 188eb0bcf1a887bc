"""How long a run takes to learn what its shards hold: all indices read, against the catalogue of an earlier start."""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from anyview.data.catalogue import CATALOGUE
from anyview.data.shards import FORMAT_VERSION, ShardFolder
from benchmarks.common import write_result

PAPER_CLIPS = 34_000_000


def write_indices(folder: Path, shards: int, clips: int, views: int) -> None:
    """Indices as conversion writes them, beside tar files that are as long as they say and hold nothing."""
    for shard in range(shards):
        members, place = {}, 512
        for clip in range(clips):
            key = f"video-{shard:06d}-{clip:05d}-2"
            for name in (f"{key}.scene.json", *(f"{key}.{view:03d}.jpg" for view in range(views))):
                members[name] = [place, 12_000]
                place += 12_800
        keys = [f"video-{shard:06d}-{clip:05d}-2" for clip in range(clips)]
        index = {
            "format_version": FORMAT_VERSION, "sha256": f"{shard:064x}", "keys": keys, "views": [views] * clips,
            "is_video": [True] * clips, "members": members,
        }  # fmt: skip
        (folder / f"shard-{shard:06d}.index.json").write_text(json.dumps(index))
        with (folder / f"shard-{shard:06d}.tar").open("wb") as file:
            file.truncate(place)


def start(folder: Path) -> float:
    """Seconds to open the folder."""
    before = time.perf_counter()
    ShardFolder(folder)
    return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=300)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_indices(folder, options.shards, options.clips, options.views)
        first, again = [], []
        for _ in range(options.runs):
            (folder / CATALOGUE).unlink(missing_ok=True)
            first.append(start(folder))
            again.append(start(folder))
        size = (folder / CATALOGUE).stat().st_size
    clips = options.shards * options.clips
    a, b = statistics.median(first), statistics.median(again)
    text = f"""
{options.shards} shards of {options.clips} clips of {options.views} views; medians of {options.runs} starts, files
in memory.

| | seconds | by proportion for the paper's {PAPER_CLIPS // 10**6} million clips |
|---|---|---|
| all indices read (the first start, or after conversion) | {a:.2f} | {a * PAPER_CLIPS / clips / 60:.1f} minutes |
| from the catalogue | {b:.4f} | {b * PAPER_CLIPS / clips:.2f} seconds |

The catalogue has {size // options.shards} bytes a shard.
"""
    write_result("run_start", "Starting a run on many shards", text.strip().splitlines())


if __name__ == "__main__":
    main()
