"""Weights with more tokens to go on from: of a 3DRAE whose tokens stand for places, or of a 3DDiT over its tokens.

    python examples/11_more_tokens.py CHECKPOINT OUT --tokens 256 [--without points]
    kaleidoscene train RECIPE --init OUT ...    # a recipe with as many tokens

The places of few tokens are the first of those of many, so that the first tokens stay what they are; each of the others
begins as a copy of the nearest, and of 3DRAE with a little noise, by which they part. The weights that ship began so.
"""

import argparse
import json
from pathlib import Path

import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import family_of, read_weights, resolve, write_checkpoint
from kaleidoscene.families.rae3d.places import lattice

TOKENS = {"rae3d": "latents", "dit3d": "slots"}
"""What there is one of for each token, by family."""
NOISE = 0.1
"""Of new tokens, in standard deviations of all."""


def main(source: str, out: Path, count: int, without: list[str]) -> None:
    folder = resolve(source)
    family, weights = family_of(folder), read_weights(folder)
    description = json.loads((folder / "config.json").read_text())
    network = description["settings"]["model"]
    if family not in TOKENS or not network.get("located", True):
        raise KaleidosceneError(f"{folder}: expected a 3DRAE with located tokens or a 3DDiT over them, got {family}.")
    old = weights[TOKENS[family]]
    if count <= len(old):
        raise KaleidosceneError(f"{folder}: has {len(old)} tokens already, and --tokens says {count}.")
    if out.exists():
        raise KaleidosceneError(f"{out}: is there already; give another folder.")
    places = lattice(count)
    nearest = torch.cdist(places, places[: len(old)]).argmin(1)
    new = old[nearest]
    if family == "rae3d":
        noise = torch.randn(new.shape, generator=torch.Generator().manual_seed(0))
        new[len(old) :] += NOISE * old.std() * noise[len(old) :]
    weights[TOKENS[family]], network["tokens"] = new, count
    for part in without:
        if network.get(part) is None:
            raise KaleidosceneError(f"{folder}: has no {part} to leave out.")
        weights = {name: weight for name, weight in weights.items() if not name.startswith(f"{part}.")}
        network[part] = None
    write_checkpoint(out, description, weights)
    print(f"wrote {out}: {count} tokens in place of {len(old)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--without", nargs="*", default=[])
    options = parser.parse_args()
    try:
        main(options.checkpoint, options.out, options.tokens, options.without)
    except KaleidosceneError as error:
        raise SystemExit(str(error)) from error
