"""Weights of VGGT as those of RnG, which the paper's training begins with (section 4; method B.3, B.6).

Names are those of VGGT's release. What RnG has beside it begins anew: the embedding of target rays, and the last two
convolutions of the head for colours, which for the rest is a copy of the one for points.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rng.config import RngConfig
from kaleidoscene.families.rng.initialisation import initialise
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.randomness import seeded

_BLOCK = {
    "norm1": "attention_norm", "attn.qkv": "attention.qkv", "attn.q_norm": "attention.query_norm",
    "attn.k_norm": "attention.key_norm", "attn.proj": "attention.out", "ls1": "attention_scale", "norm2": "mlp_norm",
    "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down", "ls2": "mlp_scale",
}  # fmt: skip
_PLACES = {"frame_blocks": "within", "global_blocks": "across"}
_CAMERA = {
    "token_norm": "token_norm", "trunk_norm": "last_norm", "empty_pose_tokens": "nothing_yet", "embed_pose": "embed",
    "poseLN_modulation.1": "modulation", "pose_branch.fc1": "hidden", "pose_branch.fc2": "out",
}  # fmt: skip
_DENSE = {"norm": "norm", "scratch.output_conv1": "narrow", "scratch.output_conv2.0": "pixels",
          "scratch.output_conv2.2": "out"}  # fmt: skip
_UNIT = {"resConfUnit1.conv1": "finer.first", "resConfUnit1.conv2": "finer.second", "resConfUnit2.conv1":
         "refine.first", "resConfUnit2.conv2": "refine.second", "out_conv": "out"}  # fmt: skip
_NOT_USED = ("depth_head.", "track_head.")
ENCODER = "aggregator.patch_embed."
"""What VGGT's DINOv2 goes by; see :func:`kaleidoscene.encoders.vggt_dinov2.write_dinov2_of_vggt`."""
_NEW_COLOURS = ("colours.pixels.", "colours.out.")


def rng_of_vggt(weights: Mapping[str, Tensor], config: RngConfig, *, seed: int = 0) -> dict[str, Tensor]:
    """All weights of an RnG network.

    Args:
        weights: Of VGGT, by its names.
        config: Of the network; it has the size of VGGT.
        seed: Of what begins anew.

    Raises:
        KaleidosceneError: A tensor is missing, is not known, or has another shape than the network wants.
    """
    found = {name: tensor for key, tensor in weights.items() for name, tensor in _renamed(key, tensor).items()}
    special = [weights.get(f"aggregator.{name}") for name in ("camera_token", "register_token")]
    if special[0] is None or special[1] is None:
        raise KaleidosceneError("VGGT's weights have no aggregator.camera_token or aggregator.register_token.")
    found["embedder.special.tokens"] = torch.cat([x[0] for x in special if x is not None], dim=1)
    first = _first_weights(config, seed)
    fresh = {name for name in first if name.startswith("embedder.rays.") or name.startswith(_NEW_COLOURS)}
    for name in sorted(first.keys() - fresh):
        if name not in found:
            raise KaleidosceneError(f"VGGT's weights have nothing for {name}.")
        if found[name].shape != first[name].shape:
            ours, theirs = tuple(first[name].shape), tuple(found[name].shape)
            raise KaleidosceneError(f"{name} is {ours} in this network, VGGT's weights have {theirs}.")
    if unknown := sorted(found.keys() - first.keys()):
        raise KaleidosceneError(f"VGGT's weights have {unknown[0]}, which this network does not.")
    # Copies: two heads begin as one and are trained apart.
    return {name: first[name] if name in fresh else found[name].float().clone() for name in first}


def read_vggt(folder: Path) -> dict[str, Tensor]:
    """``model.safetensors`` of VGGT, from its folder.

    Raises:
        KaleidosceneError: It is missing or damaged.
    """
    path = folder / "model.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise KaleidosceneError(f"{path}: not readable weights ({error}).") from error


def _first_weights(config: RngConfig, seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=seeded(seed, 17))))
        network = Rng(config)
        initialise(network)
    return dict(network.state_dict())


def _renamed(key: str, tensor: Tensor) -> dict[str, Tensor]:
    """Ours by name; nothing of what RnG does not have.

    Raises:
        KaleidosceneError: The name is none of VGGT's.
    """
    if key.startswith((*_NOT_USED, ENCODER, "aggregator.camera_token", "aggregator.register_token")):
        return {}
    if match := re.fullmatch(r"aggregator\.(frame_blocks|global_blocks)\.(\d+)\.(.+)\.(\w+)", key):
        place, number, part, kind = match.groups()
        if part in _BLOCK:
            return {f"layers.{number}.{_PLACES[place]}.{_BLOCK[part]}.{kind}": tensor}
    if match := re.fullmatch(r"camera_head\.trunk\.(\d+)\.(.+)\.(\w+)", key):
        number, part, kind = match.groups()
        if part in _BLOCK:
            return {f"camera_head.blocks.{number}.{_BLOCK[part]}.{kind}": tensor}
    if key == "camera_head.empty_pose_tokens":
        return {"camera_head.nothing_yet": tensor.reshape(-1)}
    if (match := re.fullmatch(r"camera_head\.(.+)\.(\w+)", key)) and match[1] in _CAMERA:
        return {f"camera_head.{_CAMERA[match[1]]}.{match[2]}": tensor}
    if (match := re.fullmatch(r"point_head\.(.+)\.(\w+)", key)) and (part := _dense_part(match[1])):
        both = {f"{head}.{part}.{match[2]}": tensor for head in ("points", "colours")}
        return {name: x for name, x in both.items() if not name.startswith(_NEW_COLOURS)}
    raise KaleidosceneError(f"VGGT's weights have {key}, which is none of its names that are known here.")


def _dense_part(part: str) -> str | None:
    if part in _DENSE:
        return _DENSE[part]
    if match := re.fullmatch(r"(projects|resize_layers)\.(\d)", part):
        return f"{'projections' if match[1] == 'projects' else 'resizes'}.{match[2]}"
    if match := re.fullmatch(r"scratch\.layer(\d)_rn", part):
        return f"to_fused.{int(match[1]) - 1}"
    if (match := re.fullmatch(r"scratch\.refinenet(\d)\.(.+)", part)) and match[2] in _UNIT:
        return f"fusions.{int(match[1]) - 1}.{_UNIT[match[2]]}"
    return None
