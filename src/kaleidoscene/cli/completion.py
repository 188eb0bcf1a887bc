"""kaleidoscene completion: what shells offer when TAB is pressed."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import tyro

from kaleidoscene.cli.common import parse
from kaleidoscene.cli.completion_scripts import bash, fish
from kaleidoscene.families.registry import recipe_names


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Print a script that completes verbs, options and their values; a shell reads it once.

    bash: kaleidoscene completion bash > ~/.local/share/bash-completion/completions/kaleidoscene
    zsh:  kaleidoscene completion zsh > ~/.kaleidoscene.zsh; echo 'source ~/.kaleidoscene.zsh' >> ~/.zshrc
    fish: kaleidoscene completion fish > ~/.config/fish/completions/kaleidoscene.fish
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """For which shell."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(CompletionOptions, argv, "completion")
    found = {verb: dict(sorted(_of_verb(verb))) for verb in _verbs()}
    print(fish(found) if options.shell == "fish" else bash(found, zsh=options.shell == "zsh"), end="")


def _verbs() -> list[str]:
    from kaleidoscene.cli.main import VERBS  # noqa: PLC0415  which names this module

    return list(VERBS)


def _of_verb(verb: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Options of a verb, each with the words that may follow; those of its arguments under an empty name."""
    module = importlib.import_module(f"kaleidoscene.cli.{verb}")
    yield from options_of(_options_class(module, verb))
    if verb == "train":
        from kaleidoscene.families.registry import find_recipe  # noqa: PLC0415

        yield "", tuple(recipe_names())
        for cls in {type(find_recipe(name).options) for name in recipe_names()}:
            yield from options_of(cls)


def _options_class(module: ModuleType, verb: str) -> type[Any]:
    return getattr(module, f"{verb.capitalize()}Options")


def options_of(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Flags of a dataclass of options as its parser knows them, with the words that may follow each.

    Args:
        cls: The dataclass; those in it have their name before a dot.
        prefix: Before all names.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        positional = "Positional" in str(hints[field.name])
        kinds = list(_plain(hints[field.name]))
        name = prefix + field.name.replace("_", "-")
        nested = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
        words = tuple(
            str(word) for kind in kinds if typing.get_origin(kind) is Literal for word in typing.get_args(kind)
        )
        if nested:
            for kind in nested:
                yield from options_of(typing.cast(type[Any], kind), f"{name}.")
        elif positional:
            if words:
                yield "", words
        else:
            yield f"--{name}", words
            if bool in kinds:
                head, dot, last = name.rpartition(".")
                yield f"--{head}{dot}no-{last}", ()


def _plain(hint: Any) -> Iterator[Any]:
    """Types that a hint allows, without what is written about them."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        yield from _plain(typing.get_args(hint)[0])
    elif origin is not None and origin is not Literal and type(None) in typing.get_args(hint):
        for kind in typing.get_args(hint):
            yield from _plain(kind)
    else:
        yield hint
