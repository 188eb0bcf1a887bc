"""kaleidoscene completion: what shells offer when TAB is pressed."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import tyro

from kaleidoscene.cli.common import parse
from kaleidoscene.families.registry import recipe_names

_BASH = """_kaleidoscene() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" options="" words=""
  if [ "$COMP_CWORD" = 1 ]; then words="{verbs}"
  else case "${{COMP_WORDS[1]}} $before" in
{values}
    *) case "${{COMP_WORDS[1]}}" in
{options}
    esac;;
  esac; fi
  if [ "${{current#-}}" != "$current" ]; then words="$options"; fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ "${{#COMPREPLY[@]}}" = 0 ]; then
    local IFS=$'\\n'  # names of files may have spaces
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -F _kaleidoscene kaleidoscene
"""


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
    print(_fish(found) if options.shell == "fish" else _bash(found, zsh=options.shell == "zsh"), end="")


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


def _bash(found: Mapping[str, Mapping[str, tuple[str, ...]]], *, zsh: bool) -> str:
    values = [
        f'    "{verb} {option}") words="{" ".join(words)}";;'
        for verb, options in found.items() for option, words in options.items() if words and option
    ]  # fmt: skip
    lists = [
        f'    {verb}) options="{" ".join(filter(None, options))}" words="{" ".join(options.get("", ()))}";;'
        for verb, options in found.items()
    ]
    script = _BASH.format(verbs=" ".join(found), values="\n".join(values), options="\n".join(lists))
    return f"autoload -U +X bashcompinit && bashcompinit\n{script}" if zsh else script


def _fish(found: Mapping[str, Mapping[str, tuple[str, ...]]]) -> str:
    lines = [f"complete -c kaleidoscene -n __fish_use_subcommand -f -a '{' '.join(found)}'"]
    for verb, options in found.items():
        where = f"complete -c kaleidoscene -n '__fish_seen_subcommand_from {verb}'"
        for option, words in options.items():
            flag = f" -l {option.removeprefix('--')}" if option else ""
            values = f"{' -x' if option else ''} -a '{' '.join(words)}'" if words else ""
            lines.append(f"{where}{flag}{values}")
    return "\n".join(lines) + "\n"
