"""The command line with a small discriminator in ``rae3d-debug``, for processes of their own."""

import sys
from dataclasses import replace

from kaleidoscene.cli.main import end_process, main
from kaleidoscene.families.rae3d.config import DiscriminatorConfig
from kaleidoscene.families.rae3d.recipe import Rae3dRecipe
from kaleidoscene.families.rae3d.recipes import RECIPES, rae3d_debug


def small() -> Rae3dRecipe:
    """The recipe, with the adversarial loss."""
    base = rae3d_debug()
    network = replace(base.settings.model, discriminator=DiscriminatorConfig(kind="patches", channels=(6, 8)))
    return replace(base, settings=replace(base.settings, model=network), loss=replace(base.loss, adversarial=0.2))


if __name__ == "__main__":
    RECIPES["rae3d-debug"] = small
    end_process(main(sys.argv[1:]))
