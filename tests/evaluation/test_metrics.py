"""Every metric against an independent implementation or values by hand."""

import math
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.depth import depth_errors, depth_errors_by_view
from kaleidoscene.evaluation.metrics.distribution import DinoV2ClassFeatures, InceptionFeatures, frechet_distance
from kaleidoscene.evaluation.metrics.image import flip, psnr, ssim, truncated
from kaleidoscene.evaluation.metrics.perceptual import Lpips, check_published
from kaleidoscene.evaluation.metrics.poses import relative_pose_scores, trajectory_errors
from kaleidoscene.evaluation.metrics.registry import make_metrics
from kaleidoscene.evaluation.metrics.shape import chamfer, chamfer_sampled, chamfer_vertices, occupancy, volume_iou
from kaleidoscene.evaluation.metrics.temporal import flicker, reproject, reprojection_psnr, view_to_view
from kaleidoscene.geometry.alignment import Similarity
from kaleidoscene.geometry.cameras import Cameras
from tests.conftest import ring


def pairs(count=3, size=(23, 31)):
    a = torch.rand(count, 3, *size)
    return a, (a + 0.2 * torch.randn_like(a)).clamp(0, 1)


def test_psnr_values():
    a = torch.zeros(2, 3, 4, 5)
    torch.testing.assert_close(psnr(a + 0.1, a), torch.full((2,), 20.0))
    assert psnr(a, a).tolist() == [100.0, 100.0]
    torch.testing.assert_close(psnr(a - 1, a), torch.full((2,), 100.0))  # clamped


def test_psnr_and_ssim_equal_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pairs()
    rows_a, rows_b = (x.movedim(1, -1).numpy() for x in (a, b))
    bytes_a, bytes_b = (np.uint8(x * 255) for x in (rows_a, rows_b))  # cuts off, as EscherNet's code does
    for n in range(len(a)):
        assert psnr(a, b)[n].item() == pytest.approx(
            metrics.peak_signal_noise_ratio(rows_b[n], rows_a[n], data_range=1.0), abs=1e-4
        )
        assert psnr(truncated(a), truncated(b))[n].item() == pytest.approx(
            metrics.peak_signal_noise_ratio(bytes_b[n], bytes_a[n]), abs=1e-3
        )
        gaussian = metrics.structural_similarity(
            rows_a[n], rows_b[n], channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=1.0,
        )  # fmt: skip
        assert ssim(a, b)[n].item() == pytest.approx(gaussian, abs=1e-5)
        sample = metrics.structural_similarity(  # its default of a sample covariance
            rows_a[n], rows_b[n], channel_axis=2, gaussian_weights=True, sigma=1.5, data_range=1.0
        )
        assert ssim(a, b, window="gaussian-sample")[n].item() == pytest.approx(sample, abs=1e-5)
        assert abs(sample - gaussian) > 1e-6
        uniform = metrics.structural_similarity(bytes_a[n], bytes_b[n], channel_axis=2)
        assert ssim(truncated(a), truncated(b), window="uniform")[n].item() == pytest.approx(uniform, abs=5e-5)


def test_ssim_equals_a_second_independent_implementation():
    msssim = pytest.importorskip("pytorch_msssim")
    a, b = pairs()
    expected = msssim.ssim(a, b, data_range=1.0, size_average=False, win_size=11, win_sigma=1.5)
    torch.testing.assert_close(ssim(a, b), expected, rtol=0, atol=1e-5)
    torchmetrics = pytest.importorskip("torchmetrics.functional.image")
    expected = torchmetrics.structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(a, b, padded=True), expected, rtol=0, atol=1e-5)
    assert (ssim(a, b, padded=True) - ssim(a, b)).abs().max() > 1e-3
    expected = torchmetrics.peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(a, b), expected, rtol=0, atol=1e-4)


def test_ssim_is_one_for_equal_images_and_the_windows_differ():
    a, b = pairs(2)
    torch.testing.assert_close(ssim(a, a), torch.ones(2))
    assert (ssim(a, b) - ssim(a, b, window="uniform")).abs().max() > 1e-4
    with pytest.raises(KaleidosceneError, match="11 pixels cannot be taken of images of 8x31"):
        ssim(a[:, :, :8], b[:, :, :8])


def test_uniform_ssim_of_constant_images():
    """Means 0.2 and 0.6, no variance: (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)."""
    value = ssim(torch.full((1, 3, 9, 11), 0.2), torch.full((1, 3, 9, 11), 0.6), window="uniform")
    assert value.item() == pytest.approx((0.24 + 1e-4) / (0.4 + 1e-4), rel=1e-4)


def test_truncation_keeps_levels_and_cuts_between_them():
    levels = torch.arange(256).float().expand(1, 3, -1)[..., None] / 255
    torch.testing.assert_close(truncated(levels), levels, rtol=0, atol=1e-7)
    torch.testing.assert_close(truncated(levels + 0.9 / 255), levels.clamp_max(1), rtol=0, atol=1e-7)


def test_flip_is_zero_for_equal_images_and_near_one_for_black_and_white():
    pytest.importorskip("flip_evaluator")
    a, b = pairs(2)
    torch.testing.assert_close(flip(a, a), torch.zeros(2))
    worse = flip((a + 3 * (b - a)).clamp(0, 1), a)
    assert bool((worse > flip(b, a)).all()) and bool((flip(b, a) > 0).all())
    black = torch.zeros(1, 3, 20, 24)
    assert flip(1 - black, black).item() > 0.9  # the published measure runs from 0 to 1


def test_flip_without_its_package_is_refused_before_anything_is_scored(monkeypatch):
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    with pytest.raises(KaleidosceneError, match=r"pip install 'kaleidoscene\[eval\]'"):
        make_metrics(["psnr", "flip"], None)


def test_flip_is_that_of_its_package_at_the_stated_pixels_a_degree():
    package = pytest.importorskip("flip_evaluator")
    a, b = pairs(2)
    for n in range(2):
        rows = [x[n].movedim(0, -1).numpy() for x in (b, a)]
        stated = package.evaluate(*rows, "LDR", applyMagma=False, parameters={"ppd": 0.7 * 3840 / 0.7 * math.pi / 180})
        assert flip(a, b)[n].item() == pytest.approx(stated[1], abs=1e-6)  # 4K, 0.7 m wide, seen from 0.7 m
        near = package.evaluate(*rows, "LDR", applyMagma=False, parameters={"ppd": 30.0})
        assert abs(near[1] - stated[1]) > 1e-4


def alexnet_features():
    sizes = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    layers = []
    for number, (i, o, k, s, p) in enumerate(sizes):
        layers += [nn.Conv2d(i, o, k, s, p), nn.ReLU()] + ([nn.MaxPool2d(3, 2)] if number in (0, 1, 4) else [])
    return nn.Sequential(*layers)


def vgg_features():
    layers, before = [], 3
    for stage, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(stage):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


@pytest.fixture
def torchvision(monkeypatch):
    """What the package lpips takes of torchvision, which has no build for every torch: the layers of two networks."""
    module, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    models.alexnet = lambda pretrained: types.SimpleNamespace(features=alexnet_features())
    models.vgg16 = lambda pretrained: types.SimpleNamespace(features=vgg_features())
    module.models = models
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return module


@pytest.mark.parametrize(
    ("net", "features", "taken", "file"),
    [
        ("alex", alexnet_features, (1, 4, 7, 9, 11), "alexnet-owt-7be5be79.pth"),
        ("vgg", vgg_features, (3, 8, 15, 22, 29), "vgg16-397923af.pth"),
    ],
)
def test_lpips_is_what_its_definition_says(net, features, taken, file, tmp_path, torchvision):
    """With random backbone weights in a file: the sum over layers of weighted squared unit-vector differences."""
    lpips = pytest.importorskip("lpips")
    network = features()
    torch.save({"features." + k: v for k, v in network.state_dict().items()}, tmp_path / file)
    a, b = pairs(2, (64, 80))
    metric = Lpips(net, tmp_path)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = torch.zeros(2)
    x, y = (((2 * z - 1) - shift[:, None, None]) / scale[:, None, None] for z in (a, b))
    with torch.no_grad():
        for place, layer in enumerate(network):
            x, y = layer(x), layer(y)
            if place in taken:
                unit_x, unit_y = (z / (z.square().sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y))
                weight = metric.network.lins[taken.index(place)].model[-1].weight[0, :, 0, 0]
                total += ((unit_x - unit_y).square() * weight[:, None, None]).sum(1).mean((1, 2))
    torch.testing.assert_close(metric(a, b), total, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(metric(a, a), torch.zeros(2))
    raw = Lpips(net, tmp_path, rescale=False)
    torch.testing.assert_close(raw(a, b), lpips.LPIPS.forward(metric.network, a, b).reshape(-1).detach())
    assert not torch.allclose(raw(a, b), metric(a, b))
    (tmp_path / file).write_bytes(b"no weights")
    with pytest.raises(KaleidosceneError, match=f"{file}: not a file of weights"):
        Lpips(net, tmp_path)
    torch.save({"features.0.weight": torch.zeros(2, 2)}, tmp_path / file)
    with pytest.raises(KaleidosceneError, match="no features.0.weight of shape"):
        Lpips(net, tmp_path)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(KaleidosceneError, match="no alexnet-owt-7be5be79.pth in"):
        Lpips("alex", tmp_path)
    with pytest.raises(KaleidosceneError, match="no weights-inception"):
        InceptionFeatures(tmp_path)
    with pytest.raises(KaleidosceneError, match="FD-DINOv2: no DINOv2 at"):
        DinoV2ClassFeatures(tmp_path)
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"other weights")
    with pytest.raises(KaleidosceneError, match="not the published file of that name .its SHA-256 begins with"):
        make_metrics(["lpips-alex"], tmp_path)
    (tmp_path / "weights-495b84f5.pth").write_bytes(b"these weights")  # the first digits of its SHA-256
    check_published(tmp_path / "weights-495b84f5.pth")


def test_the_frechet_distance_of_gaussians():
    linalg = pytest.importorskip("scipy.linalg")
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(60, 5, generator=generator)
    b = torch.randn(50, 5, generator=generator) @ torch.rand(5, 5, generator=generator) + 1
    found = frechet_distance(a, b)
    cov = [np.cov(x.double().numpy().T) for x in (a, b)]
    expected = (a.double().mean(0) - b.double().mean(0)).square().sum() + np.trace(
        cov[0] + cov[1] - 2 * linalg.sqrtm(cov[0] @ cov[1]).real
    )
    assert found.value == pytest.approx(float(expected), rel=1e-6) and found.samples == 50 and found.dimension == 5
    assert frechet_distance(a, a).value == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2).value == pytest.approx(4 * 5, rel=1e-6)  # moments differ by a shift alone
    with pytest.raises(KaleidosceneError, match="at least 2 samples"):
        frechet_distance(a[:1], b)


def test_dinov2_features_of_a_tiny_instance(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=28
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    a, b = pairs(4, (40, 52))
    features = DinoV2ClassFeatures(tmp_path)
    assert features(a).shape == (4, 24)
    resized = torch.nn.functional.interpolate(a, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    normal = (resized - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]  # fmt: skip
    expected = transformers.Dinov2Model.from_pretrained(tmp_path).eval()(normal).pooler_output
    torch.testing.assert_close(features(a), expected.detach(), rtol=0, atol=1e-5)  # pooled is the class token
    assert frechet_distance(features(a), features(b)).value > frechet_distance(features(a), features(a)).value
    with pytest.raises(KaleidosceneError, match="has 24 channels, the large model has 1024"):
        DinoV2ClassFeatures(tmp_path, width=1024)


def test_depth_errors_by_hand():
    truth = torch.full((2, 3, 4), 2.0)
    depth = truth.clone()
    depth[0, 0] = 2.6  # a third of the first view is 30 % off
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    score = depth_errors(depth, truth, mask)
    assert score.rel == pytest.approx((0.3 / 3 + 0) / 2, rel=1e-5) and score.a1 == pytest.approx((2 / 3 + 1) / 2)
    mask[0, 0] = False
    assert depth_errors(depth, truth, mask).rel == 0
    rel, a1 = depth_errors_by_view(depth, truth, torch.ones_like(mask))
    assert rel.tolist() == pytest.approx([0.1, 0.0]) and a1.tolist() == pytest.approx([2 / 3, 1.0])
    with pytest.raises(KaleidosceneError, match="view 1 has no pixel"):
        depth_errors(depth, truth, mask & (torch.arange(2) == 0)[:, None, None])
    with pytest.raises(KaleidosceneError, match="Depth of view 0 has values that are negative"):
        depth_errors(-depth, truth, mask)
    with pytest.raises(KaleidosceneError, match="true depth of view 0 has values that are not positive"):
        depth_errors(depth, -truth, mask)
    missing = torch.where(torch.arange(4) == 1, 0.0, truth)  # nothing met in a column of four
    score = depth_errors(missing, truth, torch.ones_like(mask))
    assert score.rel == pytest.approx(0.25) and score.a1 == pytest.approx(0.75)


def some_similarity(scale):
    rotation = ring(1, seed=9).world_from_cam[0, :3, :3].double()
    return Similarity(torch.tensor(scale).double(), rotation, torch.ones(3).double())


def turned(poses, degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[c, -s], [s, c]])
    return poses.double() @ turn


def test_relative_poses_by_hand():
    truth = ring(7).world_from_cam.double()
    perfect = relative_pose_scores(truth, truth)
    assert (perfect.ra5, perfect.rt5, perfect.auc30) == (100, 100, 100)
    # Any similarity of the world changes nothing.
    similarity = some_similarity(3.0)
    moved = similarity.cameras(Cameras(truth, torch.eye(3).double().expand(7, 3, 3), (4, 4))).world_from_cam
    assert relative_pose_scores(moved, truth).auc30 == 100
    # One camera of seven turned by 10.5 degrees about its axis: six of 21 pairs are off by that in rotation.
    wrong = truth.clone()
    wrong[6] = turned(truth[6], 10.5)
    score = relative_pose_scores(wrong, truth)
    assert score.ra5 == pytest.approx(100 * 15 / 21) and (score.ra15, score.ra30) == (100, 100)
    # The turn is about the optical axis of the second camera of its pairs: directions as the first ones see them stay.
    assert score.rt5 == 100
    assert score.auc30 == pytest.approx(100 * (15 * 30 + 6 * 20) / (21 * 30))
    # Which way along a direction is left open: the world turned inside out about its origin.
    mirrored = truth.clone()
    mirrored[:, :3, 3] *= -1
    assert relative_pose_scores(mirrored, truth).rt5 == 100
    # Cameras that fell together have no direction.
    together = truth.clone()
    together[:, :3, 3] = 1.0
    collapsed = relative_pose_scores(together, truth)
    assert (collapsed.ra5, collapsed.rt5, collapsed.rt15, collapsed.rt30, collapsed.auc30) == (100, 0, 0, 0, 0)
    with pytest.raises(KaleidosceneError, match="at least 2 cameras"):
        relative_pose_scores(truth[:1], truth[:1])


def test_trajectory_errors_after_alignment():
    pycolmap = pytest.importorskip("pycolmap")
    truth = ring(9).world_from_cam.double()
    generator = torch.Generator().manual_seed(5)
    noisy = truth.clone()
    noisy[:, :3, 3] += 0.05 * torch.randn(9, 3, generator=generator, dtype=torch.float64)
    similarity = some_similarity(0.4)
    moved = similarity.cameras(Cameras(noisy, torch.eye(3).double().expand(9, 3, 3), (4, 4))).world_from_cam
    score = trajectory_errors(moved, truth)
    fit = pycolmap.estimate_sim3d(moved[:, :3, 3].numpy(), truth[:, :3, 3].numpy())
    laid = (fit.scale * moved[:, :3, 3].numpy() @ fit.rotation.matrix().T) + fit.translation
    rmse = np.sqrt(((laid - truth[:, :3, 3].numpy()) ** 2).sum(-1).mean())
    extent = (truth[:, :3, 3] - truth[0, :3, 3]).norm(dim=-1).max().item()
    assert score.ate_t == pytest.approx(rmse / extent, rel=1e-6) and 0.005 < score.ate_t < 0.1
    exact = similarity.cameras(Cameras(truth, torch.eye(3).double().expand(9, 3, 3), (4, 4))).world_from_cam
    perfect = trajectory_errors(exact, truth)
    assert perfect.ate_t < 1e-7 and perfect.ate_r < 1e-4
    assert trajectory_errors(turned(exact, 7.0), truth).ate_r == pytest.approx(7.0, rel=1e-5)
    assert trajectory_errors(turned(exact, 7.0), truth).ate_r_radians == pytest.approx(math.radians(7.0), rel=1e-5)


def test_trajectory_errors_are_those_of_evo():
    """Rotations are off as well as places, by another amount in every camera."""
    metrics, trajectory = pytest.importorskip("evo.core.metrics"), pytest.importorskip("evo.core.trajectory")
    truth = ring(11).world_from_cam.double()
    generator = torch.Generator().manual_seed(8)
    noisy = truth.clone()
    noisy[:, :3, 3] += 0.1 * torch.randn(11, 3, generator=generator, dtype=torch.float64)
    for number in range(11):
        noisy[number] = turned(noisy[number : number + 1], 3.0 * number)[0]
    moved = some_similarity(0.4).cameras(Cameras(noisy, torch.eye(3).double().expand(11, 3, 3), (4, 4))).world_from_cam
    theirs, real = (trajectory.PosePath3D(poses_se3=list(poses.numpy())) for poses in (moved, truth))
    theirs.align(real, correct_scale=True)
    found = {}
    for name in ("translation_part", "rotation_angle_deg"):
        error = metrics.APE(metrics.PoseRelation[name])
        error.process_data((real, theirs))
        found[name] = error.get_all_statistics()
    score = trajectory_errors(moved, truth)
    extent = (truth[:, :3, 3] - truth[0, :3, 3]).norm(dim=-1).max().item()
    assert score.ate_t == pytest.approx(found["translation_part"]["rmse"] / extent, rel=1e-9)
    assert score.ate_r == pytest.approx(found["rotation_angle_deg"]["mean"], rel=1e-6) and score.ate_r > 5


def test_chamfer_variants_by_hand():
    pytest.importorskip("scipy")
    a = np.array([[0.0, 0, 0], [1, 0, 0]])
    b = np.array([[0.0, 0, 0], [1, 0, 0], [1, 2, 0]])  # only b -> a has a distance: 2 for one of three
    assert chamfer(a, b) == pytest.approx((0 + 2 / 3) / 2)
    assert chamfer(a, b, combine="sum") == pytest.approx(2 / 3)
    assert chamfer(a, b, squared=True) == pytest.approx((0 + 4 / 3) / 2)
    with pytest.raises(KaleidosceneError, match="got 0 and 3"):
        chamfer(a[:0], b)


def test_meshes_against_known_distances():
    """Spheres of one size are equal after the unit box, whatever their radius and place; a slab fills half a cube."""
    trimesh = pytest.importorskip("trimesh")
    small, large = trimesh.creation.icosphere(subdivisions=3), trimesh.creation.icosphere(subdivisions=3, radius=4)
    large.apply_translation([1, 2, 3])
    assert chamfer_vertices(small, large) == pytest.approx(0, abs=1e-6)
    assert volume_iou(small, large) == 1.0
    cube, slab = trimesh.creation.box((2, 2, 2)), trimesh.creation.box((1, 1, 0.5))
    # The corners of the cube lie 0.25 above those of the slab.
    assert chamfer_vertices(cube, slab) == pytest.approx(0.25)
    assert occupancy(cube).sum() == 31**3  # points at n / 32 - 1 that lie strictly within half a unit
    assert volume_iou(cube, slab) == pytest.approx(15 / 31)
    assert occupancy(small).sum() / 32**3 == pytest.approx(math.pi / 6, rel=0.02)
    # Between parallel squares: top and bottom of the slab (area 1 each of 4) are 0.25 from the cube's, and so on.
    finer = chamfer_sampled(cube, slab, samples=20_000)
    assert chamfer_sampled(cube, slab, samples=20_000, combine="sum") == pytest.approx(2 * finer)
    assert chamfer_sampled(small, large, samples=20_000) < 0.01 < finer < 0.25
    holed = trimesh.Trimesh(cube.vertices, cube.faces[2:])
    with pytest.raises(KaleidosceneError, match="has holes"):
        volume_iou(holed, cube)


def test_flicker_and_change_from_view_to_view():
    ramp = torch.linspace(0, 0.5, 6)[:, None, None, None].expand(6, 3, 5, 7)
    assert flicker(ramp) == pytest.approx(0, abs=1e-4)
    jumping = torch.tensor([0.0, 0.1, 0.0, 0.1])[:, None, None, None].expand(4, 3, 5, 7)
    assert flicker(jumping) == pytest.approx(0.2 * 255, rel=1e-5)
    assert view_to_view(jumping) == pytest.approx(20.0, rel=1e-5)
    with pytest.raises(KaleidosceneError, match="at least 3 frames"):
        flicker(ramp[:2])


def plane_views(shift: float):
    """A textured wall at z = 4 seen by two cameras beside each other."""
    h, w = 24, 32
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = shift
    cameras = Cameras.from_field_of_view(poses, 0.9, (h, w))
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    frames = []
    for camera in (cameras[0], cameras[1]):
        rays = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.linalg.inv(camera.intrinsics).mT
        place = rays * 4 + camera.world_from_cam[:3, 3]
        frames.append(torch.stack([(place[..., n % 2] * (0.7 + 0.2 * n)).sin() / 2 + 0.5 for n in range(3)]))
    return torch.stack(frames), torch.full((2, h, w), 4.0), cameras


def test_reprojection_finds_the_same_surface():
    frames, depths, cameras = plane_views(0.3)
    assert reprojection_psnr(frames, depths, cameras) > 35  # bilinear sampling is all that is lost
    assert reprojection_psnr(frames, depths, replace(cameras, world_from_cam=torch.eye(4).repeat(2, 1, 1))) < 25
    _, mask = reproject(frames[0], depths[0], cameras, depths[1])
    # The wall moves by focal 0.3 / 4 pixels: so many columns of the second view lie beyond the first.
    moved = float(cameras.intrinsics[0, 0, 0]) * 0.3 / 4
    assert mask.float().mean().item() == pytest.approx(1 - moved / 32, abs=1.5 / 32)
    in_front = depths.clone()
    in_front[0] = 2.0  # something hides the wall from the first camera
    assert not reproject(frames[0], in_front[0], cameras, depths[1])[1].any()
    with pytest.raises(KaleidosceneError, match="No two neighbouring frames see a surface in common"):
        reprojection_psnr(frames, in_front, cameras)
    # A third frame that shows nothing of it is left out of the mean.
    apart = Cameras.concatenate([cameras, cameras[1:]])
    longer = torch.cat([frames, torch.rand(1, *frames.shape[1:])])
    with_nothing = torch.cat([depths, torch.zeros_like(depths[:1])])
    assert reprojection_psnr(longer, with_nothing, apart) == reprojection_psnr(frames, depths, cameras)
