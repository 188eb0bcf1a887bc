"""RnG: sources to cameras and a cache of keys and values, the cache and target rays to colours and points.

Section 3 of the paper; method B.2 to B.6. A pure network: tensors in, tensors out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rng.camera_head import CameraHead
from kaleidoscene.families.rng.config import RngConfig
from kaleidoscene.families.rng.layer import Layer
from kaleidoscene.families.rng.tokens import Embedder
from kaleidoscene.nn.dpt import DPTHead
from kaleidoscene.nn.precision import exact
from kaleidoscene.nn.rotary import grid_angles


@dataclass(frozen=True, eq=False)
class Sources:
    """What the network made of the sources of a batch of scenes: all that targets need of them.

    Attributes:
        keys: Of every global block, after normalisation and rotation (method B.5).
        values: Likewise.
        cameras: Estimates of the camera head, the best one last; None of a network without.
        num_views: Sources of a scene.
        tokens: As they entered the first layer, where the network is of the variant whose sources see targets.
    """

    keys: tuple[Float[Tensor, "batch heads tokens dim"], ...]
    values: tuple[Float[Tensor, "batch heads tokens dim"], ...]
    cameras: Float[Tensor, "iterations batch views 9"] | None
    num_views: int
    tokens: Float[Tensor, "batch views view_tokens width"] | None = None

    @property
    def nbytes(self) -> int:
        """Memory of keys, values and tokens."""
        kept = [*self.keys, *self.values, *([] if self.tokens is None else [self.tokens])]
        return sum(x.nbytes for x in kept)


@dataclass(frozen=True, eq=False)
class Dense:
    """What targets look like.

    Attributes:
        colours: RGB in [0, 1].
        points: In the world of the first source (method B.1).
        confidence: How sure they are, at least 1.
    """

    colours: Float[Tensor, "batch targets 3 h w"]
    points: Float[Tensor, "batch targets h w 3"]
    confidence: Float[Tensor, "batch targets h w"]


class Rng(nn.Module):
    """The network; see the module's docstring.

    Args:
        config: Architecture.
    """

    other_forwards = ("encode", "render", "joint")

    def __init__(self, config: RngConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.depth)])
        width = 2 * config.width  # of either block of a layer
        self.camera_head = None if config.camera is None else CameraHead(width, config.heads, config.camera)
        self.colours = DPTHead(width, config.patch_size, 3, config.dense)
        self.points = DPTHead(width, config.patch_size, 4, config.dense)

    def units(self) -> Mapping[str, nn.Module]:
        """Layers and heads, in the order they run."""
        units: dict[str, nn.Module] = {f"layer {number}": layer for number, layer in enumerate(self.layers)}
        if self.camera_head is not None:
            units["camera head"] = self.camera_head
        return units | {"colours": self.colours, "points": self.points}

    def muon_parameters(self) -> Sequence[str]:
        """Matrices of the layers."""
        return [name for name, p in self.named_parameters() if name.startswith("layers.") and p.ndim == 2]

    def forward(
        self,
        images: Float[Tensor, "batch views 3 h w"],
        rays: Float[Tensor, "batch targets rows columns 6"],
        features: Float[Tensor, "batch views tokens width"] | None = None,
    ) -> tuple[Sources, Dense]:
        """One pass over the sources for all targets, with gradients through keys and values (method B.12, 4)."""
        sources = self.encode(images, features)
        return sources, self.render(sources, rays)

    def encode(
        self,
        images: Float[Tensor, "batch views 3 h w"],
        features: Float[Tensor, "batch views tokens width"] | None = None,
    ) -> Sources:
        """Cameras, keys and values of sources.

        Also where sources see targets: cameras are then told by this pass, which sees none.

        Args:
            images: RGB in [0, 1]; the first one fixes the world.
            features: Tokens of a frozen encoder, where the network has none of its own.
        """
        angles = self._angles(images.shape[-2:], images.device)
        tokens = x = self.embedder.sources(images, features)
        keys, values, within = [], [], x
        for layer in self.layers:
            within, x, (k, v) = layer(x, angles)
            keys.append(k)
            values.append(v)
        kept = tokens if self.config.attention == "full" else None
        return Sources(tuple(keys), tuple(values), self._cameras(within, x), images.shape[1], kept)

    def render(self, sources: Sources, rays: Float[Tensor, "batch targets h w 6"]) -> Dense:
        """Colours and points of targets, none of which sees another.

        Args:
            sources: Of the same scenes.
            rays: Pluecker coordinates ``(d, o x d)`` of the target pixels, in the world of the first source.
        """
        return self._dense(self._seen(sources, rays), rays.shape[2:4], (rays.shape[0], rays.shape[1]))

    def colours_alone(
        self, sources: Sources, rays: Float[Tensor, "batch targets h w 6"]
    ) -> Float[Tensor, "batch targets 3 h w"]:
        """The colours of :meth:`render`, without the head for points."""
        return self._colours(self._seen(sources, rays), rays.shape[2:4]).unflatten(0, (rays.shape[0], rays.shape[1]))

    def _seen(self, sources: Sources, rays: Tensor) -> list[Tensor]:
        """What the dense heads see of targets."""
        if self.config.attention == "full":
            return self._together(sources, rays)[2]
        targets = rays.shape[1]
        angles = self._angles(rays.shape[2:4], rays.device)
        x = self.embedder.targets(rays).flatten(0, 1)[:, None]
        seen = []
        for number, layer in enumerate(self.layers):
            k, v = (_for_targets(y[number], targets) for y in (sources.keys, sources.values))
            within, x, _ = layer(x, angles, k, v)
            if number in self.config.dense_layers:
                seen.append(torch.cat([within, x], dim=-1)[:, 0])
        return seen

    def joint(self, sources: Sources, rays: Float[Tensor, "batch targets h w 6"]) -> tuple[Tensor | None, Dense]:
        """Sources and every target in one sequence, as the paper writes it (eq. 2 and 3): the slow way.

        Sources are computed once for each target; where the network is causal a mask keeps them from seeing it. All
        views have the size of the sources.

        Args:
            sources: With their tokens.
            rays: As :meth:`render`.

        Returns:
            Estimates of cameras, ``(iterations, batch * targets, views, 9)``, and what the targets look like.
        """
        within, across, seen = self._together(sources, rays)
        cameras = self._cameras(within[:, :-1], across[:, :-1])
        return cameras, self._dense(seen, rays.shape[2:4], (rays.shape[0], rays.shape[1]))

    def _together(self, sources: Sources, rays: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Tokens of all views after both blocks of the last layer, and what the dense heads see of targets."""
        assert sources.tokens is not None
        targets = rays.shape[1]
        target = self.embedder.targets(rays).flatten(0, 1)[:, None]
        x = torch.cat([sources.tokens.repeat_interleave(targets, 0), target.to(sources.tokens.dtype)], dim=1)
        angles, seen, within = self._angles(rays.shape[2:4], x.device), [], x
        mask = _causal_mask(sources.num_views, x.shape[2], x.device) if self.config.attention == "causal" else None
        for number, layer in enumerate(self.layers):
            within, x, _ = layer(x, angles, mask=mask)
            if number in self.config.dense_layers:
                seen.append(torch.cat([within, x], dim=-1)[:, -1])
        return within, x, seen

    def with_tokens(self, sources: Sources, images: Tensor, features: Tensor | None = None) -> Sources:
        """Sources that :meth:`joint` can use, whatever the variant."""
        return replace(sources, tokens=self.embedder.sources(images, features))

    def _angles(self, image_size: Sequence[int], device: torch.device) -> Tensor:
        try:
            grid = self.config.grid((image_size[0], image_size[1]))
        except ValueError as error:
            raise KaleidosceneError(str(error)) from error
        return grid_angles(
            grid, self.config.width // self.config.heads, special=self.config.special, device=device
        )  # fmt: skip

    def _cameras(self, within: Tensor, across: Tensor) -> Tensor | None:
        if self.camera_head is None:
            return None
        return self.camera_head(torch.cat([within[:, :, 0], across[:, :, 0]], dim=-1))

    def _dense(self, layers: list[Tensor], image_size: Sequence[int], batch_shape: tuple[int, int]) -> Dense:
        """Both heads on the patch tokens of four layers."""
        points = self._headed(self.points, layers, image_size)
        places = points[:, :3]
        return Dense(
            self._colours(layers, image_size).unflatten(0, batch_shape),
            (places.sign() * places.abs().expm1()).movedim(1, -1).unflatten(0, batch_shape),
            (1 + points[:, 3].exp()).unflatten(0, batch_shape),
        )

    def _colours(self, layers: list[Tensor], image_size: Sequence[int]) -> Float[Tensor, "views 3 h w"]:
        return exact(self._headed(self.colours, layers, image_size)).sigmoid()

    def _headed(self, head: DPTHead, layers: list[Tensor], image_size: Sequence[int]) -> Tensor:
        """A head on patch tokens, without those that are of no patch."""
        grid = self.config.grid((image_size[0], image_size[1]))
        return head([x[:, self.config.special :] for x in layers], grid)


def _for_targets(x: Float[Tensor, "batch heads tokens dim"], targets: int) -> Tensor:
    """The same sources for every target of a scene; without a copy where there is one scene."""
    if len(x) == 1:
        return x.expand(targets, -1, -1, -1)
    return x.repeat_interleave(targets, 0)


def _causal_mask(sources: int, tokens: int, device: torch.device) -> Bool[Tensor, "1 1 queries keys"]:
    """Reconstruction-guided causal attention (eq. 2 and 3): no source token sees one of the target."""
    is_target = torch.arange((sources + 1) * tokens, device=device) >= sources * tokens
    return (is_target[:, None] | ~is_target[None, :])[None, None]
