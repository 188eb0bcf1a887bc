"""Objects cut out of photographs: an object in a coloured world, whose true masks are known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_frames
from kaleidoscene.captures.frame_files import read_mask
from kaleidoscene.captures.frames import Frame
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import Distortion, from_pixels, to_pixels
from kaleidoscene.geometry.rays import camera_rays, pixel_centres
from kaleidoscene.images.undistortion import pinhole_of, undistort_image
from kaleidoscene.reconstruction.cutting import CutOutConfig, cut_out
from kaleidoscene.reconstruction.grab_cut import refined
from kaleidoscene.workflows.cutting import _as_taken
from tests.own_captures import halved_bus

QUICK = CutOutConfig(size=96, balls=(0.8, 1.1), rounds=1, detail=128)
SHORT = ["--cut.size", "96", "--cut.balls", "0.8", "1.1", "--cut.rounds", "1", "--cut.detail", "128"]


def scenery(cameras):
    """A world far away: what is seen of it depends on the direction alone."""
    _, directions = camera_rays(cameras)
    x, y, z = directions.unbind(-1)
    waves = [(7 * x).sin() * (5 * y + 1).cos(), (6 * z + 2).sin() * (4 * x).cos(), (9 * y).sin() * (3 * z).cos()]
    return 0.45 + 0.2 * torch.stack(waves, dim=1) + torch.tensor([-0.25, 0.05, 0.2])[:, None, None]


def intersection_over_union(one, other):
    return (one & other).flatten(1).sum(1) / (one | other).flatten(1).sum(1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Nine views of the bus of the examples."""
    return read_capture(halved_bus(tmp_path_factory.mktemp("captures") / "school_bus")).select(range(0, 27, 3))


@pytest.fixture(scope="module")
def bus(plain):
    """The same in the scenery: images, cameras, true masks."""
    capture = plain
    images, cameras = capture.images(), capture.cameras
    truth = (1 - images).amax(1) > 0.02
    return torch.where(truth[:, None], images, scenery(cameras)), cameras, truth


def test_the_object_is_found_and_order_does_not_matter(bus):
    images, cameras, truth = bus
    found = cut_out(images, cameras, torch.zeros(3), QUICK)
    overlap = intersection_over_union(found.masks, truth)
    assert overlap.mean() > 0.93 and overlap.min() > 0.85, overlap
    assert found.fit.median() > 0.8 and found.ball in QUICK.balls
    backwards = list(range(len(images)))[::-1]
    turned = cut_out(images[backwards], cameras[torch.tensor(backwards)], torch.zeros(3), QUICK)
    assert intersection_over_union(turned.masks[backwards], found.masks).min() > 0.9
    # Views that the body is not looked for in are held against what the others say.
    few, again = (cut_out(images, cameras, torch.zeros(3), replace(QUICK, views=5)) for _ in range(2))
    assert intersection_over_union(few.masks, truth).min() > 0.8
    assert torch.equal(few.masks, again.masks), "colours are modelled from the same beginning"


def test_a_body_that_views_share_mends_a_view_that_colours_mislead(bus):
    """One view has half of its background in the colours of the object."""
    images, cameras, truth = bus
    spoilt = images.clone()
    patch = images[6].flatten(1)[:, truth[6].flatten()]
    places = (~truth[6]).clone()
    places[:, :64] = False
    chosen = torch.randint(patch.shape[1], (int(places.sum()),), generator=torch.Generator().manual_seed(0))
    spoilt[6][:, places] = patch[:, chosen]
    alone = cut_out(spoilt, cameras, torch.zeros(3), replace(QUICK, rounds=0))
    together = cut_out(spoilt, cameras, torch.zeros(3), replace(QUICK, rounds=2))
    before, after = (intersection_over_union(found.masks, truth)[6] for found in (alone, together))
    assert after > before + 0.1 and after > 0.8, (before, after)


def test_a_picture_alone_is_cut_out_by_its_colours(bus):
    images, cameras, truth = bus
    found = cut_out(images[2:3], cameras[2:3], torch.zeros(3), QUICK)
    assert found.fit.tolist() == [1.0] and intersection_over_union(found.masks, truth[2:3]) > 0.85


def test_what_no_views_share_is_no_object(bus):
    images, cameras, _ = bus
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(images.shape, generator=generator)
    with pytest.raises(KaleidosceneError, match="no object could be told from what is behind it"):
        cut_out(noise, cameras, torch.zeros(3), replace(QUICK, balls=(50.0,)))


def test_what_is_near_the_focus_is_of_the_object_whatever_its_colour(bus):
    images, cameras, truth = bus
    away = torch.stack([(pixels - 64).norm(dim=-1) for pixels in [pixel_centres((128, 128), images)] * len(images)])
    hole = (away < 4) & truth
    hidden = torch.where(hole[:, None], scenery(cameras), images)
    found = cut_out(hidden, cameras, torch.zeros(3), QUICK)
    assert hole.sum() > 300 and found.masks[hole].float().mean() > 0.99


def test_an_outline_is_drawn_again_where_colours_change():
    """A disc before stripes, found in a picture of a sixth of the size."""
    away = (pixel_centres((120, 90), torch.zeros(1)) - torch.tensor([40.0, 66.0])).norm(dim=-1)
    truth = away < 25
    stripes = torch.arange(90).remainder(14) < 7
    image = torch.where(truth[..., None], torch.tensor([200, 60, 40]), torch.tensor([20, 90, 160]))
    image = torch.where((~truth & stripes)[..., None], torch.tensor([60, 160, 90]), image).byte().numpy()
    small = torch.nn.functional.avg_pool2d(truth[None, None].float(), 6).round()
    coarse = torch.nn.functional.interpolate(small, (120, 90), mode="bilinear", align_corners=False)[0, 0]
    fine = refined(image, coarse, 6.0)
    before, after = ((one & truth).sum() / (one | truth).sum() for one in (coarse > 0.5, fine))
    assert before < 0.96 and after > 0.99, (before, after)


def test_a_lens_is_undone():
    for lens in (Distortion.opencv(-0.2, 0.05, 0.001, -0.002), Distortion("fisheye", (0.05, -0.01, 0.0, 0.0))):
        rays = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
        torch.testing.assert_close(lens.remove(lens.apply(rays)), rays, rtol=0, atol=1e-9)
        assert (lens.apply(rays) - rays).abs().max() > 0.01
    assert Distortion().remove(rays) is rays
    far = torch.tensor([[1.0, 0.0], [0.6, -0.8], [-3.7, 0.4], [4.0, 4.0]]).double()
    for lens, count in ((Distortion.opencv(0.6), 2), (Distortion("fisheye", (0.02,)), 4)):
        torch.testing.assert_close(lens.remove(lens.apply(far[:count])), far[:count], rtol=0, atol=1e-6)


def test_masks_lie_where_the_lens_has_put_the_object(tmp_path):
    """A disc in a corner of what the pinhole sees, which the lens has moved by several pixels."""
    lens, matrix = Distortion.opencv(-0.35, 0.05), torch.tensor([[90.0, 0, 64], [0, 90, 50], [0, 0, 1]]).double()
    size = 100, 128
    pinhole = pinhole_of(matrix, lens, size)
    centres = pixel_centres(size, matrix)
    middle = torch.tensor([106.0, 80.0]).double()
    mask = (centres - middle).norm(dim=-1) < 13
    truth = (to_pixels(lens.remove(from_pixels(centres, matrix)), pinhole) - middle).norm(dim=-1) < 13
    assert (mask & truth).sum() < 0.7 * mask.sum()
    picture = torch.where(truth[..., None], torch.tensor([200, 60, 40]), torch.tensor([20, 90, 160])).byte()
    Image.fromarray(picture.numpy()).save(tmp_path / "a.png")
    frame = Frame(tmp_path / "a.png", size, torch.eye(4).double(), matrix, lens)
    capture = Capture("a", "test", tmp_path, (frame,))
    whole = _as_taken(capture, frame, mask, 128)
    assert intersection_over_union(whole[None], truth[None]) > 0.97


@pytest.fixture
def taken(bus, plain, tmp_path):
    """The same as files, by a lens that bends: what a capture with cameras is."""
    images, cameras, _ = bus
    lens = Distortion.opencv(-0.4, 0.1)
    matrix = cameras.intrinsics[0].double()
    # Seen by the lens: each pixel's ray, sampled where the pinhole has it.
    bent = to_pixels(lens.remove(from_pixels(pixel_centres((128, 128), matrix), matrix)), matrix)
    grid = (bent / 64 - 1).float()[None]
    folder = tmp_path / "taken"
    (folder / "images").mkdir(parents=True)
    frames = []
    for number, frame in enumerate(plain.frames):
        seen = torch.nn.functional.grid_sample(
            images[number : number + 1], grid, padding_mode="border", align_corners=False
        )
        path = folder / "images" / f"{number:02d}.png"
        Image.fromarray((255 * seen[0]).round().byte().permute(1, 2, 0).numpy()).save(path)
        frames.append(replace(frame, image=path, intrinsics=matrix, distortion=lens, mask=None, depth=None))
    capture = replace(plain, frames=tuple(frames), root=folder)
    write_frames(folder / "transforms.json", capture)
    return folder


def test_a_capture_with_cameras_gets_masks_that_render(taken, plain, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["capture", str(taken), "--out", str(out), "--cut-out", *SHORT, "--json"]) == 0
    said = capsys.readouterr().out
    assert "The object was cut out of 9 images" in said and f"render {out} --masked" in said
    page = (out / "capture.html").read_text()
    assert "cut_out.png" in page and "was cut out of 9 images" in page
    with Image.open(out / "cut_out.png") as sheet:
        assert sheet.width > 9 * 60
    capture = read_capture(out)
    assert all(frame.distortion.kind == "opencv" for frame in capture.frames)
    white = plain.images()
    pinhole = capture.cameras.intrinsics[0].double()
    straight = torch.stack(
        [undistort_image(image, plain.cameras.intrinsics[0], Distortion(), pinhole) for image in white]
    )
    truth = (1 - straight).amax(1) > 0.02
    overlap = intersection_over_union(capture.masks()[:, 0] > 0.5, truth)
    assert overlap.mean() > 0.9, overlap
    # What is there already is kept.
    assert main(["capture", str(out), "--out", str(tmp_path / "again"), "--cut-out"]) == 0
    assert "have masks already, which are kept" in capsys.readouterr().out
    for name in ("00.png", "08.png"):
        assert (tmp_path / "again" / "masks" / name).read_bytes() == (out / "masks" / name).read_bytes()
    views = ["render", str(out), "--masked", "--references", "0-2", "--frames", "2", "--out", str(tmp_path / "views")]
    assert main(views) == 0 and "not white" not in capsys.readouterr().out


def test_masks_of_others_are_taken_by_name(taken, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(9):
        mask = np.zeros((128, 128), np.uint8)
        mask[20 : 60 + number, 30:70] = 255
        Image.fromarray(mask).save(masks / f"{number:02d}.png")
    command = ["capture", str(taken), "--out", str(tmp_path / "out"), "--masks", str(masks)]
    assert main(command) == 0
    assert "Masks of 9 images were taken from masks." in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert [frame["mask_path"] for frame in written["frames"]] == [f"masks/{n:02d}.png" for n in range(9)]
    with Image.open(tmp_path / "out" / "masks" / "03.png") as mask:
        assert np.asarray(mask).sum() == 255 * 43 * 40
    (masks / "03.jpg").write_bytes(b"")
    for spoil, said in (
        (lambda: None, "03.png has 2 masks of its name"),
        (lambda: [path.unlink() for path in masks.glob("03.*")], "03.png has no mask of its name"),
        (lambda: Image.new("L", (64, 128)).save(masks / "03.png"), "the mask is 128x64, the image 128x128"),
    ):
        spoil()
        assert main([*command, "--overwrite"]) == 1
        assert said in capsys.readouterr().err and math.isclose(len(list((tmp_path / "out").iterdir())), 8, abs_tol=3)
    assert main([*command, "--cut-out", "--overwrite"]) == 1
    assert "--cut-out and --masks were both given" in capsys.readouterr().err
    assert main(["capture", str(taken), "--out", str(tmp_path / "o"), "--cut.size", "99"]) == 1
    assert "--cut-out asks for" in capsys.readouterr().err


def test_masks_and_alpha_that_are_there_are_kept(taken, tmp_path, capsys):
    """One image with a mask, one with alpha, one with alpha that hides nothing: two are kept, the others cut out."""
    (taken / "masks").mkdir()
    Image.new("L", (128, 128), 255).save(taken / "masks" / "mine.png")
    document = json.loads((taken / "transforms.json").read_text())
    document["frames"][2]["mask_path"] = "masks/mine.png"
    (taken / "transforms.json").write_text(json.dumps(document))
    for number, low in ((4, 0), (6, 255)):
        with Image.open(taken / "images" / f"{number:02d}.png") as image:
            alpha = Image.new("L", (128, 128), low)
            alpha.paste(255, (30, 40, 90, 100))
            cut = image.convert("RGB")
        cut.putalpha(alpha)
        cut.save(taken / "images" / f"{number:02d}.png")
    assert main(["capture", str(taken), "--out", str(tmp_path / "out"), "--cut-out", *SHORT]) == 0
    assert "cut out of 7 images; their outlines fit one body to" in (said := capsys.readouterr().out)
    assert "Masks and alpha of 2 more were there, and are kept." in said
    masks = [read_mask(frame)[0] > 0.5 for frame in read_capture(tmp_path / "out").frames]
    assert masks[2].all() and int(masks[4].sum()) == 60 * 60 and 0.05 < float(masks[6].float().mean()) < 0.6


def test_masks_are_looked_at_before_work_and_never_replaced(taken, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (128, 128), 128).save(masks / "00.png")
    command = ["capture", str(taken), "--out", str(masks), "--masks", str(masks), "--overwrite"]
    assert main(command) == 1 and [path.name for path in masks.iterdir()] == ["00.png"]
    assert main(["capture", str(taken / "images"), "--out", str(tmp_path / "out"), "--masks", str(masks)]) == 1
    said = capsys.readouterr()
    assert "01.png has no mask of its name" in said.err and "matching" not in said.out
    assert main(["capture", str(taken), "--out", str(tmp_path / "out"), "--cut-out", "--cut.balls", "1e-9"]) == 1
    assert "no object could be told" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_places_are_not_cut_out(taken, tmp_path, capsys):
    """The same cameras, each turned about."""
    document = json.loads((taken / "transforms.json").read_text())
    document["scene_centred"] = "scene"
    for frame in document["frames"]:
        pose = np.array(frame["transform_matrix"])
        pose[:3, [0, 2]] *= -1
        frame["transform_matrix"] = pose.tolist()
    (taken / "transforms.json").write_text(json.dumps(document))
    assert main(["capture", str(taken), "--out", str(tmp_path / "out"), "--cut-out"]) == 1
    assert "objects are cut out where all look at one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
