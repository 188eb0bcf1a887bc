"""Laws of the Kaleido network (method F)."""

from dataclasses import replace

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.config import (
    EncodingConfig,
    KaleidoConfig,
    kaleido_large,
    kaleido_medium,
    kaleido_small,
)
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.view_geometry import ViewGeometry
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.gta import Frequencies
from kaleidoscene.nn.positions import ViewPositions
from tests.conftest import CAUSAL, randomised, tiny_config

BATCH, REFS, TARGETS, H, W = 2, 2, 3, 4, 6
VIEWS = REFS + TARGETS
HARMONIC = Frequencies(kind="geometric", max_frequency=8.0)


def network(**changes) -> Kaleido:
    changes.setdefault("encoding", EncodingConfig(image_frequencies=HARMONIC, time_frequencies=HARMONIC))
    return randomised(Kaleido(tiny_config(**changes))).eval()


def inputs(seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(BATCH, VIEWS, 48, H, W, generator=g)
    return latents, torch.tensor([0.3, 0.8]), random_rigid(BATCH, VIEWS, generator=g, translation=0.5)


def with_lenses(positions: ViewPositions, seed: int = 7) -> ViewPositions:
    """The same views by lenses of their own, pixels not square and middles off the image's."""
    g = torch.Generator().manual_seed(seed)
    focal = 0.5 + 1.5 * torch.rand(*positions.lens.shape[:-1], 2, generator=g)
    centre = 0.4 + 0.2 * torch.rand(*positions.lens.shape[:-1], 2, generator=g)
    return replace(positions, lens=torch.cat([focal, centre], -1).to(positions.lens))


VARIANTS = [
    dict(),
    dict(window=2),
    dict(window=4),  # divides neither side of the grid
    dict(registers=0),
    dict(registers=3, spatial_registers="query_frame"),
    dict(modulation="shift"),
    dict(modulation="none"),
    dict(query_key_norm=True, camera_ray_bands=3),
    dict(condition_width=32, role_embedding=False),
    dict(encoding=EncodingConfig(representation="dual", transform_values=False)),
    dict(encoding=EncodingConfig(pose="plucker")),
    CAUSAL,
    dict(**CAUSAL, window=2),
    dict(**CAUSAL, ray_bias=True),
    dict(ray_bias=True, registers=0, window=4),
    dict(reprojection_depths=40),
    dict(**CAUSAL, reprojection_depths=40),
    dict(**CAUSAL, reprojection_depths=30, reprojection_beyond=12),
    dict(**CAUSAL, encoding=EncodingConfig(lens="projective")),
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda c: ",".join(map(str, c)) or "default")
def test_every_variant_runs_and_gives_every_parameter_a_gradient(changes):
    model = network(**changes)
    latents, t, poses = inputs()
    out = model(latents, t, ViewPositions.from_poses(poses), REFS)
    assert out.shape == (BATCH, TARGETS, 48, H, W)
    out.square().mean().backward()
    unused = {"none": "time.", "shift": "", "full": ""}[model.config.modulation]
    for name, p in model.named_parameters():
        if unused and name.startswith(unused):
            continue
        assert p.grad is not None and p.grad.abs().max() > 0, name


@pytest.mark.parametrize("registers", ["query_frame", "none"])
@pytest.mark.parametrize("representation", ["standard", "dual"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_world_frame_does_not_matter(registers, representation, causal):
    encoding = EncodingConfig(representation=representation, image_frequencies=HARMONIC)
    model = network(cross_view_registers=registers, encoding=encoding, **(CAUSAL if causal else {}))
    latents, t, poses = inputs()
    move = random_rigid(BATCH, 1, translation=0.5)
    before = model(latents, t, ViewPositions.from_poses(poses), REFS)
    after = model(latents, t, ViewPositions.from_poses(poses @ move), REFS)
    scale = before.abs().max()
    assert (after - before).abs().max() < 2e-4 * scale  # fp32: observed up to 3e-5
    turned = torch.cat([poses[:, :1] @ move, poses[:, 1:]], 1)
    assert (model(latents, t, ViewPositions.from_poses(turned), REFS) - before).abs().max() > 1e-2 * scale


def test_lenses_matter_and_the_world_frame_does_not():
    """In fp64: what GTA sees of two views is K_i T_i T_j^-1 K_j^-1."""
    encoding = EncodingConfig(lens="projective", image_frequencies=HARMONIC)
    model = network(encoding=encoding, camera_ray_bands=2, **CAUSAL).double()
    latents, t = (x.double() for x in inputs()[:2])
    poses = random_rigid(BATCH, VIEWS, translation=0.5, dtype=torch.float64)
    positions = with_lenses(ViewPositions.from_poses(poses))
    before = model(latents, t, positions, REFS)
    scale = before.abs().max()
    moved = replace(positions, cam_from_world=poses @ random_rigid(BATCH, 1, translation=0.5, dtype=torch.float64))
    assert (model(latents, t, moved, REFS) - before).abs().max() < 1e-9 * scale
    other = replace(positions, lens=positions.lens.roll(1, 1))
    assert (model(latents, t, other, REFS) - before).abs().max() > 1e-3 * scale


@pytest.mark.parametrize(
    "changes", [dict(cross_view_registers="identity"), dict(encoding=EncodingConfig(pose="plucker"))]
)
def test_identity_registers_and_ray_maps_do_depend_on_the_world_frame(changes):
    model = network(**changes)
    for block in model.blocks:  # a register that says much, so that its frame shows
        block.cross_view.registers.values.data.mul_(30)
    latents, t, poses = inputs()
    before = model(latents, t, ViewPositions.from_poses(poses), REFS)
    after = model(latents, t, ViewPositions.from_poses(poses @ random_rigid(BATCH, 1)), REFS)
    assert (after - before).abs().max() > 1e-2 * before.abs().max()


@pytest.mark.parametrize("changes", [{}, CAUSAL, dict(reprojection_depths=9)])
def test_permuting_targets_permutes_outputs_and_references_have_no_order(changes):
    model = network(**changes)
    latents, t, poses = inputs()
    before = model(latents, t, ViewPositions.from_poses(poses), REFS)
    targets = [0, 1, 4, 2, 3]
    out = model(latents[:, targets], t, ViewPositions.from_poses(poses[:, targets]), REFS)
    torch.testing.assert_close(out, before[:, [2, 0, 1]], rtol=0, atol=1e-4)
    references = [1, 0, 2, 3, 4]
    out = model(latents[:, references], t, ViewPositions.from_poses(poses[:, references]), REFS)
    torch.testing.assert_close(out, before, rtol=0, atol=1e-4)


def test_one_view_does_not_know_its_pose():
    """Relative to itself every pose is the identity (method F.3)."""
    model = network()
    latents, t, poses = inputs()
    one = model(latents[:, :1], t, ViewPositions.from_poses(poses[:, :1]), 0)
    other = model(latents[:, :1], t, ViewPositions.from_poses(poses[:, 1:2]), 0)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("window", [1, 2])
def test_windows_do_not_interact_in_cross_view_attention(window):
    """Without spatial attention a token would feel its own window only; shown on the layer itself."""
    model = network(window=window)
    layer = model.blocks[0].cross_view
    x = torch.randn(1, VIEWS, H * W, 128)
    geometry = ViewGeometry.of(model.config, ViewPositions.from_poses(inputs()[2][:1]), (H, W), None)
    before = layer(x, geometry, REFS, None, False)
    changed = x.clone()
    changed[:, 0, 0] += 1.0  # row 0, column 0 of the first view
    moved = (layer(changed, geometry, REFS, None, False) - before).abs().amax((0, 1, 3)).view(H, W) > 1e-7
    expected = torch.zeros(H, W, dtype=torch.bool)
    expected[:window, :window] = True
    assert moved.equal(expected)


@pytest.mark.parametrize(
    "changes", [{}, CAUSAL, dict(window=4), dict(**CAUSAL, registers=0), dict(**CAUSAL, reprojection_depths=9)]
)
def test_hidden_views_have_no_influence_and_ragged_equals_short(changes):
    """A hidden view changes nothing, and a scene padded with hidden views equals the scene without them."""
    model = network(**changes)
    latents, t, poses = inputs()
    present = torch.tensor([[True, False, True, True, False]] * BATCH)
    out = model(latents, t, ViewPositions.from_poses(poses), REFS, present=present)
    keep = [0, 2, 3]
    short = model(latents[:, keep], t, ViewPositions.from_poses(poses[:, keep]), 1)
    torch.testing.assert_close(out[:, :2], short, rtol=0, atol=1e-4)
    noise = latents.clone()
    noise[:, [1, 4]] = torch.randn(BATCH, 2, 48, H, W)
    again = model(noise, t, ViewPositions.from_poses(poses), REFS, present=present)
    torch.testing.assert_close(again[:, :2], out[:, :2], rtol=0, atol=1e-5)


def test_causal_split_equals_the_mask_in_values_and_gradients():
    """The fast path leaves out what the mask would hide (the masked joint pass is the slow twin)."""
    model = network(**CAUSAL)
    latents, t, poses = inputs()
    positions, everything = ViewPositions.from_poses(poses), torch.ones(BATCH, VIEWS, dtype=torch.bool)
    weight = torch.randn(BATCH, TARGETS, 48, H, W)
    results = []
    for present in (None, everything):
        model.zero_grad()
        out = model(latents, t, positions, REFS, present=present)
        (out * weight).mean().backward()
        results.append((out.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-4)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], rtol=1e-3, atol=1e-5)


def test_targets_do_not_leak_into_causal_references():
    model = network(**CAUSAL)
    latents, t, poses = inputs()
    seen = []
    handle = model.blocks[-1].register_forward_hook(lambda m, a, out: seen.append(out[:, :REFS].detach()))
    model(latents, t, ViewPositions.from_poses(poses), REFS)
    latents[:, REFS:] += 1.0
    model(latents, t * 0.5, ViewPositions.from_poses(poses), REFS)
    handle.remove()
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-5)


def test_bidirectional_references_do_see_targets():
    model = network()
    latents, t, poses = inputs()
    seen = []
    handle = model.blocks[-1].register_forward_hook(lambda m, a, out: seen.append(out[:, :REFS].detach()))
    model(latents, t, ViewPositions.from_poses(poses), REFS)
    latents[:, REFS:] += 1.0
    model(latents, t, ViewPositions.from_poses(poses), REFS)
    handle.remove()
    assert (seen[0] - seen[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [{}, dict(reprojection_depths=9), dict(reprojection_depths=7, reprojection_beyond=5),
     dict(encoding=EncodingConfig(lens="projective", image_frequencies=HARMONIC))],
    ids=str,
)  # fmt: skip
def test_cached_forward_equals_uncached(changes):
    model = network(**CAUSAL, **changes)
    latents, t, poses = inputs()
    positions = with_lenses(ViewPositions.from_poses(poses))
    cache = model.allocate_cache(BATCH, REFS, (H, W), torch.float32)
    model.encode_references(latents[:, :1], positions.select(slice(0, 1)), cache)
    assert cache.attention.num_views == 1
    cache = model.allocate_cache(BATCH, REFS, (H, W), torch.float32)
    model.encode_references(latents[:, :REFS], positions.select(slice(0, REFS)), cache)
    assert cache.attention.num_views == REFS
    cached = model(latents[:, REFS:], t, positions.select(slice(REFS, None)), 0, cache=cache)
    torch.testing.assert_close(cached, model(latents, t, positions, REFS), rtol=0, atol=1e-4)


def test_a_bidirectional_model_refuses_the_cache():
    model = network()
    with pytest.raises(KaleidosceneError, match="cannot cache references"):
        model.allocate_cache(1, 2, (H, W), torch.float32)


def test_features_enter_through_references_only():
    model = network(feature_channels=5)
    latents, t, poses = inputs()
    positions, features = ViewPositions.from_poses(poses), torch.randn(BATCH, REFS, H * W, 5)
    out = model(latents, t, positions, REFS, features=features)
    assert (model(latents, t, positions, REFS, features=features + 1) - out).abs().max() > 1e-3
    with pytest.raises(KaleidosceneError, match="feature channels"):
        model(latents, t, positions, REFS)
    model(latents[:, REFS:], t, positions.select(slice(REFS, None)), 0)  # the unconditional branch needs none


def test_video_and_3d_scenes_share_a_batch():
    model = network()
    latents, t, poses = inputs()
    scene = ViewPositions.from_poses(poses[:1])
    video = ViewPositions.from_times(torch.arange(VIEWS)[None] / VIEWS)
    mixed = model(latents, t, ViewPositions.concatenate([scene, video]), REFS)
    for n, alone in enumerate((scene, video)):
        one = model(latents[n : n + 1], t[n : n + 1], alone, REFS)
        torch.testing.assert_close(mixed[n : n + 1], one, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [dict(window=2), CAUSAL], ids=str)
def test_the_network_has_derivatives_in_forward_mode(changes):
    """Along latents and time at once, as mean flows take them, against the difference of two values."""
    model = network(**changes)
    latents, t, poses = inputs()
    positions = ViewPositions.from_poses(poses)
    point, direction = (latents, t), (torch.randn_like(latents), torch.ones_like(t))

    def velocity(latents, t):
        return model(latents, t, positions, REFS)

    _, tangent = torch.func.jvp(velocity, point, direction)
    step = 2e-5  # the fastest wave of the time has 1000 radians
    ends = [velocity(*(x + side * step * d for x, d in zip(point, direction, strict=True))) for side in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(tangent, expected, rtol=0, atol=0.02 * expected.abs().max().item())


def test_activation_checkpointing_changes_no_gradient():
    model = network(**CAUSAL)
    latents, t, poses = inputs()
    gradients = []
    for on in (False, True):
        model.activation_checkpointing = on
        model.zero_grad()
        model(latents, t, ViewPositions.from_poses(poses), REFS).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("size", "encoder", "stated"),
    [(kaleido_small, 86.58e6, 653.2e6), (kaleido_medium, 86.58e6, 1271e6), (kaleido_large, 304.37e6, 3168e6)],
)
def test_sizes_of_the_paper(size, encoder, stated):
    """Within 0.5 % of method A.12, DINOv2 included."""
    with torch.device("meta"):
        model = Kaleido(size())
    total = sum(p.numel() for p in model.parameters()) + encoder
    assert total == pytest.approx(stated, rel=5e-3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(width=100), "multiple of 64"), (dict(kv_heads=3), "divide"), (dict(window=0), "window"),
        (dict(reference_time="zero"), "go together"), (dict(depth=0), "depth"),
        (dict(reprojection_depths=-1), "reprojection_depths"),
        (dict(reprojection_beyond=3), "reprojection_beyond must be at least 0, and belongs to reprojection_depths"),
        (dict(reprojection_depths=3, reprojection_beyond=3, refined_points=2), "reprojection_beyond is 0"),
    ],
)  # fmt: skip
def test_impossible_architectures_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        KaleidoConfig(**{**dict(width=128, depth=2, kv_heads=1), **changes})
