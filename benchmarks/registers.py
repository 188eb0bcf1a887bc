"""Top activation over some thousand steps with 0 and 1 registers (Kaleido section 3.2.2, Table 4 (vii)), as curves."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from benchmarks.common import write_result
from kaleidoscene.evaluation.plots import Curve, draw_plot
from kaleidoscene.families.kaleido.recipes.ablations import ablation_recipes, nano_scale
from kaleidoscene.families.kaleido.recipes.recipe import KaleidoRecipe
from kaleidoscene.training.run import RunOptions
from kaleidoscene.workflows.training import train


def recipe(registers: int, steps: int, width: int) -> KaleidoRecipe:
    """The paper's network in small: bidirectional, velocity, AdamW, no query/key norm; blocks of 8 at 32 px."""
    base = ablation_recipes(nano_scale(), features=False)["register-1"]
    model = replace(base.settings.model, registers=registers, width=width, hidden_width=3 * width, depth=8,
                    latent_channels=192)  # fmt: skip
    optim = replace(base.train.optim, optimiser="adamw", learning_rate=1e-3, warmup=100, cooldown=0.0)
    return replace(
        base,
        settings=replace(base.settings, model=model, codec=replace(base.settings.codec, factor=8)),
        data=replace(base.data, batch_size=8),
        train=replace(base.train, steps=steps, optim=optim, checkpoint_every=500, log_every=10, precision="bf16"),
    )


def tops(run: Path) -> list[tuple[float, float]]:
    """Step and largest output of any block."""
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        values = [value for name, value in record.items() if name.startswith("top_activation/")]
        if values:
            found.append((float(record["step"]), max(values)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--registers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--compile", action="store_true", help="compile the blocks")
    parser.add_argument("--report", action="store_true", help="only write down runs that are there")
    options = parser.parse_args()
    for count in [] if options.report else options.registers:
        made = recipe(count, options.steps, options.width)
        made = replace(made, train=replace(made.train, compile=options.compile, workers=1))
        train(made, RunOptions(out=options.out / f"registers-{count}", shards=(str(options.shards),)))
    curves = {f"{count} registers": tops(options.out / f"registers-{count}") for count in options.registers}
    draw_plot(
        Path(__file__).with_suffix(".png"), "Largest output of any block", "training step", "top activation",
        [Curve(name, curve) for name, curve in curves.items()],
    )  # fmt: skip
    lines = [
        f"Width {options.width}, 8 blocks, 32 px in blocks of 8, the paper's objective with AdamW, batch 8,",
        f"{options.steps} steps, one seed. The paper sees 15192 and 398 with 0 and 1 registers after 100K steps of",
        "653M parameters. Curves: [registers.png](registers.png).",
        "",
        "| registers | step 100 | " + " | ".join(f"step {options.steps * n // 4}" for n in (1, 2, 3, 4)) + " |",
        "|---|---|---|---|---|---|",
    ]
    for name, curve in curves.items():
        shown = [_near(curve, step) for step in (100, *(options.steps * n // 4 for n in (1, 2, 3, 4)))]
        lines.append(f"| {name} | " + " | ".join(f"{value:.1f}" for value in shown) + " |")
    write_result("registers", "Top activation with 0 and 1 registers", lines)


def _near(curve: list[tuple[float, float]], step: float) -> float:
    """Mean of the ten records up to a step."""
    values = [value for at, value in curve if at <= step][-10:]
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
