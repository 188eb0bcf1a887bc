"""Laws of geometric transform attention (method A.2, F.1, F.3)."""

from dataclasses import replace

import pytest
import torch

from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.attention import attend_explicitly
from kaleidoscene.nn.gta import Frequencies, ViewTransforms, image_rotations, lens_matrices, view_transforms
from kaleidoscene.nn.positions import NOMINAL_FOCAL, ViewPositions

BATCH, VIEWS, TOKENS, HEADS, DIM = 2, 3, 5, 2, 32


def cross_view(q, k, v, transforms: ViewTransforms):
    """Attention over all tokens of all views with the view part of GTA."""
    q, k, v = (
        ViewTransforms.apply(x, m).flatten(1, 2).transpose(1, 2)
        for x, m in ((q, transforms.query), (k, transforms.key), (v, transforms.key))
    )
    out = attend_explicitly(q, k, v, scale=DIM**-0.5).transpose(1, 2).unflatten(1, (VIEWS, TOKENS))
    return ViewTransforms.apply(out, transforms.output)


def blocks(cam_from_world, representation="standard") -> ViewTransforms:
    positions = ViewPositions.from_poses(cam_from_world)
    return view_transforms(positions, DIM, representation=representation, time_frequencies=Frequencies())


def heads():
    return torch.randn(3, BATCH, VIEWS, TOKENS, HEADS, DIM)


@pytest.mark.parametrize("representation", ["standard", "dual"])
def test_output_does_not_depend_on_the_world_frame(representation):
    q, k, v = heads()
    poses, move = random_rigid(BATCH, VIEWS), random_rigid(BATCH, 1)
    before = cross_view(q, k, v, blocks(poses, representation))
    after = cross_view(q, k, v, blocks(poses @ move, representation))
    torch.testing.assert_close(after, before, rtol=0, atol=2e-4)  # fp32: observed 3e-5
    one_moved = torch.cat([poses[:, :1] @ move, poses[:, 1:]], dim=1)
    assert (cross_view(q, k, v, blocks(one_moved, representation)) - before).abs().max() > 1e-2


def test_camera_to_world_in_place_of_world_to_camera_is_not_invariant():
    """The mistake that the convention guards against (method A.2)."""
    q, k, v = heads()
    world_from_cam, move = random_rigid(BATCH, VIEWS), random_rigid(BATCH, 1)
    before = cross_view(q, k, v, blocks(world_from_cam))
    after = cross_view(q, k, v, blocks(move @ world_from_cam))
    assert (after - before).abs().max() > 1e-2


def test_standard_blocks_are_the_papers():
    """logit_ij = q_i^T E_i C_j k_j and out_i = sum_j a_ij E_i C_j v_j, written out for one head."""
    q, k, v = (x[:1, :, :, :1].double() for x in heads())
    e = random_rigid(1, VIEWS, dtype=torch.float64)
    relative = e[0, :, None] @ torch.linalg.inv(e[0])[None]
    expand = torch.kron(torch.eye(DIM // 4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64))
    matrices = torch.stack(
        [torch.stack([expand * relative[i, j].repeat(DIM // 4, DIM // 4) for j in range(VIEWS)]) for i in range(VIEWS)]
    )
    logits = torch.einsum("isd,ijde,jte->isjt", q[0, :, :, 0], matrices, k[0, :, :, 0]) * DIM**-0.5
    weights = logits.flatten(2).softmax(-1).view(VIEWS, TOKENS, VIEWS, TOKENS)
    expected = torch.einsum("isjt,ijde,jte->isd", weights, matrices, v[0, :, :, 0])
    got = cross_view(q.float(), k.float(), v.float(), blocks(e.float()))[0, :, :, 0]
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)


def test_video_depends_on_time_differences_only():
    q, k, v = heads()
    times = torch.rand(BATCH, VIEWS)
    harmonic = Frequencies(kind="harmonic")

    def run(at):
        return cross_view(q, k, v, view_transforms(ViewPositions.from_times(at), DIM, time_frequencies=harmonic))

    torch.testing.assert_close(run(times + 0.37), run(times), rtol=0, atol=1e-4)
    assert (run(times * 0.5) - run(times)).abs().max() > 1e-2


def test_a_batch_may_mix_video_and_3d():
    q, k, v = heads()
    poses, times = random_rigid(1, VIEWS), torch.rand(1, VIEWS)
    scene, video = ViewPositions.from_poses(poses), ViewPositions.from_times(times)

    def transforms(positions):
        return view_transforms(positions, DIM, time_frequencies=Frequencies())

    mixed = cross_view(q, k, v, transforms(ViewPositions.concatenate([scene, video])))
    for n, alone in enumerate((scene, video)):
        single = cross_view(q[n : n + 1], k[n : n + 1], v[n : n + 1], transforms(alone))
        torch.testing.assert_close(mixed[n : n + 1], single, rtol=0, atol=1e-5)


def test_rotations_are_relative_along_both_axes():
    """Logits between two places depend on their offset alone."""
    rotations = image_rotations((4, 6), 16, Frequencies(kind="geometric", max_frequency=8.0), torch.device("cpu"))
    q, k = torch.randn(2, 1, 1, 32)
    grid_q = rotations.apply(q.expand(24, 1, 32))[:, 0].view(4, 6, 32)
    grid_k = rotations.apply(k.expand(24, 1, 32))[:, 0].view(4, 6, 32)
    first = (grid_q[1, 2] * grid_k[2, 4]).sum()
    torch.testing.assert_close((grid_q[0, 1] * grid_k[1, 3]).sum(), first, rtol=0, atol=1e-4)
    assert ((grid_q[1, 2] * grid_k[3, 4]).sum() - first).abs() > 1e-3


def test_inverse_rotation_undoes():
    rotations = image_rotations((3, 5), 8, Frequencies(), torch.device("cpu"))
    x = torch.randn(2, 15, 3, 16)
    torch.testing.assert_close(rotations.apply(rotations.apply(x), inverse=True), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("frequencies", "expected"),
    [
        (Frequencies(), [1, 0.5, 0.25, 0.125]),
        (Frequencies(kind="octave", max_frequency=8.0), [8, 4, 2, 1]),
        (Frequencies(kind="harmonic"), [1, 2, 3, 4]),
        (Frequencies(kind="geometric", max_frequency=8.0), [1, 2, 4, 8]),
    ],
)
def test_band_spacing(frequencies, expected):
    angle = frequencies.angles(torch.tensor(1.0), 2 * torch.pi, 4)
    torch.testing.assert_close(angle, torch.tensor(expected, dtype=torch.float32))


def test_rope_frequencies_take_integer_positions():
    angle = Frequencies(kind="rope").angles(torch.tensor(3.0), 99, 4)
    torch.testing.assert_close(angle, 3 * 10000 ** (-torch.arange(4) / 4))


def test_transform_norms_are_bounded_by_the_normalisation():
    """Singular values of a pose with translation 1 are 1.618, 1, 1, 0.618 (method A.2)."""
    pose = random_rigid(1, 1)
    pose[..., :3, 3] = torch.nn.functional.normalize(pose[..., :3, 3], dim=-1)
    values = torch.linalg.svdvals(blocks(pose).query[0, 0, :4, :4])
    torch.testing.assert_close(values, torch.tensor([1.618034, 1.0, 1.0, 0.618034]), rtol=0, atol=1e-4)


def lenses() -> torch.Tensor:
    """fx / w, fy / h, cx / w, cy / h of lenses with pixels that are not square and middles off the image's; fp64."""
    g = torch.Generator().manual_seed(4)
    focal, centre = (
        0.4 + 2 * torch.rand(BATCH, VIEWS, 2, generator=g),
        0.3 + 0.4 * torch.rand(BATCH, VIEWS, 2, generator=g),
    )
    return torch.cat([focal, centre], -1).double()


def test_the_nominal_lens_changes_no_matrix_and_videos_have_none():
    poses = random_rigid(BATCH, VIEWS)
    for positions in (ViewPositions.from_poses(poses), ViewPositions.from_times(torch.rand(BATCH, VIEWS))):
        without, with_lens = (
            view_transforms(positions, DIM, time_frequencies=Frequencies(), use_lens=use) for use in (False, True)
        )
        for name in ("query", "key", "output"):
            torch.testing.assert_close(getattr(with_lens, name), getattr(without, name), rtol=0, atol=1e-6)


def test_a_lens_is_the_projection_that_images_have():
    """K takes a ray to where a camera of the nominal lens meets the same place; its inverse takes it back."""
    lens = lenses()
    matrix, inverse = lens_matrices(lens)
    eye = torch.eye(4, dtype=torch.float64).expand_as(matrix)
    torch.testing.assert_close(matrix @ inverse, eye, rtol=0, atol=1e-12)
    points = torch.randn(BATCH, VIEWS, 4, 1, dtype=torch.float64).abs() + 0.1
    seen = lens[..., :2, None] * points[..., :2, :] / points[..., 2:3, :] + lens[..., 2:, None]
    through = matrix @ points
    torch.testing.assert_close(NOMINAL_FOCAL * through[..., :2, :] / through[..., 2:3, :] + 0.5, seen)


def test_attention_with_lenses_does_not_depend_on_the_world_frame():
    q, k, v = heads().double()
    poses, lens = random_rigid(BATCH, VIEWS, dtype=torch.float64), lenses()

    def run(poses: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        positions = replace(ViewPositions.from_poses(poses), lens=lens)
        return cross_view(q, k, v, view_transforms(positions, DIM, time_frequencies=Frequencies(), use_lens=True))

    before = run(poses, lens)
    moved = run(poses @ random_rigid(BATCH, 1, dtype=torch.float64), lens)
    torch.testing.assert_close(moved, before, rtol=0, atol=1e-10)
    assert (run(poses, lens.roll(1, 1)) - before).abs().max() > 1e-2


def test_a_stretch_of_a_camera_is_undone_by_its_lens():
    """K diag(s, r, 1) [R|t] is one matrix, whether the lens or the camera's axes are stretched (fp64)."""
    poses, lens = random_rigid(BATCH, VIEWS, dtype=torch.float64), lenses()
    stretch = torch.tensor([1.7, 0.6], dtype=torch.float64)
    stretched = poses.clone()
    stretched[..., :2, :] *= stretch[:, None]
    unstretched = torch.cat([lens[..., :2] / stretch, lens[..., 2:]], -1)
    torch.testing.assert_close(
        lens_matrices(unstretched)[0] @ stretched, lens_matrices(lens)[0] @ poses, rtol=0, atol=1e-12
    )


def test_a_batch_with_lenses_may_be_in_half_precision_around():
    """Matrices are built in the precision of poses, whatever autocast says."""
    positions = replace(ViewPositions.from_poses(random_rigid(BATCH, VIEWS)), lens=lenses().float())
    with torch.autocast("cpu", torch.bfloat16):
        found = view_transforms(positions, DIM, time_frequencies=Frequencies(), use_lens=True)
    assert found.query.dtype == torch.float32
