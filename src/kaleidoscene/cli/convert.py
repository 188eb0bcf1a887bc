"""kaleidoscene convert: captures for other tools and for training."""

from __future__ import annotations

from dataclasses import dataclass

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.workflows.conversion import ConversionOptions, convert


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(ConversionOptions):
    """Write a capture (or what was rendered) for another tool; image files are copied as they are where that goes."""

    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(ConvertOptions, argv, "convert")
    written = convert(options)
    print("\n".join(f"wrote {name}" for name in written))
    if options.json:
        print_json({"out": str(options.destination), "to": options.to, "files": [str(name) for name in written]})
