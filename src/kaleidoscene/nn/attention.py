"""Scaled dot-product attention with grouped queries, and the readable twin it is tested against."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import forward_ad

from kaleidoscene.nn.blocked_attention import attend_in_blocks
from kaleidoscene.nn.precision import CPU_CAPABILITIES

# In bfloat16 on a CPU PyTorch's fused backward is slow for short sequences: up to this many keys it is quicker to keep
# the weights (benchmarks/attention_backends.md).
_EXPLICIT_UP_TO_KEYS = 256
# Blocks pay on processors that multiply bfloat16 matrices but have no AMX, the only unit for it that the fused kernel
# knows. Without either, products in bfloat16 are many times slower than the fused kernel, which computes in fp32.
_BLOCKS_PAY = bool(CPU_CAPABILITIES.get("avx512_bf16")) and not CPU_CAPABILITIES.get("amx_bf16")


def attend(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys dim"],
    *,
    scale: float,
    mask: Bool[Tensor, "batch_or_1 1 queries_or_1 keys"] | None = None,
    bias: Float[Tensor, "batch_or_1 heads queries keys"] | None = None,
) -> Float[Tensor, "batch heads queries dim"]:
    """Softmax attention; ``mask`` is True where a query may attend, every query needs one such key.

    It has derivatives in forward mode too, which flow objectives of few steps ask for, but not inside torch.compile.

    Args:
        q: Queries; ``heads`` is a multiple of ``kv_heads`` (grouped-query attention).
        k: Keys.
        v: Values.
        scale: Factor on the logits.
        mask: Visibility of keys, or None where everything may be seen.
        bias: Added to the scaled logits; not beside a mask, which it can hold.
    """
    if bias is not None:
        if mask is not None:
            raise ValueError("attend takes a mask or a bias, not both.")
        return attend_with_bias(q, k, v, scale=scale, bias=bias)
    if _has_tangent(q, k, v):  # no fused kernel knows forward mode
        return attend_explicitly(q, k, v, scale=scale, mask=mask)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and mask is None:
        training = torch.is_grad_enabled() and q.requires_grad
        if training and k.shape[2] <= _EXPLICIT_UP_TO_KEYS:
            return attend_explicitly(q, k, v, scale=scale)
        if _BLOCKS_PAY:
            return attend_in_parts(q, k, v, scale=scale)
    grouped = q.shape[1] != k.shape[1]
    if grouped and mask is not None and q.device.type == "cuda":
        return attend_folded(q, k, v, scale=scale, mask=mask)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)


def attend_with_bias(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch heads keys dim"],
    v: Float[Tensor, "batch heads keys dim"],
    *,
    scale: float,
    bias: Float[Tensor, "batch_or_1 heads queries keys"],
) -> Float[Tensor, "batch heads queries dim"]:
    """The same with ``bias`` added to the logits, in the precision of the queries.

    On a CPU the weights are kept; logits in fp32 beside bfloat16 queries would take twice the memory and 1.2 times as
    long (a step of ``rae3d-nano-images``).
    """
    bias = bias.to(q.dtype)
    if q.device.type == "cpu":
        weights = torch.softmax((q * scale) @ k.mT + bias, dim=-1)
        return weights.to(v.dtype) @ v
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def attend_folded(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys dim"],
    *,
    scale: float,
    mask: Bool[Tensor, "batch_or_1 1 queries_or_1 keys"],
) -> Float[Tensor, "batch heads queries dim"]:
    """The same with the heads of a group as queries of one.

    On GPUs no memory-efficient kernel takes both a mask and groups, and what PyTorch falls back to keeps all weights.
    """
    groups = q.shape[1] // k.shape[1]
    if mask.shape[2] > 1:
        mask = mask.repeat(1, 1, groups, 1)
    folded = q.reshape(q.shape[0], k.shape[1], groups * q.shape[2], q.shape[3])
    out = torch.nn.functional.scaled_dot_product_attention(folded, k, v, attn_mask=mask, scale=scale)
    return out.reshape(q.shape)  # of that kernel tokens come before heads in memory


def attend_explicitly(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys dim"],
    *,
    scale: float,
    mask: Bool[Tensor, "batch_or_1 1 queries_or_1 keys"] | None = None,
) -> Float[Tensor, "batch heads queries dim"]:
    """The same by two matrix products and a softmax: readable, differentiable twice, quick for few keys."""
    batch, heads, queries, dim = q.shape
    kv_heads, keys = k.shape[1:3]
    q, k, v = _grouped(q * scale, k, v)
    logits = torch.bmm(q, k.mT)
    if mask is not None:
        logits = logits.view(batch, kv_heads, heads // kv_heads, queries, keys)
        logits = logits.masked_fill(~mask[:, :, None], -torch.inf).view(batch * kv_heads, -1, keys)
    weights = torch.softmax(logits, dim=-1).to(v.dtype)
    return torch.bmm(weights, v).view(batch, heads, queries, dim)


def attend_in_parts(
    q: Float[Tensor, "batch heads queries dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys dim"],
    *,
    scale: float,
) -> Float[Tensor, "batch heads queries dim"]:
    """The same block after block (:mod:`kaleidoscene.nn.blocked_attention`): quick for many keys in bfloat16 on a CPU.

    Derivatives in forward mode are those of :func:`attend_explicitly`; the operator itself has none.
    """
    if _has_tangent(q, k, v):
        return attend_explicitly(q, k, v, scale=scale)
    return attend_in_blocks(*_grouped(q * scale, k, v)).view(q.shape)


def _has_tangent(*tensors: Tensor) -> bool:
    """Whether a derivative in forward mode is being taken."""
    if torch.compiler.is_compiling():
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def _grouped(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Problems ``(batch * kv_heads, tokens, dim)``: the heads of a group share keys and stand in one product."""
    batch, heads, queries, dim = q.shape
    q = q.reshape(batch * k.shape[1], heads // k.shape[1] * queries, dim)  # said, as there may be no problem at all
    return q, k.flatten(0, 1), v.flatten(0, 1)
