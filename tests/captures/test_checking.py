"""Faults that are put into captures are found, and captures as they are raise no error."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.checking.matching import agreement, corners, match
from kaleidoscene.captures.checking.page import write_page
from kaleidoscene.captures.checking.pictures import write_frusta_picture
from kaleidoscene.captures.checking.run import check_capture
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.formats.registry import scan_capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.poses import invert, rotation_about
from kaleidoscene.geometry.rays import project
from tests import own_captures
from tests.captures.conventions import found_in_other_conventions
from tests.conftest import ring, seen_by_browser

pytestmark = pytest.mark.slow

FRAMES = 12


@pytest.fixture(scope="module", params=["room", pytest.param("fox", marks=pytest.mark.real_data)])
def place(request, tmp_path_factory):
    """Twelve pictures through a lens: of our own room, and photographs of a fox."""
    folder = tmp_path_factory.mktemp(request.param) / request.param
    if request.param == "room":
        own_captures.nerfstudio(folder, FRAMES)
        return folder
    source = request.getfixturevalue("shared_data") / "captures" / "fox_nerfstudio"
    (folder / "images").mkdir(parents=True)
    document = json.loads((source / "transforms.json").read_text())
    document["frames"] = sorted(document["frames"], key=lambda frame: frame["file_path"])[:FRAMES]
    for frame in document["frames"]:
        shutil.copyfile(source / frame["file_path"], folder / frame["file_path"])
    (folder / "transforms.json").write_text(json.dumps(document))
    return folder


def _matrices(document, change):
    for number, frame in enumerate(document["frames"]):
        matrix = change(torch.tensor(frame["transform_matrix"], dtype=torch.float64), number)
        frame["transform_matrix"] = matrix.tolist()


def _one_matrix(number, change):
    return lambda document, folder: _matrices(document, lambda m, n: change(m.clone()) if n == number else m)


def _all_matrices(change):
    return lambda document, folder: _matrices(document, lambda m, n: change(m))


def _put(values):
    return lambda document, folder: document.update(values)


def _times(**factors):
    """Numbers of the document as multiples of others in it: ``cx="w", 0.5`` makes cx half the width."""
    return lambda document: {key: factor * document[other] for key, (other, factor) in factors.items()}


def _put_times(**factors):
    return lambda document, folder: document.update(_times(**factors)(document))


def _frame_times(number, **factors):
    return lambda document, folder: document["frames"][number].update(_times(**factors)(document))


def _sides(document, factor=1.0):
    return tuple(int(factor * document[key]) for key in ("w", "h"))


def _unsorted_times(document, folder):
    for number, frame in enumerate(document["frames"]):
        frame["time"] = 0.1 * (number if number != 6 else 2)


def _small_mask(document, folder):
    Image.new("L", _sides(document, 0.1)).save(folder / "m.png")
    document["frames"][2]["mask_path"] = "m.png"


def _square_depth(document, folder):
    Image.fromarray(np.full((30, 30), 1000, np.uint16)).save(folder / "d.png")
    document["frames"][2]["depth_file_path"] = "d.png"


def _set(m, place, value):
    m[place] = value
    return m


AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
SIDEWAYS = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))


def image(folder, number):
    return sorted((folder / "images").iterdir())[number]


FAULTS = {
    "scaled rotation": (_one_matrix(3, lambda m: _set(m, (slice(3), slice(3)), 1.1 * m[:3, :3])), "pose-not-rigid"),
    "mirrored": (_one_matrix(3, lambda m: m @ SIDEWAYS), "pose-mirrored"),
    "transposed matrix": (_one_matrix(3, lambda m: m.mT), "pose-last-row"),
    "camera-from-world": (_all_matrices(invert), "convention-inverse-axes"),
    "camera-from-world in OpenCV axes": (_all_matrices(lambda m: invert(m @ AXES)), "convention-inverse"),
    "OpenCV axes": (_all_matrices(lambda m: m @ AXES), "convention-axes"),
    "position of one in millimetres": (_one_matrix(5, lambda m: _set(m, (slice(3), 3), 1000 * m[:3, 3])), "far-camera"),
    "one a little far": (_one_matrix(5, lambda m: _set(m, (slice(3), 3), 12 * m[:3, 3])), "far-camera"),
    "same camera twice": (
        lambda d, f: d["frames"][4].update(transform_matrix=d["frames"][2]["transform_matrix"]), "identical-cameras"
    ),
    "all positions lost": (_all_matrices(lambda m: _set(m.clone(), (slice(3), 3), 0.0)), "one-place"),
    "NaN": (_one_matrix(3, lambda m: _set(m, (0, 3), float("nan"))), "unreadable"),
    "focal in millimetres": (_put({"fl_x": 4.2, "fl_y": 4.2}), "focal-range"),
    "focal of another size": (_frame_times(3, fl_x=("fl_x", 4.0), fl_y=("fl_y", 4.0)), "focal-outlier"),
    "cx and cy exchanged": (_put_times(cx=("w", 0.894), cy=("h", 0.289)), "principal-off"),
    "principal point outside": (_put_times(cx=("w", 3.7)), "principal-outside"),
    "stretched": (_put_times(fl_y=("fl_x", 1.6)), "oblong-pixels"),
    "size of another image": (lambda d, f: d.update(w=2 * d["w"], h=2 * d["h"]), "size-mismatch"),
    "missing image": (lambda d, f: image(f, 7).unlink(), "missing-image"),
    "truncated image": (lambda d, f: image(f, 7).write_bytes(image(f, 7).read_bytes()[:9000]), "truncated-image"),
    "empty file": (lambda d, f: image(f, 7).write_bytes(b""), "empty-image"),
    "no image": (lambda d, f: image(f, 7).write_text("<html>not found</html>"), "unreadable-image"),
    "white image": (lambda d, f: Image.new("RGB", _sides(d), "white").save(image(f, 7)), "empty-picture"),
    "same name twice": (lambda d, f: d["frames"][8].update(file_path=d["frames"][1]["file_path"]), "duplicate-name"),
    "same bytes twice": (lambda d, f: shutil.copyfile(image(f, 1), image(f, 8)), "duplicate-image"),
    "times not sorted": (_unsorted_times, "times"),
    "split out of range": (
        lambda d, f: (f / "train_test_split_3.json").write_text('{"train_ids": [0, 1, 2], "test_ids": [12]}'), "split"
    ),
    "split of unknown names": (_put({"test_filenames": ["images/9999.jpg"]}), "split"),
    "distortion ignored": (_put({"camera_model": "PINHOLE"}), "distortion-ignored"),
    "impossible distortion": (_put({"k1": -3.0}), "distortion"),
    "mask of another size": (_small_mask, "mask"),
    "depth map of another shape": (_square_depth, "depth"),
    "no focal length": (lambda d, f: [d.pop(k, None) for k in ("fl_x", "fl_y", "camera_angle_x")], "no-focal"),
}  # fmt: skip


def kinds_of(folder):
    try:
        return {f.kind: f for f in check_capture(scan_capture(folder)) if f.severity != "note"}
    except KaleidosceneError as error:
        return {"unreadable": str(error)}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_seeded_fault_is_found(place, tmp_path, name):
    change, kind = FAULTS[name]
    folder = tmp_path / "place"
    shutil.copytree(place, folder)
    document = json.loads((folder / "transforms.json").read_text())
    change(document, folder)
    (folder / "transforms.json").write_text(json.dumps(document))
    assert kind in kinds_of(folder)


def test_the_capture_without_faults_raises_nothing(place):
    assert kinds_of(place) == {}


CLEAN = (
    "apple_co3d", "chair_blender", "elephant_eschernet", "fern_llff", "fox_nerfstudio", "lund_door_colmap_txt",
    "maryrose_llff", "mouse_colmap", "papercup_colmap", "redkitchen_7scenes", "scan24_dtu",
)  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_real_captures_raise_no_error_and_would_in_another_convention(shared_data, name):
    if "colmap" in name:
        pytest.importorskip("pycolmap")
    for convention, found in found_in_other_conventions(scan_capture(shared_data / "captures" / name)):
        assert len(found) == 1 and found[0].startswith("convention-"), convention
        # Each fault undoes itself, but for camera-from-world in the other axes, whose undoing is the plain inverse
        # of a world that is turned.
        if convention != "inverse-axes":
            assert found == [f"convention-{convention}"]


def test_matches_lie_where_both_pictures_show_the_same_point():
    """Two crops of one picture: every match must be the shift between them."""
    picture = torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(picture[None], (240, 320), mode="bicubic")[0].clamp(0, 1)
    first, second = match(corners(picture[:, :200, :260]), corners(picture[:, 17:, 23:]))
    assert len(first) > 60
    shift = first - second
    assert (shift == torch.tensor([23.0, 17.0])).all(-1).float().mean() > 0.95


def test_agreement_of_true_matches_and_none_behind_the_cameras():
    cameras = ring(2, (48, 64), seed=3).to(torch.float64)
    points = 0.3 * torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pixels, _ = project(cameras, points.expand(2, -1, -1))
    assert agreement(cameras, pixels[0], pixels[1], 0.01).all()
    off = pixels[1] + torch.tensor([0.0, 3.0])
    assert agreement(cameras, pixels[0], off, 0.5).float().mean() < 0.4
    backwards = replace(cameras, world_from_cam=cameras.world_from_cam @ AXES)
    # A camera that looks the other way sees the same lines, mirrored, but nothing in front of it.
    flipped = [torch.stack([64 - p[:, 0], p[:, 1]], -1) for p in pixels]
    assert not agreement(backwards, flipped[0], flipped[1], 0.01).any()


def test_a_camera_that_only_turned_agrees_with_itself_alone():
    cameras = ring(2, (48, 64), seed=3).to(torch.float64)
    poses = cameras.world_from_cam.clone()
    poses[1, :3, :3] = poses[0, :3, :3] @ rotation_about("y", torch.tensor(0.2, dtype=torch.float64))
    poses[1, :3, 3] = poses[0, :3, 3]
    turned = replace(cameras, world_from_cam=poses)
    points = 0.2 * torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pixels, _ = project(turned, points.expand(2, -1, -1))
    assert agreement(turned, pixels[0], pixels[1], 0.01).all()
    assert not agreement(turned, pixels[0], pixels[1] + 2.0, 1.0).any()


def test_one_frame_in_another_convention_is_named(place, tmp_path):
    folder = tmp_path / "place"
    shutil.copytree(place, folder)
    document = json.loads((folder / "transforms.json").read_text())
    pose = torch.tensor(document["frames"][5]["transform_matrix"]).double()
    document["frames"][5]["transform_matrix"] = invert(pose).tolist()
    (folder / "transforms.json").write_text(json.dumps(document))
    assert {f.frame for f in check_capture(scan_capture(folder)) if f.kind == "pose-disagrees"} == {5}


def test_the_picture_and_the_page_show_every_camera(place, tmp_path):
    capture = scan_capture(place)
    write_frusta_picture(tmp_path / "frusta.png", capture)
    with Image.open(tmp_path / "frusta.png") as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB").crop((0, 0, 760, 760))))
    blue = (pixels == torch.tensor([0, 90, 181])).all(-1)
    assert (blue.sum() > 12 * 40 and blue.any(0).float().mean() > 0.3) or blue.any(1).float().mean() > 0.3
    write_page(tmp_path / "page.html", capture, [], numbers=list(range(FRAMES)), total=FRAMES)
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64") == FRAMES
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert len(data["frames"]) == FRAMES and "http" not in page.replace("http://www.w3.org", "")
    torch.testing.assert_close(torch.tensor([f["at"] for f in data["frames"]]), capture.cameras.centres)


def test_the_page_works_in_a_browser(place, tmp_path):
    """In a real one: the page is drawn, and a click on a camera shows its picture."""
    capture = scan_capture(place)
    finding = Finding("error", "test", 2, "a </script> <b>fault</b>", "none", "none")
    write_page(tmp_path / "page.html", capture, [finding], numbers=list(range(FRAMES)), total=FRAMES)
    click = """<script>
      setTimeout(() => {
        const [x, y] = project(frames[7].at), box = canvas.getBoundingClientRect();
        const ratio = window.devicePixelRatio || 1;
        const at = { clientX: box.left + x / ratio, clientY: box.top + y / ratio, pointerId: 1 };
        canvas.setPointerCapture = () => {};
        for (const kind of ["pointerdown", "pointerup"]) canvas.dispatchEvent(new PointerEvent(kind, at));
        const seen = pen.getImageData(0, 0, canvas.width, canvas.height).data;
        let blue = 0;
        for (let i = 0; i < seen.length; i += 4) blue += seen[i + 2] - seen[i] > 60;
        document.body.dataset.blue = blue;
      }, 50);
    </script>"""
    (tmp_path / "page.html").write_text((tmp_path / "page.html").read_text() + click)
    out = seen_by_browser(tmp_path / "page.html")
    assert f'<h1 id="name">{place.name}</h1>' in out and "nerfstudio, 12 frames with cameras of 12" in out
    assert f'<div id="frame">7: {capture.frames[7].name}</div>' in out
    assert re.search(r'id="picture" alt="" src="data:image/jpeg', out)
    assert "&lt;b&gt;fault&lt;/b&gt;" in out  # text stays text
    assert int(re.search(r'data-blue="(\d+)"', out)[1]) > 300
