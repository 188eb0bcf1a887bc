"""A mesh in the colours of images: on the picture it is cut onto, in its file, and from a camera."""

from pathlib import Path

import numpy as np
import torch
import trimesh

from kaleidoscene.reconstruction.drawing import draw_mesh
from kaleidoscene.reconstruction.meshing import simplified
from kaleidoscene.reconstruction.texture import PaintViews, bake, coloured, write_textured_mesh
from kaleidoscene.reconstruction.triangle_mesh import TriangleMesh
from tests.reconstruction.solids import ball, colour_of, pictures_of_ball

UP = torch.tensor([0.0, 0.0, 1.0])


def ball_mesh(rings=20) -> TriangleMesh:
    vertices, faces = ball(0.5, rings)
    return TriangleMesh(
        vertices, faces, torch.nn.functional.normalize(vertices, dim=-1), torch.full_like(vertices, 0.5)
    )


def views(count=12, size=(70, 90), weight=1.0) -> PaintViews:
    images, cameras = pictures_of_ball(0.5, size, count)
    return PaintViews(images, (images < 0.99).any(1), cameras, weight)


def test_a_painted_ball_looks_like_its_pictures_from_elsewhere():
    textured = bake(ball_mesh(), [views()], 256)
    assert textured.painted > 0.98
    images, cameras = pictures_of_ball(0.5, (60, 80), 7)
    for image, number in zip(images, range(7), strict=True):
        drawn, _ = draw_mesh(textured, cameras[number])
        inside = (drawn < 0.99).any(0) & (image < 0.99).any(0)
        assert (drawn - image)[:, inside].abs().mean() < 0.02
        assert ((drawn < 0.99).any(0) != (image < 0.99).any(0)).float().mean() < 0.03
    _, lit = draw_mesh(textured, cameras[0])
    assert lit[0, 30, 40] > 0.8 and lit[0, lit[0] < 1].min() < 0.5  # bright where it faces the camera


def test_what_no_picture_shows_keeps_its_colour_and_what_lies_behind_is_not_painted():
    """One picture paints the side that faces it, through nothing: a ball behind another keeps its grey."""
    one = views(1)
    mesh = ball_mesh()
    alone = coloured(mesh, [one])
    towards = torch.nn.functional.normalize(one.cameras.centres[0], dim=-1)
    facing = mesh.normals @ towards
    assert bool((alone.colours[facing < 0] == 0.5).all())
    squarely = facing > 0.6
    assert (alone.colours - colour_of(mesh.normals))[squarely].abs().mean() < 0.02
    moved = mesh.vertices - 1.5 * towards
    both = TriangleMesh(
        torch.cat([mesh.vertices, moved]), torch.cat([mesh.faces, mesh.faces + len(moved)]),
        mesh.normals.repeat(2, 1), mesh.colours.repeat(2, 1),
    )  # fmt: skip
    painted = coloured(both, [one])
    torch.testing.assert_close(painted.colours[: len(moved)], alone.colours)
    assert bool((painted.colours[len(moved) :] == 0.5).all())


def test_pictures_count_by_their_weight():
    red, other = views(12, weight=50.0), views(12)
    red = PaintViews(
        torch.tensor([1.0, 0, 0]).view(3, 1, 1) * torch.ones_like(red.images), red.masks, red.cameras, 50.0
    )
    mesh = coloured(ball_mesh(), [red, other])
    assert (mesh.colours - torch.tensor([1.0, 0, 0])).abs().mean() < 0.03


def test_the_file_has_the_picture_where_it_belongs(tmp_path: Path):
    textured = bake(ball_mesh(), [views()], 256)
    write_textured_mesh(tmp_path / "mesh.glb", textured, UP)
    scene = trimesh.load(tmp_path / "mesh.glb")
    (read,) = scene.geometry.values()
    picture = np.asarray(read.visual.material.baseColorTexture)
    assert picture.shape == (256, 256, 3) and len(read.faces) == len(ball_mesh().faces)
    colours = read.visual.to_color().vertex_colors[:, :3] / 255
    at = torch.tensor(np.array(read.vertices), dtype=torch.float32)  # y is up: (x, y, z) was (x, -z, y)
    at = torch.stack([at[:, 0], -at[:, 2], at[:, 1]], dim=-1)
    expected = colour_of(torch.nn.functional.normalize(at, dim=-1))
    assert (torch.tensor(colours) - expected).abs().mean() < 0.03


def test_fewer_faces_are_about_the_same_surface():
    mesh = ball_mesh(40)
    few = simplified(mesh, 600)
    assert 500 <= len(few) <= 600 and simplified(few, 1000) is few
    radii = few.vertices.norm(dim=-1)
    assert (radii - 0.5).abs().max() < 0.02
    assert (torch.nn.functional.normalize(few.vertices, dim=-1) * few.normals).sum(-1).mean() > 0.98
    assert (few.colours - 0.5).abs().max() < 1e-6
