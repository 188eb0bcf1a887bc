import av
import pytest
import torch
from PIL import Image

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry.rays import project
from kaleidoscene.images.fitting import describe_fit, fit_views
from kaleidoscene.memory import check_memory
from kaleidoscene.rendering.outputs import SheetRow, write_contact_sheet, write_video
from tests.conftest import ring


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with whole_folder(tmp_path / "out", overwrite=False) as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a.txt").exists()
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "b.txt").write_text("b")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "a.txt"]
    with pytest.raises(KaleidosceneError, match="not empty"), whole_folder(tmp_path / "out", overwrite=False):
        pass
    with pytest.raises(KaleidosceneError, match="is a file"), whole_folder(tmp_path / "out" / "a.txt", overwrite=True):
        pass


def test_video_has_its_frames_at_a_size_players_like(tmp_path):
    paths = []
    for n in range(4):
        paths.append(tmp_path / f"{n}.png")
        Image.new("RGB", (21, 15), (60 * n, 10, 200)).save(paths[-1])
    write_video(tmp_path / "v.mp4", paths, fps=6.0)
    with av.open(str(tmp_path / "v.mp4")) as container:
        frames = list(container.decode(video=0))
        assert float(container.streams.video[0].average_rate) == 6
    assert len(frames) == 4 and frames[0].height >= 256 and frames[0].width % 2 == 0
    colour = frames[2].to_ndarray(format="rgb24").mean((0, 1))
    assert abs(colour[0] - 120) < 8 and abs(colour[2] - 200) < 8


@pytest.mark.parametrize("fps", [0.5, 12.5, 29.97])
def test_a_video_may_have_a_rate_that_is_no_whole_number(tmp_path, fps):
    Image.new("RGB", (21, 15), (60, 10, 200)).save(tmp_path / "a.png")
    write_video(tmp_path / "v.mp4", [tmp_path / "a.png"] * 3, fps=fps)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-6)


def test_contact_sheet_breaks_long_rows(tmp_path):
    images = list(torch.rand(5, 3, 6, 10))
    write_contact_sheet(tmp_path / "s.png", [SheetRow("a", images[:2]), SheetRow("b", images)], per_line=3, tile=12)
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (92 + 3 * (20 + 4), 3 * 16 + 4)


@pytest.mark.parametrize("size", [(12, 16), (9, 9), (12, 20), (30, 20)])
def test_fitted_views_show_what_their_cameras_say(size):
    """A bright point in the image stays where the fitted camera projects it."""
    cameras = ring(3, (48, 64), seed=2)
    points = torch.full((3, 1, 3), 0.02)
    pixels, _ = project(cameras, points)
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    blob = torch.exp(-((x - pixels[:, :, 0, None]) ** 2 + (y - pixels[:, :, 1, None]) ** 2) / 18)
    dark = 1 - blob[:, None].expand(-1, 3, -1, -1)
    fitted, at = fit_views(dark, cameras, size, 1.2)
    assert fitted.shape[-2:] == size and at.image_size == size
    torch.testing.assert_close(at.intrinsics[:, 1, 1] / size[0], torch.full((3,), 1.2), rtol=0.05, atol=0)
    expected, _ = project(at, points)
    mass = 1 - fitted[:, 0]
    gy, gx = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    for view in range(3):
        share = mass[view].clamp_min(0) / mass[view].clamp_min(0).sum()
        centre = torch.stack([(share * gx).sum(), (share * gy).sum()])
        torch.testing.assert_close(centre, expected[view, 0], rtol=0, atol=0.5)


def test_memory_check_says_what_fits():
    check_memory(lambda n: 100 * n, 5, available=1000)
    with pytest.raises(KaleidosceneError, match="--chunk 9 would fit"):
        check_memory(lambda n: 100 * n, 50, available=1000)
    with pytest.raises(KaleidosceneError, match="not even one"):
        check_memory(lambda n: 5000 + n, 3, available=1000)


def test_what_is_cropped_and_what_stays_white_is_said():
    cameras = ring(2, (48, 64))
    fitted, _ = fit_views(torch.zeros(2, 3, 48, 64), cameras, (10, 10), 0.5)
    assert fitted[:, :, 0, 0].min() == 1 and fitted[:, :, 5, 5].max() == 0
    share = 1 - 48 * 64 / (2 * float(cameras.intrinsics[0, 0, 0])) ** 2
    (line,) = describe_fit(cameras, (10, 10), 0.5)
    assert f"{100 * share:.0f} % of its view is white" in line
    (line,) = describe_fit(cameras, (10, 10), 2.0)
    side = float(cameras.intrinsics[0, 0, 0]) / 2
    assert line.startswith("Cropped") and f"{100 * side**2 / (48 * 64):.0f} % of each 48x64 image" in line
    same = float(cameras.intrinsics[0, 1, 1]) / 48
    assert describe_fit(cameras, (12, 16), same) == []


def test_the_crop_follows_the_principal_point():
    """Off-centre lenses give centred views: the model knows centred ones only."""
    cameras = ring(2, (48, 64))
    cameras.intrinsics[:, 0, 2] += 6
    cameras.intrinsics[:, 1, 2] -= 3
    _, at = fit_views(torch.rand(2, 3, 48, 64), cameras, (12, 12), 2.0)
    torch.testing.assert_close(at.intrinsics[:, :2, 2], torch.full((2, 2), 6.0), rtol=0, atol=0.3)
