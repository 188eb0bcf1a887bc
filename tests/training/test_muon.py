"""Matrices of one shape go through Muon together, with the numbers of PyTorch's own."""

import pytest
import torch

from kaleidoscene.training import muon
from kaleidoscene.training.muon import Muon

SHAPES = [(24, 40), (40, 24), (24, 24), (24, 40), (7, 90), (1, 5), (40, 24)]


def trained(kind, steps: int, *, between=None):
    generator = torch.Generator().manual_seed(3)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    optimiser = kind(params, lr=0.05, weight_decay=0.1, momentum=0.9, nesterov=True)
    for step in range(steps):
        for n, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=generator)
            if n == 2 and step == 0:
                p.grad = None  # a matrix that a step does not use
        optimiser.step()
        if between is not None:
            between(optimiser)
    return params, optimiser


@pytest.mark.parametrize(("at_once", "half", "apart"), [(2**26, True, 5e-3), (1000, True, 5e-3), (1000, False, 0.03)])
def test_the_numbers_are_those_of_one_matrix_after_the_other(monkeypatch, at_once, half, apart):
    """Tall ones, wide ones, several of a shape; also where not all of a shape go at once.

    PyTorch iterates in bf16 everywhere; processors without such products take fp32, which rounds less.
    """
    monkeypatch.setattr(muon, "_AT_ONCE", at_once)
    monkeypatch.setattr(Muon, "half", half)
    ours, own = trained(Muon, 4)
    theirs, other = trained(torch.optim.Muon, 4)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=apart * 0.05)
        assert torch.equal(own.state[a]["momentum_buffer"], other.state[b]["momentum_buffer"])


def test_state_is_read_by_pytorch_and_from_it():
    whole, _ = trained(Muon, 4)

    def through_a_file(optimiser):
        optimiser.load_state_dict(
            torch.optim.Muon(optimiser.param_groups[0]["params"]).state_dict() | optimiser.state_dict()
        )

    again, _ = trained(Muon, 4, between=through_a_file)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_another_adjustment_of_the_rate_is_refused():
    p = torch.nn.Parameter(torch.ones(2, 3))
    p.grad = torch.ones(2, 3)
    with pytest.raises(TypeError, match="got 'match_rms_adamw'"):
        Muon([p], adjust_lr_fn="match_rms_adamw").step()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])  # of processors with and without such products
@pytest.mark.parametrize("shape", [(24, 90), (90, 24)])
def test_singular_values_become_alike_and_directions_stay(shape, dtype):
    """The iteration's coefficients bring them between 0.6 and 1.3 or so, and no nearer to 1."""
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    group = Muon([torch.nn.Parameter(torch.zeros(2, 2))]).param_groups[0]
    y = torch.stack(muon.orthogonalised(list(x.to(dtype)), group)).float()
    values = torch.linalg.svdvals(y)
    assert values.min() > 0.6 and values.max() < 1.3 and torch.linalg.svdvals(x).max() > 10
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    seen = u.mT @ y @ v.mT
    assert (seen - torch.diag_embed(seen.diagonal(dim1=1, dim2=2))).abs().max() < 0.05


def test_work_is_spread_evenly_and_rows_as_they_are_sharded():
    shapes = [torch.Size(shape) for shape in [(8, 8)] * 4 + [(64, 16), (16, 64)]]
    owners = muon._spread(shapes, 3)
    loads = [sum(min(s) ** 2 * max(s) for s, o in zip(shapes, owners, strict=True) if o == rank) for rank in range(3)]
    assert set(owners) == {0, 1, 2}
    assert max(loads) == 64 * 256 and min(loads) == 4 * 512
    assert [muon._rows(7, rank, 3) for rank in range(3)] == [len(part) for part in torch.zeros(7).chunk(3)] == [3, 3, 1]
    assert [muon._rows(2, rank, 3) for rank in range(3)] == [1, 1, 0]
