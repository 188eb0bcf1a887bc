"""Scripts by which shells complete what is typed."""

from __future__ import annotations

from collections.abc import Mapping

Verbs = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Options by verb, each with the words that may follow; those of arguments under an empty name."""

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


def bash(found: Verbs, *, zsh: bool = False) -> str:
    """For bash, or for zsh, which takes those of bash."""
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


def fish(found: Verbs) -> str:
    """For fish."""
    lines = [f"complete -c kaleidoscene -n __fish_use_subcommand -f -a '{' '.join(found)}'"]
    for verb, options in found.items():
        where = f"complete -c kaleidoscene -n '__fish_seen_subcommand_from {verb}'"
        for option, words in options.items():
            flag = f" -l {option.removeprefix('--')}" if option else ""
            values = f"{' -x' if option else ''} -a '{' '.join(words)}'" if words else ""
            lines.append(f"{where}{flag}{values}")
    return "\n".join(lines) + "\n"
