"""Attention across views within windows, with what hides views from each other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.projections import SCALE
from kaleidoscene.nn.attention import attend
from kaleidoscene.nn.registers import Registers
from kaleidoscene.nn.view_parallel import SomeWindows
from kaleidoscene.nn.windows import Windows


def attend_across_views(
    q: Float[Tensor, "batch q_views tokens heads query_dim"],
    k: Float[Tensor, "batch k_views tokens kv_heads key_dim"],
    v: Float[Tensor, "batch k_views tokens kv_heads value_dim"],
    *,
    windows: Windows | SomeWindows,
    registers: Registers,
    visible: Bool[Tensor, "batch views views"] | None,
    causal_references: int,
) -> Float[Tensor, "batch q_views tokens heads wide"]:
    """Windowed attention of transformed queries to transformed keys and values.

    Args:
        q: Queries of some views, with the channels that registers add.
        k: Keys; of the same views, or of references before them.
        v: Values.
        windows: Which tokens of all views attend to each other.
        registers: Learned keys and values that every query sees.
        visible: Which views see which; it holds the direction of attention, too. None: no view is hidden.
        causal_references: How many of the first views see each other alone, where no view is hidden (0: none).
    """
    n = causal_references
    joint = q.shape[1] == k.shape[1]
    if joint and visible is None and 0 < n < q.shape[1]:
        # What references may not see is left out instead of masked.
        references = _within_windows(q[:, :n], k[:, :n], v[:, :n], windows, registers, None)
        return torch.cat([references, _within_windows(q[:, n:], k, v, windows, registers, None)], dim=1)
    return _within_windows(q, k, v, windows, registers, visible)


def _within_windows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    windows: Windows | SomeWindows,
    registers: Registers,
    visible: Bool[Tensor, "batch q_views k_views"] | None,
) -> Tensor:
    mask = windows.mask(visible, (q.shape[1], k.shape[1]), q.device)
    if mask is not None and registers.count:
        mask = nn.functional.pad(mask, (0, registers.count), value=True)
    if mask is not None and visible is None and q.shape[0] > 1:
        mask = mask.repeat(q.shape[0], 1, 1, 1)
    keys, values = registers.extend_keys(windows.partition(k), windows.partition(v))
    return windows.merge(attend(windows.partition(q), keys, values, scale=SCALE, mask=mask), q.shape[0])
