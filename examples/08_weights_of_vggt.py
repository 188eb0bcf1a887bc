"""Weights of VGGT as first weights of RnG's paper recipes, and its DINOv2 as their encoder.

    python examples/08_weights_of_vggt.py VGGT OUT
    kaleidoscene train rng-objaverse-40k --init OUT --features OUT/dinov2 --shards SHARDS --out RUN \\
        --perceptual-weights imagenet-vgg-verydeep-19.mat

VGGT is a folder with model.safetensors of the release (facebook/VGGT-1B on the hub; its weights have a licence of
their own). The embedding of target rays and the last layers for colours begin anew.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from kaleidoscene.encoders.vggt_dinov2 import write_dinov2_of_vggt
from kaleidoscene.families.checkpoints import write_checkpoint
from kaleidoscene.families.rng.checkpoint import describe
from kaleidoscene.families.rng.recipes import rng_objaverse_40k
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.families.rng.vggt import ENCODER, read_vggt, rng_of_vggt


def main(source: Path, out: Path, settings: RngSettings, heads: int | None = None) -> None:
    weights = read_vggt(source)
    ours = rng_of_vggt(weights, settings.model)
    encoder = {name.removeprefix(ENCODER): x for name, x in weights.items() if name.startswith(ENCODER)}
    write_dinov2_of_vggt(encoder, out / "dinov2", heads=heads)
    own = replace(settings.model.encoder, source=str((out / "dinov2").resolve()))
    write_checkpoint(out, describe(replace(settings, model=replace(settings.model, encoder=own))), ours)
    print(f"wrote {out} and {out / 'dinov2'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    main(arguments.source, arguments.out, rng_objaverse_40k().settings)
