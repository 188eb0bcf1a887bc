"""Weights of a tiny VGGT of the real layout: names, shapes, and what is made of them."""

import runpy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from transformers import Dinov2WithRegistersModel

from kaleidoscene.encoders.features import read_dinov2
from kaleidoscene.encoders.resized import ResizedDinoV2
from kaleidoscene.encoders.vggt_dinov2 import write_dinov2_of_vggt
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rng.config import CameraHeadConfig, EncoderConfig
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.renderer import RngRenderer
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.families.rng.system import load_system
from kaleidoscene.families.rng.vggt import ENCODER, read_vggt, rng_of_vggt
from kaleidoscene.training.weights import load_weights
from tests.conftest import REPOSITORY, ring
from tests.families.rng.tiny import tiny_config

WIDTH, HEADS, DEPTH, REGISTERS, CHANNELS, FUSED = 24, 3, 5, 2, (4, 8, 12, 16), 8
CONFIG = tiny_config(
    mlp_ratio=4.0, encoder=EncoderConfig(kind="dinov2"), camera=CameraHeadConfig(depth=2, iterations=3)
)


def linear(name, inside, outside):
    return {f"{name}.weight": (outside, inside), f"{name}.bias": (outside,)}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(name, width, *, head_norm=None):
    shapes = norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
    shapes |= linear(f"{name}.attn.qkv", width, 3 * width) | linear(f"{name}.attn.proj", width, width)
    shapes |= linear(f"{name}.mlp.fc1", width, 4 * width) | linear(f"{name}.mlp.fc2", 4 * width, width)
    shapes |= {f"{name}.ls1.gamma": (width,), f"{name}.ls2.gamma": (width,)}
    if head_norm:
        shapes |= norm(f"{name}.attn.q_norm", head_norm) | norm(f"{name}.attn.k_norm", head_norm)
    return shapes


def convolution(name, inside, outside, side, *, bias=True):
    return {f"{name}.weight": (outside, inside, side, side)} | ({f"{name}.bias": (outside,)} if bias else {})


def dense(name, out):
    wide = 2 * WIDTH
    shapes = norm(f"{name}.norm", wide)
    for number, channels in enumerate(CHANNELS):
        shapes |= convolution(f"{name}.projects.{number}", wide, channels, 1)
        shapes |= convolution(f"{name}.scratch.layer{number + 1}_rn", channels, FUSED, 3, bias=False)
    for number, side in ((0, 4), (1, 2), (3, 3)):
        shapes |= convolution(f"{name}.resize_layers.{number}", CHANNELS[number], CHANNELS[number], side)
    for number in range(1, 5):
        unit = f"{name}.scratch.refinenet{number}"
        shapes |= convolution(f"{unit}.out_conv", FUSED, FUSED, 1)
        for part in ("resConfUnit1", "resConfUnit2") if number < 4 else ("resConfUnit2",):
            for half in ("conv1", "conv2"):
                shapes |= convolution(f"{unit}.{part}.{half}", FUSED, FUSED, 3)
    shapes |= convolution(f"{name}.scratch.output_conv1", FUSED, FUSED // 2, 3)
    shapes |= convolution(f"{name}.scratch.output_conv2.0", FUSED // 2, 4, 3)
    return shapes | convolution(f"{name}.scratch.output_conv2.2", 4, out, 1)


def encoder():
    """DINOv2 of four heads of 6 channels, 3 x 3 places of 14 pixels."""
    shapes = {
        "cls_token": (1, 1, WIDTH), "mask_token": (1, WIDTH), "pos_embed": (1, 10, WIDTH),
        "register_tokens": (1, 3, WIDTH),
    }  # fmt: skip
    shapes |= convolution("patch_embed.proj", 3, WIDTH, 14) | norm("norm", WIDTH)
    return shapes | block("blocks.0", WIDTH) | block("blocks.1", WIDTH)


@pytest.fixture(scope="module")
def weights():
    """Everything that the release has, random."""
    shapes = {"aggregator.camera_token": (1, 2, 1, WIDTH), "aggregator.register_token": (1, 2, REGISTERS, WIDTH)}
    shapes |= {ENCODER + name: shape for name, shape in encoder().items()}
    for number in range(DEPTH):
        for place in ("frame_blocks", "global_blocks"):
            shapes |= block(f"aggregator.{place}.{number}", WIDTH, head_norm=WIDTH // HEADS)
    wide = 2 * WIDTH
    shapes |= norm("camera_head.token_norm", wide) | norm("camera_head.trunk_norm", wide)
    shapes |= {"camera_head.empty_pose_tokens": (1, 1, 9)} | linear("camera_head.embed_pose", 9, wide)
    shapes |= linear("camera_head.poseLN_modulation.1", wide, 3 * wide)
    shapes |= linear("camera_head.pose_branch.fc1", wide, WIDTH) | linear("camera_head.pose_branch.fc2", WIDTH, 9)
    for number in range(2):
        shapes |= block(f"camera_head.trunk.{number}", wide)
    shapes |= dense("point_head", 4) | dense("depth_head", 2) | {"track_head.anything": (3,)}
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draw) * 0.1 for name, shape in shapes.items()}


def test_every_weight_has_its_place(weights):
    ours = rng_of_vggt(weights, CONFIG)
    network = Rng(CONFIG)
    load_weights(network, ours, "vggt")
    # Each number of VGGT's that RnG uses is there once, but for the head that is there twice.
    used = [x for name, x in weights.items() if not name.startswith((ENCODER, "depth_head", "track_head"))]
    total = sum(x.numel() for x in used)
    head = sum(x.numel() for name, x in weights.items() if name.startswith("point_head"))
    last = sum(x.numel() for name, x in weights.items() if name.startswith("point_head.scratch.output_conv2"))
    fresh = sum(
        x.numel() for name, x in ours.items() if name.startswith(("embedder.rays", "colours.pixels", "colours.out"))
    )
    assert sum(x.numel() for x in ours.values()) == total + head - last + fresh
    for name, theirs in (
        ("layers.3.within.attention.qkv.weight", "aggregator.frame_blocks.3.attn.qkv.weight"),
        ("layers.4.across.mlp_scale.gamma", "aggregator.global_blocks.4.ls2.gamma"),
        ("camera_head.blocks.1.mlp.down.bias", "camera_head.trunk.1.mlp.fc2.bias"),
        ("points.fusions.2.finer.second.weight", "point_head.scratch.refinenet3.resConfUnit1.conv2.weight"),
        ("colours.narrow.weight", "point_head.scratch.output_conv1.weight"),
        ("points.out.bias", "point_head.scratch.output_conv2.2.bias"),
    ):
        assert torch.equal(ours[name], weights[theirs])
    assert torch.equal(ours["embedder.special.tokens"][1, 0], weights["aggregator.camera_token"][0, 1, 0])
    assert torch.equal(ours["embedder.special.tokens"][0, 2], weights["aggregator.register_token"][0, 0, 1])
    # What begins anew is the same for one seed.
    again, other = rng_of_vggt(weights, CONFIG), rng_of_vggt(weights, CONFIG, seed=1)
    assert torch.equal(ours["embedder.rays.weight"], again["embedder.rays.weight"])
    assert not torch.equal(ours["embedder.rays.weight"], other["embedder.rays.weight"])


def test_what_does_not_fit_is_named(weights):
    def said(**changes):
        changed = {name: x for name, x in (weights | changes).items() if x is not None}
        with pytest.raises(KaleidosceneError) as error:
            rng_of_vggt(changed, CONFIG)
        return str(error.value)

    assert "nothing for layers.0.within.mlp.up.bias" in said(**{"aggregator.frame_blocks.0.mlp.fc1.bias": None})
    assert "no aggregator.camera_token" in said(**{"aggregator.camera_token": None})
    assert "none of its names" in said(**{"aggregator.frame_blocks.0.attn.rope": torch.zeros(1)})
    assert "which this network does not" in said(**{"camera_head.trunk.7.norm1.bias": torch.zeros(2 * WIDTH)})
    assert "is (48,) in this network, VGGT's weights have (5,)" in said(**{"point_head.norm.bias": torch.zeros(5)})


def test_its_dinov2_computes_what_it_did(weights, tmp_path):
    """By hand in its own names, against the class of transformers that they go into."""
    own = {name.removeprefix(ENCODER): x for name, x in weights.items() if name.startswith(ENCODER)}
    write_dinov2_of_vggt(own, tmp_path / "dinov2", heads=4)
    model = read_dinov2(str(tmp_path / "dinov2")).eval()
    assert isinstance(model, Dinov2WithRegistersModel)
    image = torch.rand(1, 3, 42, 42)

    def layer_norm(x, name):
        return torch.nn.functional.layer_norm(x, (WIDTH,), own[f"{name}.weight"], own[f"{name}.bias"], 1e-6)

    def affine(x, name):
        return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]

    patches = torch.nn.functional.conv2d(image, own["patch_embed.proj.weight"], own["patch_embed.proj.bias"], 14)
    x = torch.cat([own["cls_token"], patches.flatten(2).mT], dim=1) + own["pos_embed"]
    x = torch.cat([x[:, :1], own["register_tokens"], x[:, 1:]], dim=1)
    for number in range(2):
        name = f"blocks.{number}"
        qkv = affine(layer_norm(x, f"{name}.norm1"), f"{name}.attn.qkv").unflatten(-1, (3, 4, 6))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.mT / 6**0.5, dim=-1) @ v
        x = x + own[f"{name}.ls1.gamma"] * affine(mixed.transpose(1, 2).flatten(2), f"{name}.attn.proj")
        hidden = torch.nn.functional.gelu(affine(layer_norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        x = x + own[f"{name}.ls2.gamma"] * affine(hidden, f"{name}.mlp.fc2")
    with torch.no_grad():
        torch.testing.assert_close(model(image).last_hidden_state, layer_norm(x, "norm"), rtol=1e-4, atol=1e-5)
    encoder = ResizedDinoV2.from_pretrained(str(tmp_path / "dinov2"), 8, CONFIG.width)
    assert encoder(torch.rand(2, 1, 3, 16, 24)).shape == (2, 1, 6, WIDTH)
    for name in ("register_tokens", "blocks.1.norm2.bias"):
        with pytest.raises(KaleidosceneError, match=f"have no {name}"):
            write_dinov2_of_vggt({key: x for key, x in own.items() if key != name}, tmp_path / "none", heads=4)
    assert not (tmp_path / "none").exists()


def test_files_are_read_or_refused(weights, tmp_path):
    save_file(weights, tmp_path / "model.safetensors")
    assert read_vggt(tmp_path).keys() == weights.keys()
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(KaleidosceneError, match=r"model.safetensors: not readable weights"):
        read_vggt(tmp_path)


def test_the_example_writes_a_checkpoint_and_its_encoder(weights, tmp_path):
    save_file(weights, tmp_path / "model.safetensors")
    main = runpy.run_path(str(REPOSITORY / "examples" / "08_weights_of_vggt.py"))["main"]
    out = tmp_path / "out"
    settings = RngSettings(model=CONFIG, image_size=(16, 24))
    main(tmp_path, out, settings, heads=4)
    renderer = load_system(out).renderer  # it names its own encoder
    assert isinstance(renderer, RngRenderer)
    encoder = replace(CONFIG.encoder, source=str(out / "dinov2"))
    assert renderer.settings == replace(settings, model=replace(CONFIG, encoder=encoder))
    cameras = ring(2, (16, 24)).reshape(1, 2)
    scene = renderer.encode(torch.rand(1, 2, 3, 16, 24), cameras)
    assert renderer.render(scene, cameras, seeds=[0, 0]).images.isfinite().all()
