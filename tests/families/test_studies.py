"""Ablations of RnG and 3DRAE: what their rows change, and a table of trained rows."""

import json
from dataclasses import replace

import pytest
import torch

from kaleidoscene.captures.conversion.rendered import write_rendered_capture
from kaleidoscene.cli.main import main
from kaleidoscene.families.registry import FAMILIES, find_ablation
from tests.conftest import ring

pytest.importorskip("moderngl")  # scenes_with_depth are rendered


@pytest.mark.parametrize("suite", ["rng", "rae3d"])
def test_a_row_changes_what_it_names_alone(suite):
    study = find_ablation(suite)
    base = study.scales["nano"]()
    recipes = study.recipes(base, False)
    assert list(recipes) == [row.name for row in study.rows] and study.rows[0].chosen
    first = recipes[study.rows[0].name]
    for name, recipe in recipes.items():
        assert recipe.train == first.train and recipe.data == first.data and recipe.synthetic == first.synthetic
        model, before = recipe.settings.model, first.settings.model
        changed = {key for key in vars(before) if getattr(model, key) != getattr(before, key)}
        changed |= {key for key in vars(first.loss) if getattr(recipe.loss, key) != getattr(first.loss, key)}
        assert len(changed) == (0 if recipe is first else 1), name
    assert len({str(recipe) for recipe in recipes.values()}) == len(recipes)


@pytest.mark.parametrize(("suite", "rows"), [("rng", ["causal", "full-attention"]), ("rae3d", ["tokens-64"])])
def test_rows_are_trained_and_scored(tmp_path, monkeypatch, capsys, scenes_with_depth, suite, rows):
    """At the size of the family's debug recipe; each of both settings of references, and a throughput."""
    base = FAMILIES[suite].recipes[f"{suite}-debug"]()
    study = find_ablation(suite)
    monkeypatch.setitem(study.scales, "debug", lambda: replace(base, train=replace(base.train, validate_every=10**9)))
    rgba = torch.randint(0, 256, (25, 32, 32, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    (tmp_path / "held" / "one").mkdir(parents=True)
    write_rendered_capture(tmp_path / "held" / "one", rgba.numpy(), ring(25, (32, 32)))
    arguments = [
        "ablate", "--suite", suite, "--scale", "debug", "--out", str(tmp_path / "out"), "--steps", "1", "--rows", *rows,
        "--held-out", str(tmp_path / "held"), "--shards", str(scenes_with_depth), "--workers", "0", "--objects", "1",
    ]  # fmt: skip
    assert main(arguments) == 0, capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["suite"] == suite and [result["row"] for result in document["results"]] == rows
    for result in document["results"]:
        assert set(result["psnr"]) == {"1->5", "5->1", "5->5"} and all(3 < x < 60 for x in result["psnr"].values())
        assert result["top_activation"] > 0
    assert main([*arguments, "--sampling-steps", "2"]) == 1
    assert "--sampling-steps 2: this suite's models answer in one pass" in capsys.readouterr().err
