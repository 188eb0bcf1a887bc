"""What a method of making views can do, as plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from kaleidoscene.errors import KaleidosceneError


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Of a family of models, or a baseline.

    What is off by default is what a method has to say of itself.
    """

    needs_cameras: bool = True
    """References must come with cameras."""
    estimates_cameras: bool = False
    """Where references come without cameras, its scenes have those that it estimated."""
    renders_depth: bool = False
    """Renderings have depths."""
    renders_points: bool = False
    """Renderings have a world point for every pixel, with a confidence."""
    samples: bool = False
    """Views are drawn in a number of steps, with a guidance scale, which may be chosen."""
    generates: bool = False
    """Scenes are drawn of nothing, for cameras alone (:class:`kaleidoscene.rendering.system.Imagining`)."""
    takes_back_views: bool = True
    """Rendered views may become references of a scene (autoregressive rendering)."""
    any_lens: bool = False
    """Targets may have any field of view; otherwise all views are brought to that of the weights."""
    unit_of_cameras: bool = False
    """Lengths are told in units of how far the cameras of a request lie apart."""
    any_size: bool = False
    """Images may have any size; otherwise one of those of the weights."""


PHRASES = {
    "estimates_cameras": "estimates cameras",
    "renders_depth": "renders depth",
    "renders_points": "renders world points",
    "samples": "draws its views in steps with guidance",
    "generates": "draws scenes of nothing",
    "takes_back_views": "takes rendered views as references",
    "any_lens": "renders any field of view",
    "any_size": "renders any image size",
}
"""What a capability is called in messages; those that a request can ask for."""


def require(
    capability: str, what: str, method: str, capabilities: Capabilities, others: Mapping[str, Capabilities]
) -> None:
    """Refuse what a method cannot do in one sentence that names those that can.

    Args:
        capability: Name of a field of :class:`Capabilities`.
        what: What asks for it, for example ``"Metric depth-rel"``.
        method: Who is asked.
        capabilities: What that can do.
        others: All methods there are.

    Raises:
        KaleidosceneError: ``capabilities`` lack it.
    """
    assert capability in {field.name for field in fields(Capabilities)}, capability
    if getattr(capabilities, capability):
        return
    able = [name for name, theirs in others.items() if getattr(theirs, capability)]
    those = f"{', '.join(able)} {'does' if len(able) == 1 else 'do'}" if able else "none here does"
    raise KaleidosceneError(f"{what} needs a method that {PHRASES[capability]}, which {method} does not ({those}).")
