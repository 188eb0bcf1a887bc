"""Files as they come from others: paths of another machine, Git LFS pointers."""

import json

import pytest

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.datasets.synthetic.mesh import read_mesh
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import is_absolute, rerooted
from kaleidoscene.images.files import read_image
from kaleidoscene.images.videos import video_timing
from tests import own_captures

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    "prefix", ["/home/someone/data/walk/", "C:\\Users\\Someone\\walk\\", "\\\\server\\share\\walk\\"]
)
def test_absolute_paths_of_another_machine_are_found_by_their_ends(tmp_path, prefix):
    truth = own_captures.nerfstudio(tmp_path / "capture", 4)
    file = tmp_path / "capture" / "transforms.json"
    document = json.loads(file.read_text())
    names = [frame["file_path"] for frame in document["frames"]]
    separator = "\\" if "\\" in prefix else "/"
    for frame, name in zip(document["frames"], names, strict=True):
        frame["file_path"] = prefix + name.removeprefix("./").replace("/", separator)
    file.write_text(json.dumps(document))
    capture = read_capture(tmp_path / "capture")
    assert [str(path.relative_to(tmp_path / "capture")) for path in capture.image_paths] == [
        name.removeprefix("./") for name in names
    ]
    assert len(capture.cameras) == len(truth)
    assert "4 frames name files by absolute paths of another machine" in " ".join(capture.notes)
    document["frames"][2]["file_path"] = prefix + "gone.png"
    file.write_text(json.dumps(document))
    with pytest.raises(KaleidosceneError, match=r"frame 2 leads out of the capture folder|the image is missing"):
        read_capture(tmp_path / "capture")


def test_a_file_that_is_here_is_not_another_machines(tmp_path):
    own_captures.nerfstudio(tmp_path / "capture", 3)
    file = tmp_path / "capture" / "transforms.json"
    document = json.loads(file.read_text())
    for frame in document["frames"]:
        frame["file_path"] = str(tmp_path / "capture" / frame["file_path"])
    file.write_text(json.dumps(document))
    assert "another machine" not in " ".join(read_capture(tmp_path / "capture").notes)


def test_the_longest_end_counts_and_none_leads_out(tmp_path):
    for name in ("a/b/x.png", "b/x.png", "x.png", "y.jpg"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(b"")
    (tmp_path / "outside.png").write_bytes(b"")
    root = tmp_path / "root"
    assert rerooted(root, "/far/away/a/b/x.png") == "a/b/x.png"
    assert rerooted(root, "/far/away/b/x.png") == "b/x.png"
    assert rerooted(root, "/far/y") == "y", "as Blender names images"
    assert rerooted(root, "/far/../outside.png") is None and rerooted(root, "/far/z.png") is None
    assert is_absolute("/a") and is_absolute("D:\\a") and not is_absolute("a/b") and not is_absolute("./a")


def test_lfs_pointers_are_named_as_what_they_are(tmp_path):
    def pointer(name: str):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(POINTER)
        return tmp_path / name

    for read, file, kind in (
        (read_image, pointer("a.png"), "image"),
        (video_timing, pointer("a.mp4"), "video"),
        (read_mesh, pointer("a.glb"), "mesh"),
    ):
        with pytest.raises(
            KaleidosceneError, match=f"a Git LFS pointer, not the {kind} itself; fetch it with 'git lfs"
        ):
            read(file)
    weights = pointer("weights/model.safetensors")
    (weights.parent / "config.json").write_text(
        (own_captures.REPOSITORY / "src/kaleidoscene/weights/default/config.json").read_text()
    )
    with pytest.raises(KaleidosceneError, match="a Git LFS pointer, not the file of weights itself"):
        load(str(weights.parent))
