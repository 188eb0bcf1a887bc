"""kaleidoscene synthesize: render scenes ahead, for training or for a held-out test set."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.synthetic.writing import write_synthetic_captures, write_synthetic_shards


@dataclass(frozen=True, kw_only=True)
class SynthesizeOptions:
    """Render training scenes into shards, or with --captures one capture for every mesh (the test protocol)."""

    out: tyro.conf.Positional[Path]
    """Folder of shards (interrupted work goes on where it was) or of captures."""
    scenes: SyntheticScenes = SyntheticScenes()
    captures: bool = False
    """Render every mesh of --scenes.meshes from 25 EscherNet views in studio light, as a transforms.json capture (with
    --scenes.depth and depth maps); --scenes.room-share 1 puts them into rooms."""
    workers: int = 1
    """Processes."""
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(SynthesizeOptions, argv, "synthesize")
    started = time.perf_counter()
    if options.captures:
        made = write_synthetic_captures(options.scenes, options.out)
    else:
        made = write_synthetic_shards(options.scenes, options.out, workers=options.workers)
        ShardFolder(options.out)  # leaves the catalogue that runs start from
    seconds = time.perf_counter() - started
    print(f"{made} views in {seconds:.1f} s ({made / seconds:.0f} a second) in {options.out}")
    if options.json:
        print_json({"out": str(options.out), "views": made, "seconds": seconds})
