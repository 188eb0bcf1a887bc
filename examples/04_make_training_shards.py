"""Turn captures into training shards and look at a batch as training sees it.

    python examples/04_make_training_shards.py SHARDS CAPTURE [CAPTURE ...]

`kaleidoscene convert FOLDER SHARDS --to shards` does the same for a folder of captures.
"""

import sys
from pathlib import Path

import kaleidoscene
from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.from_captures import ShardConfig, scene_of, write_shards
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shards import ShardFolder


def main(out: Path, captures: list[Path]) -> None:
    config = ShardConfig(image_size=(64, 64), scenes_per_shard=16)
    for done, total in write_shards(
        captures, out, config, lambda path: [scene_of(kaleidoscene.read_capture(path), path.name, config)]
    ):
        print(f"{done} of {total} scenes")
    shards = ShardFolder(out)
    views = min(shards.num_views(scene) for scene in range(len(shards)))
    sampling = ViewSampling(views=min(views, 8), masking="none")
    batches = ViewBatches(shards, BatchConfig(batch_size=len(captures), sampling=sampling))
    batch = batches[0]
    print(
        f"scenes {', '.join(batch.ids)}: images {tuple(batch.images.shape)}, {batch.num_references} of them references"
    )
    print(f"train on them: kaleidoscene train kaleido-nano --shards {out} --out RUN")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
