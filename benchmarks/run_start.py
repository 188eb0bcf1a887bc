"""How long a run takes to learn what its shards hold, and to find a scene in a shard that it has not read from yet."""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.common import write_result
from kaleidoscene.datasets.catalogue import CATALOGUE
from kaleidoscene.datasets.shard_index import ShardIndex, Stock, write_index
from kaleidoscene.datasets.shards import ShardFolder

PAPER_CLIPS = 34_000_000


def write_indices(folder: Path, shards: int, clips: int, views: int) -> None:
    """Indices as conversion writes them, beside tar files that are as long as they say and hold nothing."""
    for shard in range(shards):
        members, place = [], 512
        for clip in range(clips):
            key = f"video-{shard:06d}-{clip:05d}-2"
            for name in (f"{key}.scene.json", *(f"{key}.{view:03d}.jpg" for view in range(views))):
                members.append((name, place, 12_000))
                place += 12_800
        keys = [f"video-{shard:06d}-{clip:05d}-2" for clip in range(clips)]
        stock = {key: Stock(views, is_video=True) for key in keys}
        write_index(folder / f"shard-{shard:06d}.index.json", stock, members, f"{shard:064x}")
        with (folder / f"shard-{shard:06d}.tar").open("wb") as file:
            file.truncate(place)


def start(folder: Path) -> float:
    """Seconds to open the folder."""
    before = time.perf_counter()
    ShardFolder(folder)
    return time.perf_counter() - before


def find(path: Path, clip: int) -> tuple[float, float]:
    """Seconds to find the members of a clip: by its line of the index, and by all that the index says."""
    before = time.perf_counter()
    ShardIndex(path).members(clip)
    between = time.perf_counter()
    for line in path.read_text().splitlines():
        json.loads(line)
    return between - before, time.perf_counter() - between


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
        found = [find(path, options.clips // 2) for path in sorted(folder.glob("*.index.json"))[:20]]
        by_line, by_all = (1000 * statistics.median(seconds) for seconds in zip(*found, strict=True))
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

Finding a clip in a shard that was not read from yet, as nearly every draw from so many is (median of {len(found)}):

| | milliseconds |
|---|---|
| the first line of the index and that of the clip | {by_line:.2f} |
| every line of the index | {by_all:.1f} |
"""
    write_result("run_start", "Starting a run on many shards", text.strip().splitlines())


if __name__ == "__main__":
    main()
