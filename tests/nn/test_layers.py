import pytest
import torch

from kaleidoscene.nn.kv_cache import KVCache
from kaleidoscene.nn.masks import view_visibility
from kaleidoscene.nn.mlp import SwiGLU, swiglu_width
from kaleidoscene.nn.modulation import Modulation, layer_norm
from kaleidoscene.nn.patches import patchify, unpatchify
from kaleidoscene.nn.timestep import sinusoid


def test_patches_of_pixels_are_blocks_of_the_pixel_codec():
    """So that tokens of 16 x 16 single pixels and of one latent pixel of 16 x 16 take the same weights."""
    x = torch.randn(2, 3, 6, 10)
    tokens = patchify(torch.nn.functional.pixel_unshuffle(x, 2), 1)
    assert tokens.equal(patchify(x, 2))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_unpatchify_inverts_patchify(size):
    x = torch.randn(2, 3, 5, 2 * size, 4 * size)
    tokens = patchify(x, size)
    assert tokens.shape == (2, 3, 8, 5 * size**2)
    torch.testing.assert_close(unpatchify(tokens, size, (2, 4)), x)


def test_a_token_is_its_patch():
    x = torch.arange(2 * 4 * 6.0).reshape(2, 4, 6)
    torch.testing.assert_close(patchify(x, 2)[4].view(2, 2, 2), x[:, 2:4, 2:4])


def test_swiglu_is_its_formula_and_has_the_papers_widths():
    layer = SwiGLU(6, 10)
    x = torch.randn(2, 6)
    gate, up = layer.gate_and_up.weight.split(10)
    expected = (torch.nn.functional.silu(x @ gate.mT) * (x @ up.mT)) @ layer.down.weight.mT
    torch.testing.assert_close(layer(x), expected)
    assert [swiglu_width(w) for w in (1024, 1280, 1792)] == [2816, 3584, 4864]


def test_adaln_zero_starts_as_the_identity_and_follows_its_formula():
    modulation = Modulation("full", 4, 6, sublayers=3)
    modulation.reset_parameters()
    x, condition = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 4)
    for part in modulation(condition):
        torch.testing.assert_close(part.leave(x, torch.randn_like(x)), x)
    torch.nn.init.normal_(modulation.linear.weight)
    shift, scale, gate = modulation.linear(torch.nn.functional.silu(condition))[:, :, None].chunk(9, -1)[3:6]
    part = modulation(condition)[1]
    torch.testing.assert_close(part.enter(x), layer_norm(x) * (1 + scale) + shift)
    torch.testing.assert_close(part.leave(x, x), x + gate * x)


def test_modulation_variants():
    x, condition = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 4)
    shift = Modulation("shift", 4, 6, sublayers=3)
    assert shift.linear.weight.shape[0] == 3 * 6
    assert (shift(condition)[0].enter(x) - layer_norm(x)).abs().max() > 1e-3
    none = Modulation("none", 4, 6, sublayers=3)
    assert not list(none.parameters())
    torch.testing.assert_close(none(condition)[2].enter(x), layer_norm(x))


def test_timestep_sinusoid_is_dits():
    got = sinusoid(torch.tensor([0.0, 0.25]))
    torch.testing.assert_close(got[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    torch.testing.assert_close(got[1, 0], torch.tensor(250.0).cos(), rtol=0, atol=1e-4)
    slowest = torch.tensor(250 * 10_000 ** (-127 / 128)).cos()
    torch.testing.assert_close(got[1, 127], slowest, rtol=0, atol=1e-5)


def test_visibility_of_ragged_and_causal_views():
    present = torch.tensor([[True, False, True, True]])
    both = view_visibility(present, 2, causal=False)[0].int().tolist()
    assert both == [[1, 0, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 1, 1]]
    causal = view_visibility(present, 2, causal=True)[0].int().tolist()
    assert causal == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1], [1, 0, 1, 1]]


def test_cache_layout_memory_and_bounds():
    cache = KVCache.allocate(
        layers=2, batch=1, capacity=3, tokens=5, kv_heads=2, dim=4, dtype=torch.float32, device=torch.device("cpu")
    )
    assert cache.nbytes == 2 * 2 * 1 * 3 * 5 * 2 * 4 * 4
    k, v = torch.randn(2, 1, 2, 5, 2, 4)
    for layer in range(2):
        cache.layer(layer).write(k, v)
    cache.advance(2)
    torch.testing.assert_close(cache.layer(1).read()[0], k)
    with pytest.raises(ValueError, match="holds 3 views, 4"):
        cache.layer(0).write(k, v)
