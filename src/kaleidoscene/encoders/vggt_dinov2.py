"""The DINOv2 that VGGT carries, by the names of the public checkpoints of ``transformers`` (RnG, method B.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError

_TOP = {
    "cls_token": "embeddings.cls_token", "mask_token": "embeddings.mask_token", "pos_embed":
    "embeddings.position_embeddings", "register_tokens": "embeddings.register_tokens", "norm": "layernorm",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
}  # fmt: skip
_BLOCK = {
    "norm1": "norm1", "attn.proj": "attention.output.dense", "ls1.gamma": "layer_scale1.lambda1", "norm2": "norm2",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2", "ls2.gamma": "layer_scale2.lambda1",
}  # fmt: skip
_HEAD_DIM = 64


def write_dinov2_of_vggt(weights: Mapping[str, Tensor], folder: Path, *, heads: int | None = None) -> None:
    """Write a folder that ``transformers`` and ``--features`` read: config.json and model.safetensors.

    Args:
        weights: By DINOv2's own names, without what VGGT puts before them.
        folder: To write.
        heads: Of attention; by default one for 64 channels, as all DINOv2 have.

    Raises:
        KaleidosceneError: ``transformers`` is not there, or the weights are not those of a DINOv2 with registers.
    """
    try:
        from transformers import Dinov2WithRegistersConfig  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("DINOv2 needs transformers: pip install 'kaleidoscene[codecs]'.") from error
    ours = {
        name: x.float().contiguous() for key, tensor in weights.items() for name, x in _renamed(key, tensor).items()
    }
    try:
        width, patch = weights["cls_token"].shape[-1], weights["patch_embed.proj.weight"].shape[-1]
        places, registers = weights["pos_embed"].shape[1] - 1, weights["register_tokens"].shape[1]
        hidden = weights["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise KaleidosceneError(f"The weights of DINOv2 have no {error.args[0]}.") from error
    depth = 1 + max(int(match[1]) for name in weights if (match := re.match(r"blocks\.(\d+)\.", name)))
    block = {name.split(".", 2)[2] for name in weights if name.startswith("blocks.0.")}
    for name in (f"blocks.{number}.{rest}" for number in range(depth) for rest in sorted(block)):
        if name not in weights:
            raise KaleidosceneError(f"The weights of DINOv2 have no {name}.")
    folder.mkdir(parents=True, exist_ok=True)
    config = Dinov2WithRegistersConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads or width // _HEAD_DIM,
        mlp_ratio=hidden // width, patch_size=patch, image_size=patch * round(places**0.5),
        num_register_tokens=registers, architectures=["Dinov2WithRegistersModel"],
    )  # fmt: skip
    config.save_pretrained(folder)
    save_file(ours, folder / "model.safetensors", {"format": "pt"})


def _renamed(key: str, tensor: Tensor) -> dict[str, Tensor]:
    if key in _TOP:
        return {_TOP[key]: tensor}
    part, _, kind = key.rpartition(".")
    if part in _TOP:
        return {f"{_TOP[part]}.{kind}": tensor}
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
        number, rest = match.groups()
        before = f"encoder.layer.{number}."
        if rest in _BLOCK:
            return {before + _BLOCK[rest]: tensor}
        part, _, kind = rest.rpartition(".")
        if part in _BLOCK:
            return {f"{before}{_BLOCK[part]}.{kind}": tensor}
        if part == "attn.qkv":
            thirds = zip(("query", "key", "value"), torch.chunk(tensor, 3), strict=True)
            return {f"{before}attention.attention.{name}.{kind}": third for name, third in thirds}
    raise KaleidosceneError(f"The weights of DINOv2 have {key}, which is none of its names that are known here.")
