"""Rotary places, blocks with keys from elsewhere, and the dense head."""

import math

import pytest
import torch

from kaleidoscene.nn.dpt import DPTConfig, DPTHead, place_embedding
from kaleidoscene.nn.rotary import grid_angles, rotate
from kaleidoscene.nn.vit import ViTBlock
from tests.conftest import randomised


def test_products_depend_on_distances_alone():
    """Queries and keys at two places, moved by the same rows and columns: the same product; lengths stay."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 2, 1, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    angles = grid_angles((5, 7), 16).double().unflatten(0, (5, 7))

    def product(a: tuple[int, int], b: tuple[int, int]):
        return (rotate(q, angles[a][None]) * rotate(k, angles[b][None])).sum(-1)

    torch.testing.assert_close(product((0, 1), (2, 4)), product((2, 3), (4, 6)), rtol=0, atol=1e-5)
    assert not product((0, 1), (2, 4)).allclose(product((0, 1), (3, 4)))
    assert not product((0, 1), (2, 4)).allclose(product((0, 1), (2, 5)))
    torch.testing.assert_close(rotate(q, angles[3, 5][None]).norm(dim=-1), q.norm(dim=-1))


def test_angles_by_hand():
    """Base 100: frequencies 1 and 1/10 for heads of 8; rows turn the first half, columns the second (method B.3)."""
    angles = grid_angles((2, 3), 8, special=2)
    assert angles.shape == (8, 8) and not angles[:2].any()
    torch.testing.assert_close(angles[2 + 5], torch.tensor([2, 0.2, 2, 0.2, 3, 0.3, 3, 0.3]))
    x = torch.zeros(1, 1, 1, 8)
    x[..., 0] = 1  # turns towards the other half of its axis
    turned = rotate(x, angles[7:])[0, 0, 0]
    expected = torch.zeros(8)
    expected[0], expected[2] = math.cos(2), math.sin(2)
    torch.testing.assert_close(turned, expected)
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        grid_angles((2, 3), 6)


def test_keys_from_elsewhere_are_those_of_one_sequence():
    """The last tokens of a sequence from the keys and values of the first ones, which do not see them."""
    block = randomised(ViTBlock(12, 3, query_key_norm=True, layer_scale=0.1)).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    angles = torch.randn(7, 4, dtype=torch.float64)
    visible = torch.ones(7, 7, dtype=torch.bool)
    visible[:4, 4:] = False
    whole, _ = block(x, angles, mask=visible[None, None])
    first, kept = block(x[:, :4], angles[:4])
    last, own = block(x[:, 4:], angles[4:], kept)
    torch.testing.assert_close(torch.cat([first, last], 1), whole)
    assert own[0].shape == (2, 3, 3, 4)


def test_the_dense_head_knows_places_and_sizes():
    """Any grid; of tokens that are all alike the map still tells where a pixel is."""
    head = randomised(DPTHead(10, 8, 3, DPTConfig(channels=(4, 8, 12, 16), fused=8, last=5)))
    layers = [torch.ones(2, 3 * 5, 10) for _ in range(4)]
    out = head(layers, (3, 5))
    assert out.shape == (2, 3, 24, 40) and out[0, 0].std() > 0
    torch.testing.assert_close(out[0], out[1], rtol=1e-3, atol=1e-3 * float(out.detach().std()))


def test_place_embedding_by_hand():
    """3:4 has a diagonal of 5: pixel centres of a row lie in -0.8..0.8, of a column in -0.6..0.6."""
    found = place_embedding(8, (3, 4), 4 / 3, torch.zeros((), dtype=torch.float64))
    x, y = 0.8 * 3 / 4, 0.6 * 2 / 3
    column = [math.sin(x), math.sin(x / 10), math.cos(x), math.cos(x / 10)]
    row = [math.sin(y), math.sin(y / 10), math.cos(y), math.cos(y / 10)]
    torch.testing.assert_close(found[:, 2, 3], torch.tensor(column + row, dtype=torch.float64))
