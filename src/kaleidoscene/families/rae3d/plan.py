"""What a request costs, from the settings of a checkpoint or recipe alone."""

from __future__ import annotations

from functools import cache

import torch

from kaleidoscene.families.rae3d.config import Rae3dConfig
from kaleidoscene.families.rae3d.model import RAY_CHANNELS, Rae3d
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.nn.dpt import head_flops
from kaleidoscene.rendering.cost import Cost, PlainPlan

# Peak of one block's activations without gradients, in residual streams of one fp32 token.
_LIVE_STREAMS = 14
# And of attention that is told places: bias, logits, both together, their softmax.
_LIVE_WEIGHTS = 4


def plan(settings: Rae3dSettings) -> PlainPlan:
    """The plan of a checkpoint."""

    def cost(references: int, targets: int, image_size: tuple[int, int]) -> Cost:
        config = settings.model
        encoding = encode_flops(config, references, image_size)
        flops = encoding + decode_flops(config, targets, image_size)
        at_once = min(targets, settings.targets_at_once)
        tokens = view_tokens(config, image_size)
        longest = max(references * tokens + config.tokens, at_once * (tokens + config.tokens))
        pixels = image_size[0] * image_size[1] * at_once
        dense = 4 * pixels * (5 * config.points.fused + 4 * config.points.last) if config.points else 0
        kept = 4 * config.tokens * config.width
        memory = 4 * _LIVE_STREAMS * config.width * longest + dense + kept
        if config.located:  # what is added to logits keeps them from being forgotten block by block
            logits = max((references * tokens + config.tokens) ** 2, at_once * tokens * (tokens + config.tokens))
            memory += 4 * _LIVE_WEIGHTS * config.heads * logits
        return Cost(parameters_of(config), flops, memory, kept, encoding)

    return PlainPlan(settings.image_size, cost, remembers=False)


@cache
def parameters_of(config: Rae3dConfig) -> int:
    """Of the network, without a frozen encoder."""
    with torch.device("meta"):
        return sum(p.numel() for p in Rae3d(config).parameters())


def view_tokens(config: Rae3dConfig, image_size: tuple[int, int]) -> int:
    """Tokens of a view."""
    rows, columns = config.grid(image_size)
    return rows * columns


def encode_flops(config: Rae3dConfig, references: int, image_size: tuple[int, int]) -> int:
    """Operations of encoding references: multiply-adds times two of matrix products; without a frozen encoder."""
    tokens = references * view_tokens(config, image_size)
    all_tokens = tokens + config.tokens
    channels = RAY_CHANNELS + (3 if config.encoder.kind == "image" else 0)
    embedding = 2 * tokens * channels * config.patch_size**2 * config.width
    return round(config.neck_depth * all_tokens * _block_flops(config, all_tokens)) + embedding


def decode_flops(config: Rae3dConfig, targets: int, image_size: tuple[int, int]) -> int:
    """Operations of decoding targets, images and points."""
    tokens = view_tokens(config, image_size)
    latents, decoders = config.tokens, 1 + (config.points is not None)
    if config.decoder == "full":
        blocks = targets * (tokens + latents) * _block_flops(config, tokens + latents)
    else:
        blocks = targets * tokens * _block_flops(config, tokens + latents) + latents * _block_flops(config, latents)
    flops = round(decoders * config.decoder_depth * blocks)
    rays = RAY_CHANNELS * config.patch_size**2
    flops += 2 * targets * tokens * config.width * (rays + 3 * config.patch_size**2)
    if config.points is not None:
        flops += targets * head_flops(config.points, config.width, config.grid(image_size), image_size, 4)
    return flops


def _block_flops(config: Rae3dConfig, keys: int) -> float:
    """Of one token in one block."""
    return 2 * (4 + 2 * config.mlp_ratio) * config.width**2 + 4 * config.width * keys
