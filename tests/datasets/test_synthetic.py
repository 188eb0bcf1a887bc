"""The mesh renderer against ray casting, and procedural objects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import TexturedMesh, fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.prerender import SceneMaker, SyntheticScenes, shard_path, write_next_shards
from kaleidoscene.datasets.synthetic.procedural import random_object
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.viewpoints import FIELD_OF_VIEW, sample_viewpoints
from kaleidoscene.datasets.synthetic.writing import write_synthetic_shards
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.rays import camera_rays, project
from tests import own_captures

trimesh = pytest.importorskip("trimesh")


@pytest.fixture(scope="module")
def rasteriser():
    try:
        made = Rasteriser((30, 44))
    except KaleidosceneError as error:
        pytest.skip(str(error))
    yield made
    made.release()


def viewpoints(count, size=(30, 44), kind="eschernet"):
    return sample_viewpoints(kind, count, size, torch.Generator().manual_seed(3))


def test_depth_and_mask_agree_with_ray_casting(rasteriser):
    """The rasteriser and Embree rays are written independently; they must see the same surface."""
    pytest.importorskip("embreex")
    parts, cameras = random_object(11), viewpoints(3)
    depth = rasteriser.render(parts, cameras, Lighting(), depth=True).depth
    whole = trimesh.util.concatenate([trimesh.Trimesh(p.vertices, p.faces, process=False) for p in parts])
    origins, directions = camera_rays(cameras)
    for view in range(3):
        rays = directions[view].reshape(-1, 3).numpy()
        start = np.broadcast_to(origins[view].numpy(), rays.shape)
        points, which, _ = whole.ray.intersects_location(start, rays, multiple_hits=False)
        expected = np.zeros(len(rays), np.float32)
        expected[which] = (points - start[which]) @ cameras.directions[view].numpy()
        expected = expected.reshape(30, 44)
        both = (expected > 0) & (depth[view] > 0)
        assert (expected > 0).sum() > 50
        assert ((expected > 0) != (depth[view] > 0)).sum() <= 0.04 * (expected > 0).sum()  # edges
        assert np.median(np.abs(expected - depth[view])[both]) < 1e-4


def test_two_rasterisers_do_not_get_into_each_others_way(rasteriser):
    """Each draws into its own buffers, whichever was made last; one goes, the other stays."""
    parts, cameras, others = random_object(11), viewpoints(2), viewpoints(2, size=(20, 26))
    alone = rasteriser.render(parts, cameras, Lighting(), depth=True)
    other = Rasteriser((20, 26), supersampling=5)
    small = other.render(parts, others, Lighting())
    beside = rasteriser.render(parts, cameras, Lighting(), depth=True)
    assert np.array_equal(beside.rgba, alone.rgba) and np.array_equal(beside.depth, alone.depth)
    assert np.array_equal(other.render(parts, others, Lighting()).rgba, small.rgba)
    other.release()
    assert np.array_equal(rasteriser.render(parts, cameras, Lighting()).rgba, alone.rgba)


def test_a_small_bright_spot_is_where_projection_says(rasteriser):
    """Cameras are exact: a dot in the world lands on its pixel."""
    cameras = viewpoints(4)
    place = np.array([0.21, -0.13, 0.17], np.float32)
    box = trimesh.creation.icosphere(radius=0.03)
    vertices = np.asarray(box.vertices, np.float32)
    texture = np.full((2, 2, 3), 255, np.uint8)
    dot = TexturedMesh(
        vertices + place,
        vertices / 0.03,
        np.zeros((len(vertices), 2), np.float32),
        np.asarray(box.faces, np.int32),
        texture,
    )
    alpha = torch.from_numpy(rasteriser.render([dot], cameras, Lighting()).rgba[..., 3]).float()
    pixels, _ = project(cameras, torch.from_numpy(place).expand(4, 1, 3))
    y, x = torch.meshgrid(torch.arange(30) + 0.5, torch.arange(44) + 0.5, indexing="ij")
    for view in range(4):
        mass = alpha[view] / alpha[view].sum()
        centre = torch.stack([(mass * x).sum(), (mass * y).sum()])
        torch.testing.assert_close(centre, pixels[view, 0], rtol=0, atol=0.1)


def test_texture_rows_are_not_upside_down(rasteriser):
    """v = 1 is the top row of the texture."""
    quad = TexturedMesh(
        np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]], np.float32),
        np.tile(np.array([[0, -1, 0]], np.float32), (4, 1)),
        np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8),
    )
    from kaleidoscene.geometry.cameras import Cameras
    from kaleidoscene.geometry.poses import look_at

    pose = look_at(torch.tensor([[0.0, -2.0, 0.0]]), torch.zeros(1, 3), torch.tensor([0.0, 0.0, 1.0]))
    rgb = rasteriser.render([quad], Cameras.from_field_of_view(pose, FIELD_OF_VIEW, (30, 44)), Lighting()).rgba[0]
    upper, lower = rgb[10, 22], rgb[20, 22]
    assert upper[0] > 2 * upper[2] and lower[2] > 2 * lower[0]


def test_a_textured_object_comes_back_from_its_file(tmp_path):
    """What trimesh writes as GLB is read with its picture, its corners and its faces."""
    own_captures.object_file(tmp_path / "pot.glb")
    (part,) = read_mesh(tmp_path / "pot.glb")
    vertices, faces, picture = own_captures.object_parts()
    np.testing.assert_allclose(part.vertices, vertices, atol=1e-6)
    assert np.array_equal(part.faces, faces) and np.array_equal(part.texture, picture)
    points = np.concatenate([part.vertices for part in fit_unit_box([part])])
    low, high = points.min(0), points.max(0)
    assert (high - low).max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(low, -high, atol=1e-5)


def test_real_scan_reads_and_fits_the_unit_box(shared_data):
    parts = fit_unit_box(read_mesh(shared_data / "meshes" / "test" / "gso_Sonny_School_Bus.glb"))
    points = np.concatenate([part.vertices for part in parts])
    low, high = points.min(0), points.max(0)
    assert (high - low).max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(low, -high, atol=1e-5)
    assert parts[0].texture.shape[2] == 3


def test_bad_meshes_are_refused(tmp_path):
    with pytest.raises(KaleidosceneError, match="no such mesh"):
        read_mesh(tmp_path / "none.glb")
    trimesh.creation.box().export(tmp_path / "plain.glb")
    with pytest.raises(KaleidosceneError, match="no texture coordinates"):
        read_mesh(tmp_path / "plain.glb")
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    with pytest.raises(KaleidosceneError, match="no faces"):
        read_mesh(tmp_path / "points.obj")
    (tmp_path / "broken.glb").write_bytes(b"glTF not really")
    with pytest.raises(KaleidosceneError, match="not a readable mesh"):
        read_mesh(tmp_path / "broken.glb")
    triangle = "vt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    (tmp_path / "flat.obj").write_text("v 1 2 3\nv 1 2 3\nv 1 2 3\n" + triangle)
    with pytest.raises(KaleidosceneError, match=r"flat.obj: the vertices of the mesh are all in one place"):
        read_mesh(tmp_path / "flat.obj")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "t.jpg")
    (tmp_path / "t.jpg").write_bytes((tmp_path / "t.jpg").read_bytes()[:900])
    (tmp_path / "t.mtl").write_text("newmtl m\nmap_Kd t.jpg\n")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
    (tmp_path / "cut.obj").write_text(f"mtllib t.mtl\nusemtl m\n{corners}{triangle}")
    with pytest.raises(KaleidosceneError, match=r"cut.obj: not a readable mesh"):
        read_mesh(tmp_path / "cut.obj")


@pytest.mark.parametrize("seed", range(12))
def test_procedural_objects_are_sound_and_repeatable(seed):
    parts, again = random_object(seed), random_object(seed)
    points = np.concatenate([part.vertices for part in parts])
    assert np.isfinite(points).all()
    assert (points.max(0) - points.min(0)).max() == pytest.approx(1, abs=1e-4)
    for part, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part.vertices, other.vertices)
        np.testing.assert_array_equal(part.texture, other.texture)
        assert part.faces.max() < len(part.vertices)
        lengths = np.linalg.norm(part.normals, axis=1)
        assert (np.abs(lengths - 1) < 1e-3).mean() > 0.9  # poles of turned bodies have none


def test_eschernet_viewpoints_have_the_benchmarks_distribution():
    cameras = viewpoints(2000)
    distance = cameras.centres.norm(dim=-1)
    assert 1.5 <= distance.min() and distance.max() <= 2.2
    assert distance.mean().item() == pytest.approx(1.85, abs=0.02)
    assert cameras.centres.mean(0).abs().max() < 0.1
    assert cameras.intrinsics[0, 0, 0].item() == pytest.approx(280 / 256 * 30, rel=1e-6)
    wide = viewpoints(500, kind="wide").centres.norm(dim=-1)
    assert wide.min() < 1.45 and wide.max() > 2.6


def test_scenes_ahead_are_repeatable_and_resumable(rasteriser, tmp_path):
    config = SyntheticScenes(image_size=(12, 20), views=3, scenes=5, scenes_per_shard=2, seed=9)
    assert len(list(write_next_shards(config, tmp_path, [0, 1, 2]))) == 5
    assert not list(write_next_shards(config, tmp_path, [0, 1, 2]))  # nothing is made twice
    first = shard_path(tmp_path, 1).read_bytes()
    shard_path(tmp_path, 1).with_suffix(".index.json").unlink()
    assert list(write_next_shards(config, tmp_path, [0, 1, 2])) == [2, 3]
    assert shard_path(tmp_path, 1).read_bytes() == first
    scene = SceneMaker(config).make(4)
    assert scene.rgba.shape == (3, 12, 20, 4)
    assert 0.02 < (scene.rgba[..., 3] > 0).mean() < 0.98


def test_bad_meshes_are_left_out_up_to_a_share_and_named(rasteriser, tmp_path):
    folder = tmp_path / "meshes"
    folder.mkdir()
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0 1\n"
    faces = "f 1/1 2/2 3/3\nf 1/1 2/2 4/3\nf 1/1 3/2 4/3\nf 2/1 3/2 4/3\n"
    for name in ("a", "b", "c"):
        (folder / f"{name}.obj").write_text(corners + faces)
    (folder / "bad.glb").write_bytes(b"glTF not really")
    config = SyntheticScenes(
        image_size=(12, 20), views=2, scenes=12, scenes_per_shard=12, meshes=folder, mesh_share=1.0, damaged_share=0.3
    )
    assert len(list(write_next_shards(config, tmp_path / "out", [0]))) == 12
    said = (tmp_path / "out" / "damaged-meshes.txt").read_text().splitlines()
    assert len(said) == 1 and "bad.glb: not a readable mesh" in said[0]
    with pytest.raises(KaleidosceneError, match="bad.glb: not a readable mesh"):
        list(write_next_shards(replace(config, damaged_share=0.2), tmp_path / "strict", [0]))
    # Every process meets one alone, in a shard of its own: what counts is all of them together.
    (folder / "worse.glb").write_bytes(b"glTF neither")
    many = replace(config, scenes=24, scenes_per_shard=1, damaged_share=0.3, seed=3)  # one of five may be
    with pytest.raises(KaleidosceneError, match=r"damaged-meshes.txt: 2 damaged meshes, 1.5 are allowed"):
        for number in range(24):
            list(write_next_shards(many, tmp_path / "many", [number]))
    with pytest.raises(
        KaleidosceneError, match="2 damaged meshes, 1.5 are allowed"
    ):  # the same command does not get past it
        for number in range(24):
            list(write_next_shards(many, tmp_path / "many", [number]))
    noted = tmp_path / "out" / "damaged-meshes.txt"
    noted.write_text(noted.read_text() * 5)  # processes that met the same one at the same moment
    (folder / "worse.glb").unlink()
    shard_path(tmp_path / "out", 0).with_suffix(".index.json").unlink()
    assert len(list(write_next_shards(config, tmp_path / "out", [0]))) == 12
    for name in ("a", "b", "c"):
        (folder / f"{name}.obj").write_text("v 0 0 0\n")
    with pytest.raises(KaleidosceneError):  # none is left: no endless search
        list(write_next_shards(replace(config, damaged_share=1.0), tmp_path / "none", [0]))


def test_folders_without_meshes_are_refused(tmp_path):
    with pytest.raises(KaleidosceneError, match="no meshes here"):
        SceneMaker(SyntheticScenes(image_size=(12, 20), meshes=tmp_path))


def test_a_folder_of_other_shards_is_refused(rasteriser, tmp_path):
    config = SyntheticScenes(image_size=(12, 20), views=2, scenes=2, scenes_per_shard=2, seed=9)
    assert len(list(write_next_shards(config, tmp_path, [0]))) == 2
    other = SyntheticScenes(image_size=(12, 20), views=2, scenes=2, scenes_per_shard=2, seed=8)
    with pytest.raises(KaleidosceneError, match="begun with seed = 9, not 8"):
        list(write_next_shards(other, tmp_path, [0]))
    for workers in (1, 2):  # also where nothing is left to be done
        with pytest.raises(KaleidosceneError, match="begun with seed = 9, not 8"):
            write_synthetic_shards(other, tmp_path, workers=workers)
