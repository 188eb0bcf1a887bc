"""What RnG makes of photographs: keys and values, cameras, and the world they are in."""

from __future__ import annotations

from dataclasses import dataclass

from kaleidoscene.families.rng.model import Sources
from kaleidoscene.families.rng.world import SourceWorld
from kaleidoscene.geometry.cameras import Cameras


@dataclass(frozen=True, eq=False)
class RngScene:
    """A scene; targets are asked for in the world of ``cameras``.

    Attributes:
        sources: What the network keeps.
        world: From the world of the cameras to that of the first source.
        cameras: As they were given; where none were, those that the network estimates.
        estimated: As the network estimates them, in the same world, whether any were given or not; None of a network
            without a camera head.
    """

    sources: Sources
    world: SourceWorld
    cameras: Cameras | None
    estimated: Cameras | None

    @property
    def num_references(self) -> int:
        """Sources."""
        return self.sources.num_views

    @property
    def nbytes(self) -> int:
        """Of keys and values."""
        return self.sources.nbytes
