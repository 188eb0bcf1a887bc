"""Make the tokens of training scenes ahead, for runs of 3DDiT without the autoencoder in the loop.

    python examples/10_tokens_ahead.py AUTOENCODER SHARDS TOKENS [--draws 4] [--views 8]
    kaleidoscene train dit3d-nano --autoencoder AUTOENCODER --shards TOKENS --tokens-ahead --out RUN

Every draw of a scene chooses other views, augments them and hides some. With --views 1 pictures with labels keep them.
"""

import argparse
from pathlib import Path

import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.dit3d.ahead import TokensAhead, write_tokens
from kaleidoscene.families.rae3d.system import load_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("autoencoder")
    parser.add_argument("shards", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--views", type=int, default=8)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    autoencoder = load_system(resolve(options.autoencoder), device).autoencoder
    config = TokensAhead(draws=options.draws, views=options.views)
    for done, total in write_tokens(options.autoencoder, autoencoder, options.shards, options.tokens, config):
        print(f"{done} of {total} scenes", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KaleidosceneError as error:
        raise SystemExit(str(error)) from error
