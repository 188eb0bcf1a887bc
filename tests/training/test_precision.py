"""The precision of a run where none was asked for: what the device multiplies in."""

import json

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.nn import precision
from kaleidoscene.nn.precision import chosen, multiplies_bf16
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.optim import OptimConfig, Optimisers
from tests.training.test_trainer import losses, make_task, make_trainer, shards

__all__ = ["shards"]


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16", "bf16"])
def test_auto_is_bf16_where_the_processor_has_a_unit_for_it(monkeypatch, unit):
    monkeypatch.setattr(precision, "CPU_CAPABILITIES", {"avx2": True, unit: True, "cpu_name": "any"})
    assert multiplies_bf16("cpu") and chosen("auto", "cpu") == "bf16"
    monkeypatch.setattr(precision, "CPU_CAPABILITIES", {"avx2": True, unit: False, "cpu_name": "any"})
    assert not multiplies_bf16("cpu") and chosen("auto", "cpu") == "fp32"
    for there, told in ((True, "bf16"), (False, "fp32")):  # of a V100 they are emulated
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, there=there: there)
        assert chosen("auto", "cuda") == chosen("auto", torch.device("cuda", 1)) == told
    assert [chosen(name, "cpu") for name in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


@pytest.mark.parametrize("there", [True, False])
def test_a_run_trains_and_goes_on_in_what_was_chosen(shards, tmp_path, monkeypatch, there):
    monkeypatch.setattr(precision, "CPU_CAPABILITIES", {"avx512_bf16": there})
    told = "bf16" if there else "fp32"
    assert TrainConfig().precision == "auto"
    task, seen = make_task(), []
    task.model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    make_trainer(shards, tmp_path / "auto", task, precision="auto", steps=2).train()
    assert set(seen) == {there}
    assert json.loads((tmp_path / "auto" / "train.json").read_text())["precision"] == told
    make_trainer(shards, tmp_path / "told", precision=told, steps=2).train()
    assert losses(tmp_path / "auto") == losses(tmp_path / "told")
    for asked in ("auto", told):
        assert make_trainer(shards, tmp_path / "auto", precision=asked, steps=3).step == 2
    monkeypatch.setattr(precision, "CPU_CAPABILITIES", {"avx512_bf16": not there})
    with pytest.raises(KaleidosceneError, match=f"precision was {told}, is "):  # a machine of another kind
        make_trainer(shards, tmp_path / "auto", precision="auto", steps=3)
    assert make_trainer(shards, tmp_path / "auto", precision=told, steps=3).train().is_dir()


def test_muon_iterates_in_what_it_is_told():
    model = make_task().model
    model.to_empty(device="cpu")
    kinds = {half: Optimisers(model, OptimConfig(optimiser="muon"), half=half).all[1] for half in (True, False, None)}
    assert [kinds[half].half for half in (True, False)] == [True, False]  # pyright: ignore[reportAttributeAccessIssue]
    assert kinds[None].half == multiplies_bf16("cpu")  # pyright: ignore[reportAttributeAccessIssue]
