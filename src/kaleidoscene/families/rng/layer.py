"""One layer of RnG: a block within every view, then one across views (method B.3 and B.4)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.rng.config import RngConfig
from kaleidoscene.nn.vit import KeysAndValues, ViTBlock


class Layer(nn.Module):
    """Frame block and global block; both add to what came in."""

    def __init__(self, config: RngConfig) -> None:
        super().__init__()

        def block() -> ViTBlock:
            return ViTBlock(
                config.width, config.heads, mlp_ratio=config.mlp_ratio, query_key_norm=True,
                layer_scale=config.layer_scale,
            )  # fmt: skip

        self.within, self.across = block(), block()

    def forward(
        self,
        x: Float[Tensor, "batch views tokens width"],
        angles: Float[Tensor, "tokens dim"],
        keys: Float[Tensor, "batch heads source_tokens dim"] | None = None,
        values: Float[Tensor, "batch heads source_tokens dim"] | None = None,
        mask: Bool[Tensor, "1 1 queries all_keys"] | None = None,
    ) -> tuple[Tensor, Tensor, KeysAndValues]:
        """Update the tokens of some views of every scene.

        Args:
            x: Views that see each other.
            angles: Places of the tokens of a view.
            keys: Of sources, which the views see as well and which stay as they are.
            values: Likewise.
            mask: True where a query may attend, where not everything may be seen.

        Returns:
            Tokens after either block, and the keys and values of ``x`` in the second, as attention met them.
        """
        batch, views, tokens, _ = x.shape
        within = self.within(x.flatten(0, 1), angles)[0]
        together = within.reshape(batch, views * tokens, -1)
        earlier = None if keys is None or values is None else (keys, values)
        across, own = self.across(together, angles.repeat(views, 1), earlier, mask)
        return within.reshape(x.shape), across.reshape(x.shape), own
