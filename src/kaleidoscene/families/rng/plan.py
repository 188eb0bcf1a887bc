"""What a request costs, from the settings of a checkpoint or recipe alone."""

from __future__ import annotations

from functools import cache

import torch

from kaleidoscene.families.rng.config import RngConfig
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.nn.dpt import head_flops
from kaleidoscene.rendering.cost import Cost, PlainPlan

# Peak of one block's activations without gradients, in residual streams of one fp32 token.
_LIVE_STREAMS = 14


def plan(settings: RngSettings) -> PlainPlan:
    """The plan of a checkpoint."""

    def cost(references: int, targets: int, image_size: tuple[int, int]) -> Cost:
        config = settings.model
        encoding = source_flops(config, references, image_size)
        flops = encoding + targets * target_flops(config, references, image_size)
        kept = cache_bytes(config, references, image_size)
        at_once = min(targets, settings.targets_at_once)
        live = 4 * _LIVE_STREAMS * config.width * view_tokens(config, image_size) * max(references, at_once)
        # Keys and values of the sources stand before those of every target of a pass, one layer at a time.
        joined = 2 * at_once * kept // config.depth
        pixels = image_size[0] * image_size[1] * at_once
        dense = 4 * pixels * (5 * config.dense.fused + 4 * config.dense.last)
        return Cost(parameters_of(config), flops, live + joined + dense + kept, kept, encoding)

    return PlainPlan(settings.image_size, cost)


@cache
def parameters_of(config: RngConfig) -> int:
    """Of the network, without a frozen encoder."""
    with torch.device("meta"):
        return sum(p.numel() for p in Rng(config).parameters())


def view_tokens(config: RngConfig, image_size: tuple[int, int]) -> int:
    """Tokens of a view: patches, a camera token, registers."""
    rows, columns = config.grid(image_size)
    return rows * columns + config.special


def cache_bytes(config: RngConfig, references: int, image_size: tuple[int, int], number: int = 4) -> int:
    """Of the keys and values of references, with so many bytes a number (method B.5)."""
    return config.depth * 2 * references * view_tokens(config, image_size) * config.width * number


def source_flops(config: RngConfig, references: int, image_size: tuple[int, int]) -> int:
    """Operations of encoding references: multiply-adds times two of matrix products, as is usual.

    A frozen encoder is not counted: it is the same for everything that looks at the references.
    """
    tokens, patches = view_tokens(config, image_size), view_tokens(config, image_size) - config.special
    flops = references * tokens * config.depth * _layer_flops(config, tokens, references * tokens)
    if config.encoder.kind == "patch":
        per_token = _block_flops(config, config.mlp_ratio) + 4 * patches * config.width
        flops += references * patches * (config.encoder.depth * per_token + 6 * config.patch_size**2 * config.width)
    return round(flops) + _camera_flops(config, references)


def _camera_flops(config: RngConfig, references: int) -> int:
    """Of the head that tells cameras."""
    if config.camera is None:
        return 0
    width = 2 * config.width
    once = 2 * (9 * width + 3 * width * width + width * width // 2 + 9 * width // 2)
    block = 2 * 12 * width * width + 4 * references * width
    return config.camera.iterations * references * (once + config.camera.depth * block)


def target_flops(config: RngConfig, references: int, image_size: tuple[int, int]) -> int:
    """Operations of one target: from a cache, or with all sources anew where these see it."""
    tokens = view_tokens(config, image_size)
    layers = tokens * config.depth * _layer_flops(config, tokens, (references + 1) * tokens)
    if config.attention == "full":
        layers *= references + 1
    rays = 2 * (tokens - config.special) * 6 * config.patch_size**2 * config.width
    grid = config.grid(image_size)
    heads = sum(head_flops(config.dense, 2 * config.width, grid, image_size, out) for out in (3, 4))
    return round(layers) + rays + heads


def _block_flops(config: RngConfig, ratio: float) -> float:
    return 2 * (4 + 2 * ratio) * config.width**2


def _layer_flops(config: RngConfig, frame_keys: int, all_keys: int) -> float:
    """Of one token in one layer."""
    return 2 * _block_flops(config, config.mlp_ratio) + 4 * config.width * (frame_keys + all_keys)
