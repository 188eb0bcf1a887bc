"""What TAB offers, asked of real shells."""

import shutil
import subprocess
import sys

import pytest

from kaleidoscene.cli.completion import options_of
from kaleidoscene.cli.main import VERBS, main
from kaleidoscene.cli.render import RenderOptions
from kaleidoscene.cli.synthesize import SynthesizeOptions


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Files of all shells, by name."""
    folder, found = tmp_path_factory.mktemp("scripts"), {}
    for shell in ("bash", "zsh", "fish"):
        with pytest.MonkeyPatch.context() as patch:
            written: list[str] = []
            patch.setattr("builtins.print", lambda text, end="", written=written: written.append(text))
            assert main(["completion", shell]) == 0
        found[shell] = folder / shell
        found[shell].write_text("".join(written))
    return found


def offered(script, *words: str) -> list[str]:
    """What bash offers for the last word."""
    ask = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kaleidoscene; echo "${COMPREPLY[@]}"'
    command = ["bash", "-c", ask, str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_bash_offers_verbs_options_and_values(scripts, tmp_path):
    script = scripts["bash"]
    assert offered(script, "kaleidoscene", "") == list(VERBS)
    assert offered(script, "kaleidoscene", "inter") == ["interpolate"]
    assert offered(script, "kaleidoscene", "render", "capture", "--mas") == ["--masked"]
    assert offered(script, "kaleidoscene", "render", "--mode", "") == ["joint", "independent", "autoregressive"]
    assert offered(script, "kaleidoscene", "train", "rae3d-n") == [
        "rae3d-nano",
        "rae3d-nano-adversarial",
        "rae3d-nano-images",
    ]
    assert "--train.optim.muon-learning-rate" in offered(script, "kaleidoscene", "train", "rng-nano", "--train.optim.")
    assert offered(script, "kaleidoscene", "completion", "z") == ["zsh"]
    (tmp_path / "photographs").mkdir()
    (tmp_path / "My films").mkdir()
    assert " ".join(offered(script, "kaleidoscene", "render", str(tmp_path / "My"))) == str(tmp_path / "My films")
    ask = 'source "$0"; COMP_WORDS=(kaleidoscene render "$1"); COMP_CWORD=2; _kaleidoscene; echo "${#COMPREPLY[@]}"'
    count = subprocess.run(["bash", "-c", ask, script, tmp_path / "My"], capture_output=True, text=True, check=True)
    assert count.stdout.strip() == "1"
    assert offered(script, "kaleidoscene", "render", str(tmp_path / "ph")) == [str(tmp_path / "photographs")]


def test_flags_are_those_of_the_parser(capsys):
    for verb, cls in (("render", RenderOptions), ("synthesize", SynthesizeOptions)):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        said = capsys.readouterr().out.split()
        flags = [flag for flag, _ in options_of(cls) if flag]
        assert len(flags) > 5 and all(any(word.strip(",") == flag for word in said) for flag in flags)
        shown = {word.strip(",") for word in said if word.startswith("--") and len(word) > 2}
        assert {word for word in shown if word.strip("-")} - {"--help"} <= set(flags)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_scripts(scripts, shell):
    """Where they are installed, they offer the same; else what is written for them has every verb."""
    text = scripts[shell].read_text()
    assert all(verb in text for verb in VERBS)
    if shutil.which(shell) is None:
        return
    if shell == "fish":
        ask = f"source {scripts[shell]}; complete -C 'kaleidoscene render --mas'"
        said = subprocess.run(["fish", "-c", ask], capture_output=True, text=True, check=True).stdout
        assert said.split() == ["--masked"]
    else:
        ask = f"autoload -U compinit && compinit -u; source {scripts[shell]}; whence -w _kaleidoscene"
        done = subprocess.run(["zsh", "-f", "-c", ask], capture_output=True, text=True, check=True)
        assert "function" in done.stdout and not done.stderr


def test_help_and_version_as_people_type_them(capsys):
    assert main(["help"]) == 0 and "usage: kaleidoscene VERB" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["help", "generate"])
    assert ended.value.code == 0 and "Draw objects of nothing" in capsys.readouterr().out
    assert main(["-V"]) == 0 and capsys.readouterr().out.startswith("kaleidoscene ")


@pytest.mark.parametrize("words", ["--help", "-V", "completion bash"])
def test_a_reader_that_has_enough_is_no_error(words):
    """Nobody reads at all; output is written at once, so that the pipe is known to be broken."""
    ask = f"set -o pipefail; {sys.executable} -m kaleidoscene {words} | (exec 0<&-)"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
