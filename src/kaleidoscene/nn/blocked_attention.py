"""Attention on a CPU in blocks whose logits stay in the cache, as matrix products in the type of the inputs.

PyTorch's fused kernel computes in fp32 on CPUs that have no AMX, so that bfloat16 gains nothing there
(benchmarks/attention_backends.md, which also has what rounding the logits costs). Here queries go block after block
through two matrix products and a softmax; the backward pass makes the weights again instead of keeping them, as
FlashAttention does (Dao et al. 2022, section 3). It is an operator of its own, so that torch.compile takes it whole
instead of unrolling the loop.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Logits of one block; from 2 to 8 MiB it makes no difference with 32 MiB of shared cache, less is slower.
_BLOCK_BYTES = 4 * 2**20


@torch.library.custom_op(
    "kaleidoscene::attend_in_blocks", mutates_args=(), schema="(Tensor q, Tensor k, Tensor v) -> Tensor"
)
def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T) v``; sums are fp32 inside, logits and weights are rounded to the type of the inputs.

    It can be differentiated once, in reverse mode; in forward mode PyTorch takes its derivative for zero.

    Args:
        q: Scaled queries ``(problems, queries, dim)``.
        k: Keys ``(problems, keys, dim)``.
        v: Values ``(problems, keys, value_dim)``.
    """
    out = q.new_empty(*q.shape[:2], v.shape[2])
    with torch.autocast("cpu", enabled=False):
        for problems, queries in _blocks(q, k):
            weights = torch.softmax(torch.bmm(q[problems, queries], k[problems].mT), dim=-1)
            out[problems, queries] = torch.bmm(weights, v[problems])
    return out


@attend_in_blocks.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(*q.shape[:2], v.shape[2])


@torch.library.custom_op(
    "kaleidoscene::attend_in_blocks_backward", mutates_args=(),
    schema="(Tensor grad, Tensor q, Tensor k, Tensor v) -> (Tensor, Tensor, Tensor)",
)  # fmt: skip
def _backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_q = torch.empty_like(q, memory_format=torch.contiguous_format)
    # Keys and values gather from all blocks of their queries.
    gathered = torch.promote_types(q.dtype, torch.float32)
    grad_k, grad_v = k.new_zeros(k.shape, dtype=gathered), v.new_zeros(v.shape, dtype=gathered)
    with torch.autocast("cpu", enabled=False):
        for problems, queries in _blocks(q, k):
            block, incoming = q[problems, queries], grad[problems, queries]
            weights = torch.softmax(torch.bmm(block, k[problems].mT), dim=-1)
            grad_v[problems] += torch.bmm(weights.mT, incoming)
            grad_logits = _softmax_backward(torch.bmm(incoming, v[problems].mT), weights)
            grad_q[problems, queries] = torch.bmm(grad_logits, k[problems])
            grad_k[problems] += torch.bmm(grad_logits.mT, block)
    return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)


@_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _softmax_backward(grad: Tensor, weights: Tensor) -> Tensor:
    """``weights * (grad - sum(weights * grad))`` in one pass."""
    return torch.ops.aten._softmax_backward_data(grad, weights, -1, weights.dtype)


def _save(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


attend_in_blocks.register_autograd(lambda ctx, grad: _backward(grad, *ctx.saved_tensors), setup_context=_save)


def _blocks(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Several whole problems where these are small, else parts of the queries of one."""
    problems, queries = q.shape[:2]
    row = max(1, k.shape[1]) * q.element_size()
    together = _BLOCK_BYTES // (max(1, queries) * row)
    if together:
        for first in range(0, problems, together):
            yield slice(first, first + together), slice(None)
        return
    rows = max(1, _BLOCK_BYTES // row)
    for problem in range(problems):
        for first in range(0, queries, rows):
            yield slice(problem, problem + 1), slice(first, first + rows)
