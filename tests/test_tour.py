"""The notebook of examples runs, shows pictures, and says what its stored output says."""

import ast
import contextlib
import io
import json
import re

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

TOUR = REPOSITORY / "examples" / "tour.ipynb"


def run_cell(source: str, names: dict) -> tuple[str, object]:
    """What a cell prints and what it shows, as a notebook runs it."""
    tree, shown, printed = ast.parse(source), None, io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), shown


def decibels(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) dB", text)]


def test_the_tour_runs_and_says_what_it_stored(monkeypatch):
    monkeypatch.chdir(TOUR.parent)
    cells = [cell for cell in json.loads(TOUR.read_text())["cells"] if cell["cell_type"] == "code"]
    names, pictures, scores = {}, 0, 0
    for cell in cells:
        text, shown = run_cell("".join(cell["source"]), names)
        stored = "".join("".join(output.get("text", "")) for output in cell["outputs"])
        assert decibels(text) == pytest.approx(decibels(stored), abs=0.1)
        scores += len(decibels(text))
        kinds = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        if "text/html" in kinds:
            assert shown is not None and "data:image/png;base64" in shown._repr_html_()  # pyright: ignore
            pictures += 1
    assert pictures == 4 and scores == 6
