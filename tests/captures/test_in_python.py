"""What captures and rendered views are to a Python user: indexing, iteration, what a notebook shows."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import kaleidoscene
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.camera_path import read_camera_path
from kaleidoscene.images.files import write_image
from kaleidoscene.rendering.rendered import RenderedViews
from tests.conftest import REPOSITORY, ring

BUS = REPOSITORY / "examples" / "captures" / "school_bus"


@pytest.fixture(scope="module")
def capture():
    return kaleidoscene.read_capture(BUS)


def names(capture) -> list[str]:
    return [path.name for path in capture.image_paths]


def test_numbers_slices_and_lists_choose_views(capture):
    every = names(capture)
    assert names(capture[3]) == names(capture.select(3)) == [every[3]]
    assert names(capture[-1]) == [every[-1]]
    assert names(capture[np.int64(2)]) == names(capture.select([np.int64(2)])) == [every[2]]
    assert names(capture[2:9:3]) == every[2:9:3]
    assert names(capture.select(np.array([4, 1]))) == names(capture[[4, 1]]) == [every[4], every[1]]
    assert [names(one)[0] for one in capture] == every and len(list(capture)) == len(capture)
    assert torch.equal(capture[5].origin(), capture.origin())  # a view keeps what is known of the whole
    for bad in (99, [0, 99], [], slice(5, 5)):
        with pytest.raises(KaleidosceneError):
            capture[bad]


def decoded(page: str) -> list[Image.Image]:
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_a_notebook_shows_the_pictures(capture):
    assert repr(capture) == "Capture('school_bus', nerfstudio, 30 views of 256x256, posed)"
    shown = decoded(capture[:2]._repr_html_())
    assert [picture.size for picture in shown] == [(96, 96), (96, 96)]
    assert len(decoded(capture._repr_html_())) == 24


def test_rendered_views_say_what_they_are_and_keep_their_path(capture, tmp_path):
    images = torch.rand(3, 3, 10, 14)
    views = RenderedViews(images, ring(3, (10, 14)), torch.rand(2, 3, 10, 14), capture[:2])
    assert len(views) == 3 and repr(views) == "RenderedViews(3 views of 10x14 from 2 of school_bus)"
    first = np.asarray(decoded(views._repr_html_())[0])
    write_image(tmp_path / "first.png", images[0])
    assert np.array_equal(first, np.asarray(Image.open(tmp_path / "first.png")))
    views.save(tmp_path / "out")
    assert torch.allclose(read_camera_path(tmp_path / "out" / "camera_path.json").world_from_cam.float(),
                          views.cameras.world_from_cam, atol=1e-6)  # fmt: skip


def test_a_name_with_markup_is_shown_as_it_is(capture):
    from dataclasses import replace

    assert "&lt;b&gt;" in replace(capture, name="<b>")[0]._repr_html_()
