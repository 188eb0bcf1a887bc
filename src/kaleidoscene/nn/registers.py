"""Attention registers: learned keys and values that take the load off massive activations.

Kaleido section 3.2.2 (after Sun et al.): every attention layer appends learned keys and values, never queries, that
no mask hides. The paper does not say where a register stands; docs/papers.md (open choice E6) has the readings.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.errors import unknown_name

RegisterMode = Literal["query_frame", "identity", "none"]


class Registers(nn.Module):
    """Learned keys and values of one attention layer, one set for each key/value head.

    ``identity``: the register stands at the identity pose, as an untransformed key.
    ``query_frame``: it stands in the frame of whoever asks, logit q.k_r and value v_r before and after all transforms;
    the output stays exactly independent of the world frame.
    """

    def __init__(self, count: int, kv_heads: int, dim: int, mode: RegisterMode, *, reserved: int = 0) -> None:
        super().__init__()
        if mode not in get_args(RegisterMode):
            raise unknown_name("mode of registers", mode, get_args(RegisterMode))
        self.dim, self.reserved = dim, reserved
        self.count = count if mode != "none" else 0
        self.mode: RegisterMode = mode if self.count else "none"
        if self.count:
            self.keys = nn.Parameter(torch.empty(kv_heads, self.count, dim))
            self.values = nn.Parameter(torch.empty(kv_heads, self.count, dim))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with standard deviation 0.02."""
        if self.count:
            nn.init.normal_(self.keys, std=0.02)
            nn.init.normal_(self.values, std=0.02)

    @property
    def extra_dim(self) -> int:
        """Channels that are appended; with the reserved ones a multiple of 8, which fused kernels want."""
        used = self.count + self.reserved if self.mode == "query_frame" else self.reserved
        return -(-used // 8) * 8 - self.reserved

    def extend_query(
        self, transformed: Float[Tensor, "*batch heads more"], plain: Float[Tensor, "*batch heads dim"]
    ) -> Float[Tensor, "*batch heads wide"]:
        """Append the logits with the registers as channels, so that plain attention can weigh them.

        ``transformed`` may carry reserved channels behind its own.

        With ``k~ = (k', 0)`` for tokens and ``k~_r = (0, e_r)`` for register r, ``q~ = (q', q.k_r)`` has the logits
        ``q'.k'`` and ``q.k_r``: as doubling the head would, at the price of a few channels.
        """
        if self.mode != "query_frame":
            return nn.functional.pad(transformed, (0, self.extra_dim))
        kv_heads = self.keys.shape[0]
        grouped = plain.unflatten(-2, (kv_heads, plain.shape[-2] // kv_heads))
        logits = (grouped @ self.keys.to(plain.dtype).mT).flatten(-3, -2)
        return torch.cat([transformed, nn.functional.pad(logits, (0, self.extra_dim - self.count))], dim=-1)

    def extend_keys(
        self, k: Float[Tensor, "batch kv_heads keys wide"], v: Float[Tensor, "batch kv_heads keys dim"]
    ) -> tuple[Float[Tensor, "batch kv_heads more wider"], Float[Tensor, "batch kv_heads more wider"]]:
        """Append the registers behind the other keys and values; keys may carry reserved channels already."""
        k, v = nn.functional.pad(k, (0, self.extra_dim)), nn.functional.pad(v, (0, self.extra_dim + self.reserved))
        if self.mode == "none":
            return k, v
        batch, kv_heads, _, wide = k.shape
        if self.mode == "identity":
            keys, values = (nn.functional.pad(x, (0, wide - self.dim)) for x in (self.keys, self.values))
        else:
            unit = torch.eye(self.count, self.extra_dim, dtype=k.dtype, device=k.device).expand(kv_heads, -1, -1)
            keys = nn.functional.pad(unit, (self.dim + self.reserved, 0))
            values = nn.functional.pad(unit, (self.dim, self.reserved))
        shape = (batch, -1, -1, -1)
        return torch.cat([k, keys.to(k.dtype).expand(shape)], 2), torch.cat([v, values.to(v.dtype).expand(shape)], 2)

    def split_output(
        self, out: Float[Tensor, "*batch heads wide"]
    ) -> tuple[Float[Tensor, "*batch heads dim"], Float[Tensor, "*batch heads dim"] | None]:
        """Part the attention output into what the output transform takes and what registers add after it."""
        tokens = out[..., : self.dim]
        if self.mode != "query_frame":
            return tokens, None
        weights = out[..., self.dim : self.dim + self.count]
        grouped = weights.unflatten(-2, (self.values.shape[0], weights.shape[-2] // self.values.shape[0]))
        return tokens, (grouped @ self.values.to(out.dtype)).flatten(-3, -2)
