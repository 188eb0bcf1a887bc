"""kaleidoscene info: what a request will cost, before anything runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import tyro

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import family_of, resolve
from kaleidoscene.families.registry import find_recipe, plan_of
from kaleidoscene.machine import check_device, measure_speed
from kaleidoscene.rendering.cost import cost_of_calls
from kaleidoscene.rendering.ordering import RenderMode
from kaleidoscene.workflows.costs import Hardware, describe_request, describe_training, plan_training


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Parameters, operations, memory and time: of rendering M views from N references, or of training a recipe."""

    recipe: tyro.conf.Positional[str | None] = None
    """A recipe: what training it takes, and rendering with its network."""
    model: str = "default"
    """'default', a checkpoint or run folder, or a hub id, where no recipe is given."""
    training: Hardware = Hardware()
    image_size: tuple[int, int] | None = None
    """Height and width of the views; by default the model's. At whole multiples of it models that copy pixels from
    references, such as the default one, do so, as in render; else the cost is that of such a network at this size."""
    references: int = 3
    targets: int = 24
    steps: int | None = None
    guidance: float | None = None
    mode: RenderMode | None = None
    """As of render: joint, independent or autoregressive; by default as the model renders."""
    chunk: int | None = None
    """Targets in one call; by default the model's."""
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(InfoOptions, argv, "info")
    for name in ("references", "targets"):
        if getattr(options, name) < 1:
            raise KaleidosceneError(f"--{name} must be at least 1, got {getattr(options, name)}.")
    check_device(options.device)
    training = None
    if options.recipe is not None:
        recipe = find_recipe(options.recipe)
        family, plan = recipe.family, recipe.plan
        training = plan_training(recipe, options.training)
        print("\n".join(describe_training(recipe, training, options.training)))
    else:
        folder = resolve(options.model)
        family, plan = family_of(folder), plan_of(folder)
    try:
        plan = plan.with_sampling(steps=options.steps, guidance=options.guidance)
        if options.image_size is not None:
            plan = plan.with_image_size(options.image_size)
        calls = plan.default_plan.changed(mode=options.mode, chunk=options.chunk)
        call = partial(plan.cost, precision=options.precision)
        cost = cost_of_calls(call, options.references, options.targets, calls, remembers=plan.remembers)
    except ValueError as error:
        raise KaleidosceneError(str(error)) from error
    h, w = plan.image_size
    print(f"{options.recipe or options.model}: {family}, {cost.parameters / 1e6:.1f} M parameters, {h}x{w}")
    where = {"device": options.device, "precision": options.precision}
    print("\n".join(describe_request(cost, options.references, options.targets, **where)))
    if options.json:
        seconds = cost.seconds(measure_speed(**where), options.device)
        numbers = {"parameters": cost.parameters, "flops": cost.flops, "memory": cost.memory, "cache": cost.cache}
        print_json({**numbers, "seconds": seconds, "training": None if training is None else asdict(training)})
