"""What every family must keep, run over the registry: loads strictly, renders, is deterministic, says what it costs."""

from pathlib import Path

import pytest
import torch

from kaleidoscene.families.kaleido.checkpoint import save_model
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.registry import FAMILIES, load_folder
from kaleidoscene.families.system import System
from kaleidoscene.rendering.renderer import Renderer
from tests.conftest import CAUSAL, randomised, ring, tiny_renderer


def _kaleido(folder: Path) -> dict[str, torch.Tensor]:
    settings = tiny_renderer(**CAUSAL, steps=2).settings
    weights = dict(randomised(Kaleido(settings.model)).named_parameters())
    save_model(folder, settings, weights)
    return weights


MAKERS = {"kaleido": _kaleido}


@pytest.fixture(params=sorted(FAMILIES))
def made(request, tmp_path) -> tuple[System, dict[str, torch.Tensor]]:
    weights = MAKERS[request.param](tmp_path / "model")
    return load_folder(tmp_path / "model", "cpu", "fp32"), weights


def test_saved_weights_load_bit_for_bit(made):
    system, weights = made
    model = system.renderer.model
    for name, p in model.named_parameters():
        assert p.equal(weights[name]), name
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_the_renderer_keeps_the_protocol(made):
    system, _ = made
    renderer = system.renderer
    assert isinstance(renderer, Renderer)
    cameras = ring(5, system.image_size)
    scene = renderer.encode(torch.rand(1, 2, 3, *system.image_size), cameras[:2].reshape(1, 2))
    assert scene.num_references == 2 and scene.nbytes > 0
    targets = cameras[2:].reshape(1, 3)
    first = renderer.render(scene, targets, seeds=[1, 2, 3])
    assert first.images.shape == (1, 3, 3, *system.image_size)
    assert first.images.min() >= 0 and first.images.max() <= 1
    assert renderer.render(scene, targets, seeds=[1, 2, 3]).images.equal(first.images)
    grown = renderer.extend(scene, first.images[:, :1], targets[:, :1], keep=[0])
    assert grown.num_references == 2


def test_cost_grows_with_the_request(made):
    system, _ = made
    small, large = system.cost(1, 2), system.cost(4, 9)
    assert large.flops > small.flops and large.memory > small.memory
    assert small.parameters == large.parameters > 0
    assert system.with_sampling(steps=4, guidance=None).cost(1, 2).flops > small.flops
