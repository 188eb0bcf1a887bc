"""Ordinary photographs to captures: archives, films, HEIC and AVIF, one picture; what is refused."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.intake import sharpest, sharpness, take_in
from kaleidoscene.captures.posing import PoseConfig, estimate_poses
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.poses import trajectory_errors
from kaleidoscene.images.files import read_exif
from tests import own_captures

pytestmark = pytest.mark.slow
POSE = ["--pose.max-image-size", "500", "--pose.max-features", "1500"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs") / "room"
    own_captures.photographs(folder, 5)
    return folder


def archive(path, photos, extra=()):
    with zipfile.ZipFile(path, "w") as packed:
        for photo in sorted(photos.iterdir()):
            packed.write(photo, f"deep/folder/{photo.name}")
        packed.writestr("__MACOSX/._a.png", b"no picture")
        packed.writestr("notes.txt", b"hello")
        for name, content in extra:
            packed.writestr(name, content)
    return path


def test_an_archive_becomes_a_capture_that_renders(photos, tmp_path, capsys):
    source = archive(tmp_path / "holiday.zip", photos)
    out = tmp_path / "capture"
    assert main(["capture", str(source), "--out", str(out), *POSE, "--json"]) == 0
    said = capsys.readouterr().out
    note = json.loads(said.splitlines()[-1])
    assert note["images"] == note["posed"] == 5 and note["error"] == 0
    assert "5 files were unpacked from the archive." in said and f"kaleidoscene render {out}" in said
    for name in ("transforms.json", "sparse/0", "images", "check.json", "frusta.png", "frusta.html"):
        assert (out / name).exists()
    page = (out / "capture.html").read_text()
    assert "5 of 5 images have cameras." in page and "structure from motion" in page
    capture = read_capture(out)
    assert len(capture) == 5 and capture.is_posed
    render = ["render", str(out), "--num-references", "2", "--frames", "2", "--out", str(tmp_path / "views")]
    assert main(render) == 0


def test_the_principal_point_is_told_where_the_pictures_tell_it(tmp_path):
    """Pictures cut on two sides, as by somebody who cropped them: the axis is found, and cameras are turned less."""
    chosen = list(range(0, 24, 2))
    folder = tmp_path / "cropped"
    folder.mkdir()
    for view in chosen:
        picture = Image.open(own_captures.pictures(own_captures.ROOM)[view]).convert("RGB")
        w, h = picture.size
        picture.crop((40, 24, w, h)).save(folder / f"{view:02d}.png")
    truth, errors, found = own_captures.truth().world_from_cam[chosen], {}, {}
    for asked in (False, None):
        out = tmp_path / str(asked)
        out.mkdir()
        config = PoseConfig(max_image_size=500, max_features=1500, principal_point=asked)
        found[asked] = estimate_poses(read_capture(folder), out, config, on_stage=lambda _: None)
        posed = read_capture(out, format="colmap")
        places = [chosen.index(int(frame.image.stem)) for frame in posed.frames]
        errors[asked] = trajectory_errors(posed.exact_cameras.world_from_cam.double(), truth[places].double()).ate_r
    assert found[False].principal_point is None and found[None].registered >= 10
    assert found[None].principal_point == pytest.approx((-20, -12), abs=4)
    assert errors[None] < 0.7 * errors[False], errors
    assert found[None].reprojection_error < found[False].reprojection_error


def test_a_model_may_tell_the_cameras(photos, tmp_path, capsys):
    """In place of structure from motion, where that is asked for; where it finds none the way is named."""
    out = tmp_path / "out"
    assert main(["capture", str(photos), "--out", str(out), "--pose-model", "rng", "--json"]) == 0
    said = capsys.readouterr().out
    assert "The cameras of 5 images are told by rng" in said and "better: Look at the cameras before" in said
    capture = read_capture(out)
    told = load("rng").estimate_cameras(read_capture(photos)).upright()
    torch.testing.assert_close(capture.cameras.world_from_cam, told.cameras.world_from_cam, rtol=0, atol=1e-5)
    assert capture.centred == "object" and json.loads(said.splitlines()[-1])["posed"] == 5
    plain = tmp_path / "plain"
    plain.mkdir()
    for number in range(3):
        Image.fromarray(np.full((60, 80, 3), 50 * number, np.uint8)).save(plain / f"{number}.png")
    assert main(["capture", str(plain), "--out", str(tmp_path / "none")]) == 1
    assert "--pose-model rng has a model guess them" in capsys.readouterr().err
    assert main(["capture", str(photos), "--out", str(tmp_path / "none"), "--pose-model", "default"]) == 1
    assert "estimates cameras" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_model_that_tells_cameras_sees_what_masks_leave(photos, tmp_path):
    """Cameras are those of the masked pictures, not of the whole ones, and the masks are in the capture."""
    masks, out = tmp_path / "masks", tmp_path / "out"
    masks.mkdir()
    for path in sorted(photos.iterdir()):
        with Image.open(path) as image:
            w, h = image.size
        mask = np.zeros((h, w), np.uint8)
        mask[h // 4 : -h // 4, w // 3 : -w // 3] = 255
        Image.fromarray(mask).save(masks / f"{path.stem}.png")
    call = ["capture", str(photos), "--out", str(out), "--pose-model", "rng", "--masks", str(masks)]
    assert main(call) == 0
    capture, model = read_capture(out), load("rng")
    assert all(frame.mask is not None for frame in capture.frames)
    bare = read_capture(photos)
    whole = model.estimate_cameras(bare).upright().cameras.world_from_cam
    frames = [replace(frame, mask=masks / f"{frame.image.stem}.png") for frame in bare.frames]
    masked = replace(bare, frames=tuple(frames))
    told = model.estimate_cameras(masked, masked=True).upright().cameras.world_from_cam
    torch.testing.assert_close(capture.cameras.world_from_cam, told, rtol=0, atol=1e-5)
    assert (told - whole).abs().max() > 1e-3


def test_heic_and_avif_are_read_with_their_exif(photos, tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    (tmp_path / "phone").mkdir()
    first, second, third = sorted(photos.iterdir())[:3]
    exif = Image.Exif()
    exif[272] = "A telephone"
    with Image.open(first) as picture:
        picture.convert("RGB").save(tmp_path / "phone" / "1.HEIC", quality=95, exif=exif.tobytes())
    with Image.open(second) as picture:
        picture.convert("RGB").save(tmp_path / "phone" / "2.avif", quality=95)
    shutil.copyfile(third, tmp_path / "phone" / f"3{third.suffix}")
    capture, notes = take_in(tmp_path / "phone", tmp_path / "scratch")
    assert notes == ["2 HEIC or AVIF pictures were converted to JPEG, with their EXIF."]
    assert [frame.image.name for frame in capture.frames] == ["1.jpg", "2.jpg", f"3{third.suffix}"]
    assert read_exif(capture.frames[0].image)[272] == "A telephone"
    true, _ = take_in(photos, tmp_path / "other")
    for number in range(3):
        apart = capture.images(only=[number]) - true.images(only=[number])
        assert float(apart.abs().mean()) < 0.03
    # One picture alone.
    one, _ = take_in(tmp_path / "phone" / "2.avif", tmp_path / "one")
    assert len(one) == 1 and one.frames[0].image.name == "2.jpg"
    (tmp_path / "phone" / "4.heic").write_bytes(b"no picture")
    with pytest.raises(KaleidosceneError, match=r"4\.heic: not a readable picture"):
        take_in(tmp_path / "phone", tmp_path / "again")


def test_one_picture_gets_a_camera_that_looks_at_the_object(photos, tmp_path, capsys):
    picture = sorted(photos.iterdir())[0]
    out = tmp_path / "capture"
    assert main(["capture", str(picture), "--out", str(out), "--distance", "2", "--elevation", "30"]) == 0
    assert "One picture: its camera was put 2 object lengths away, 30 degrees up" in capsys.readouterr().out
    capture = read_capture(out)
    torch.testing.assert_close(
        capture.cameras.centres[0].double(), torch.tensor([0, -(3**0.5), 1.0]).double(), rtol=0, atol=1e-5
    )
    assert not capture.origin().any()


def test_the_sharpest_frames_of_a_film_are_taken(tmp_path):
    grain = np.random.default_rng(3).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    sharp = Image.fromarray(grain).resize((240, 180), Image.Resampling.NEAREST)
    levels = [sharpness(np.asarray(sharp.filter(ImageFilter.GaussianBlur(radius)))) for radius in (0, 1, 2, 4)]
    assert levels == sorted(levels, reverse=True) and levels[0] > 2 * levels[1]
    film = tmp_path / "film.mp4"
    in_focus = (2, 7, 8, 13)
    own_captures.film(film, [
        np.asarray(sharp if number in in_focus else sharp.filter(ImageFilter.GaussianBlur(3))) for number in range(16)
    ])  # fmt: skip
    chosen = sharpest(read_capture(film), 4)
    assert [frame.position for frame in chosen.frames] == [2, 7, 8, 13]
    assert "4 of 16 frames are taken" in chosen.notes[-1]
    assert len(sharpest(read_capture(film), 99)) == 16


def test_what_is_no_capture_is_refused_in_a_sentence(photos, tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "IMG_1.CR2").write_bytes(b"raw")
    (tmp_path / "torn.zip").write_bytes(b"PK no more")
    twice = archive(tmp_path / "twice.zip", photos, [(f"other/{sorted(photos.iterdir())[0].name}", b"x")])
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as packed:
        packed.writestr("notes.txt", b"hello")
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as packed:
        packed.writestr("a.mp4", b"x")
        packed.writestr("b.mov", b"x")
    with zipfile.ZipFile(tmp_path / "broken.zip", "w") as packed:
        packed.writestr("a.jpg", b"no picture")
    rotten = tmp_path / "rotten.zip"
    with zipfile.ZipFile(rotten, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.jpg", bytes(range(256)) * 40)
    content = bytearray(rotten.read_bytes())
    content[35:60] = b"\xff" * 25  # inside the compressed stream
    rotten.write_bytes(content)
    (tmp_path / "twins").mkdir()
    shutil.copyfile(sorted(photos.iterdir())[0], tmp_path / "twins" / "IMG_1.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "twins" / "IMG_1.avif")
    with zipfile.ZipFile(tmp_path / "climbing.zip", "w") as packed:
        packed.writestr("../../escaped.png", b"x")
    out = tmp_path / "out"
    for source, said in (
        (tmp_path / "raw", "IMG_1.CR2: camera raw is not read; export JPEG, PNG or TIFF"),
        (tmp_path / "torn.zip", "torn.zip: not a readable archive"),
        (twice, "two files of the archive are called"),
        (tmp_path / "empty.zip", "there are no pictures and no film in the archive"),
        (tmp_path / "films.zip", "there are 2 films and no pictures; give one of them"),
        (tmp_path / "broken.zip", f"{tmp_path / 'broken.zip'}/a.jpg: not a readable image"),
        (rotten, "rotten.zip: not a readable archive"),
        (tmp_path / "twins", "IMG_1.avif: there is another picture of that name"),
        (tmp_path / "climbing.zip", "there are no pictures and no film in the archive"),
        (tmp_path / "nothing", "nothing: no such file or folder"),
        (own_captures.ROOM, "capture, which has cameras already"),
    ):
        assert main(["capture", str(source), "--out", str(out)]) == 1, source
        assert said in capsys.readouterr().err
        assert not out.exists() and not list(tmp_path.glob(".out*"))
    assert not list(tmp_path.parent.glob("**/escaped.png"))
