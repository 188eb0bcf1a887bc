"""The annotations of shapes are checked while the tests run, but for those that are marked slow."""

import pytest
import torch
from jaxtyping import TypeCheckError

from kaleidoscene.geometry.poses import invert
from kaleidoscene.nn.attention import attend


def test_a_wrong_shape_raises():
    with pytest.raises(TypeCheckError):
        invert(torch.eye(3))


def test_sizes_with_one_name_must_agree():
    q, k = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8)
    with pytest.raises(TypeCheckError):
        attend(q, k, torch.zeros(2, 3, 6, 8), scale=1.0)


@pytest.mark.slow
def test_tests_marked_slow_go_without():
    with pytest.raises(IndexError):  # of the first line that fails
        invert(torch.eye(3))
