"""What a causal Kaleido keeps of its references: keys and values, and with reprojection what may be copied."""

from __future__ import annotations

from dataclasses import dataclass

from kaleidoscene.families.kaleido.ray_points import Sources
from kaleidoscene.nn.kv_cache import KVCache


@dataclass(eq=False)
class KaleidoCache:
    """References as :meth:`Kaleido.encode_references` left them.

    GTA keys and values depend on the pose of their own view only, so they serve any target pose, every denoising step
    and both branches of guidance (method A.13).

    Attributes:
        attention: Keys and values of every layer of cross-view attention.
        sources: What reprojection copies from.
    """

    attention: KVCache
    sources: Sources | None = None

    @property
    def nbytes(self) -> int:
        """Memory held; of sources all but their latents, which are the scene's."""
        if self.sources is None:
            return self.attention.nbytes
        parts = (self.sources.surfaces, self.sources.features, self.sources.outlines)
        return self.attention.nbytes + sum(part.nbytes for part in parts if part is not None)

    def add_sources(self, sources: Sources) -> None:
        """Keep what can be copied from new views."""
        self.sources = sources if self.sources is None else self.sources.join(sources)

    def expand(self, times: int) -> KaleidoCache:
        """The same for ``times`` independent copies of each scene, next to each other."""
        sources = None if self.sources is None else self.sources.repeat(times)
        return KaleidoCache(self.attention.expand(times), sources)
