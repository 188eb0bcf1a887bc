"""kaleidoscene ablate: run the rows of the paper's ablation and set them beside its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.experiments.ablation import AblationOptions, run_ablation
from kaleidoscene.serialisation import to_plain


@dataclass(frozen=True, kw_only=True)
class AblateOptions(AblationOptions):
    """Train every row of the ablation, in the paper's greedy order, and write a table and a plot; it can go on."""

    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(AblateOptions, argv, "ablate")
    results = run_ablation(options)
    for name in ("results.json", "table.md", "plot.png"):
        print(f"wrote {options.out / name}")
    if options.json:
        print_json({"out": str(options.out), "results": [to_plain(result) for result in results]})
