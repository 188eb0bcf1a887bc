"""Depth maps to a mesh: a sphere, whose every vertex, normal and volume is known."""

import numpy as np
import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.reconstruction.splats import facing, write_splats
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.reconstruction.tsdf import MeshConfig, mesh_of
from tests.reconstruction.test_fusion import RADIUS, around, views_of_a_sphere

CLOSED = MeshConfig(resolution=40, unseen="inside")
CELL = 2 * RADIUS / 40


def volume(mesh) -> float:
    a, b, c = mesh.vertices[mesh.faces].double().unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def test_the_mesh_of_a_sphere_is_the_sphere_and_closed():
    views = views_of_a_sphere(around(14))
    mesh = mesh_of(views.depths, views.cameras, config=CLOSED)
    radii = mesh.vertices.norm(dim=-1)
    assert float((radii - RADIUS).abs().mean()) < 0.12 * CELL and float((radii - RADIUS).abs().max()) < 0.7 * CELL
    assert float((mesh.normals * mesh.vertices / radii[:, None]).sum(-1).quantile(0.01)) > 0.9  # outwards
    # Counter-clockwise from outside: the volume comes out positive, and it is the ball's.
    assert volume(mesh) == pytest.approx(4 / 3 * torch.pi * RADIUS**3, rel=0.02)
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(dim=1)[0]
    _, counts = edges.unique(dim=0, return_counts=True)
    assert bool((counts == 2).all())


def test_order_of_views_and_place_of_the_world_change_nothing():
    views = views_of_a_sphere(around(6))
    mesh = mesh_of(views.depths, views.cameras, config=CLOSED)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    again = mesh_of(views.depths[order], views.cameras[order], config=CLOSED)
    assert mesh.faces.equal(again.faces) and torch.allclose(mesh.vertices, again.vertices, atol=1e-6)


def test_what_nobody_saw_is_left_open_or_filled():
    views = views_of_a_sphere(around(1))
    half = mesh_of(views.depths, views.cameras, config=MeshConfig(resolution=40))
    towards = views.cameras.centres[0] / views.cameras.centres[0].norm()
    assert float((half.vertices @ towards).min()) > -0.1 * RADIUS  # nothing behind what is seen
    assert float((half.vertices.norm(dim=-1) - RADIUS).abs().mean()) < 0.15 * CELL
    edges = torch.cat([half.faces[:, [0, 1]], half.faces[:, [1, 2]], half.faces[:, [2, 0]]]).sort(dim=1)[0]
    assert bool((edges.unique(dim=0, return_counts=True)[1] == 1).any())  # it ends somewhere
    filled = mesh_of(views.depths, views.cameras, config=CLOSED)
    assert volume(filled) > 1.2 * volume(half)


def test_pixels_that_are_not_known_carve_nothing():
    views = views_of_a_sphere(around(14))
    nothing = torch.zeros_like(views.depths, dtype=torch.bool)
    unknown = mesh_of(views.depths, views.cameras, empty=nothing, config=MeshConfig(resolution=40))
    assert float((unknown.vertices.norm(dim=-1) - RADIUS).abs().mean()) < 0.15 * CELL
    # A wrong depth that is said not to count has no influence; one that counts has.
    spoilt, good = views.depths.clone(), views.depths > 0
    spoilt[0] = torch.where(good[0], 0.7 * spoilt[0], 0.0)
    good[0] = False
    free = views.depths == 0
    mesh = mesh_of(spoilt, views.cameras, surface=good, empty=free, config=CLOSED)
    assert float((mesh.vertices.norm(dim=-1) - RADIUS).abs().mean()) < 0.12 * CELL
    bad = mesh_of(spoilt, views.cameras, empty=free, config=CLOSED)
    assert float((bad.vertices.norm(dim=-1) - RADIUS).abs().max()) > 2 * CELL


def test_small_parts_are_dropped():
    views = views_of_a_sphere(around(14))
    depths = views.depths.clone()
    depths[0, 4:9, 4:9] = views.cameras.centres[0].norm() + 0.05  # a speck in the air beside the ball
    free = torch.zeros_like(depths, dtype=torch.bool)
    kept = mesh_of(depths, views.cameras, empty=free, config=MeshConfig(resolution=40, least_part=0.0))
    clean = mesh_of(depths, views.cameras, empty=free, config=MeshConfig(resolution=40, least_part=0.2))
    assert float(kept.vertices.norm(dim=-1).max()) > 1.2 * RADIUS > float(clean.vertices.norm(dim=-1).max())
    assert int(clean.faces.max()) + 1 == len(clean.vertices)


def test_bad_input_is_refused():
    views = views_of_a_sphere(around(2))
    with pytest.raises(KaleidosceneError, match="No pixel"):
        mesh_of(torch.zeros_like(views.depths), views.cameras)
    for change, said in (({"resolution": 4}, "resolution"), ({"truncation": 0.5}, "truncation"),
                         ({"least_part": 2.0}, "least_part")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            MeshConfig(**change)


def test_splats_are_disks_along_the_surface_as_viewers_read_them(tmp_path):
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(7, 3, generator=generator), dim=-1)
    normals[3] = torch.tensor([0.0, 0.0, -1.0])
    w, x, y, z = facing(normals).double().unbind(-1)
    # The third column of the rotation is where the z axis, the thin one, goes.
    thin = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=-1)
    assert torch.allclose(thin, normals.double(), atol=1e-6)
    colours = torch.rand(7, 3, generator=generator)
    cloud = SurfacePoints(torch.randn(7, 3, generator=generator), normals, colours, torch.ones(7))
    write_splats(tmp_path / "splats.ply", cloud, radius=0.02, opacity=0.9)
    header, _, body = (tmp_path / "splats.ply").read_bytes().partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property")]
    assert b"element vertex 7" in header and b"binary_little_endian" in header
    data = dict(zip(names, np.frombuffer(body, "<f4").reshape(7, len(names)).T, strict=True))
    assert np.allclose(np.stack([data[n] for n in "xyz"], -1), cloud.positions.numpy())
    shown = 0.5 + 0.28209479177387814 * np.stack([data[f"f_dc_{n}"] for n in range(3)], -1)
    assert np.allclose(shown, colours.numpy(), atol=1e-6)
    assert np.allclose(1 / (1 + np.exp(-data["opacity"])), 0.9)
    assert np.allclose(np.exp(data["scale_0"]), 0.02) and np.allclose(np.exp(data["scale_2"]), 0.002)
    for bad in ({"radius": 0.0}, {"radius": 0.1, "opacity": 1.0}):
        with pytest.raises(KaleidosceneError, match="Splats"):
            write_splats(tmp_path / "bad.ply", cloud, **bad)
