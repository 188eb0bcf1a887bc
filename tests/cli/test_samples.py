"""Several answers to one request, and objects of nothing, from the command line."""

import json
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.families.dit3d.checkpoint import save_model
from kaleidoscene.families.rae3d.decoders import PointDecoder
from kaleidoscene.images.files import read_image
from tests.conftest import REPOSITORY
from tests.families.dit3d.tiny import tiny_dit3d, tiny_dit3d_settings, write_autoencoder
from tests.families.rae3d.tiny import SIZE

pytestmark = pytest.mark.slow

BUS = str(REPOSITORY / "examples" / "captures" / "school_bus")


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """A checkpoint that draws scenes, decoding two references and more."""
    folder = tmp_path_factory.mktemp("models")
    settings = tiny_dit3d_settings(write_autoencoder(folder / "autoencoder"), decode_from=2)
    save_model(folder / "dit", settings, dict(tiny_dit3d().named_parameters()))
    return str(folder / "dit")


def pictures(folder):
    return torch.stack([read_image(path)[0] for path in sorted((folder / "frames").iterdir())])


def height_of(picture):
    with Image.open(picture) as image:
        return image.height


def frames_of(video):
    with av.open(str(video)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_decoder_of_points_runs_for_depth_alone(drawing, tmp_path, monkeypatch):
    ran, inner = [], PointDecoder.forward

    def counted(self, *arguments):
        ran.append(self)
        return inner(self, *arguments)

    monkeypatch.setattr(PointDecoder, "forward", counted)
    render = ["render", BUS, "--references", "0,3", "--model", drawing, "--targets", "5-6"]
    generate = ["generate", "--model", drawing, "--samples", "1", "--frames", "2"]
    for number, verb in enumerate((render, generate)):
        out, deep = (str(tmp_path / f"{name}{number}") for name in ("views", "deep"))
        assert main([*verb, "--out", out]) == 0 and not ran
        assert main([*verb, "--out", deep, "--depth"]) == 0 and ran
        ran.clear()
        names = [str(path.relative_to(out)) for path in sorted(Path(out).rglob("frames/*.png"))]
        assert len(names) == 2
        for name in names:
            assert (Path(out) / name).read_bytes() == (Path(deep) / name).read_bytes()
    model, bus = load(drawing), read_capture(BUS)
    assert model.render(bus.select([0, 3]), cameras=bus.cameras[[5]], depth=False).depths is None and not ran
    assert model.render(bus.select([0, 3]), cameras=bus.cameras[[5]]).depths is not None and ran


def test_samples_of_one_image_differ_and_go_on(drawing, tmp_path, capsys):
    out = tmp_path / "out"
    render = ["render", BUS, "--references", "0", "--model", drawing, "--out", str(out), "--targets", "3-7"]
    assert main([*render, "--samples", "2", "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "dit3d: diffusion." in said and any(line.startswith("sample 2: PSNR against the 5") for line in said)
    note = json.loads(said[-1])
    assert (note["route"], note["samples"], len(note["psnr_samples"])) == ("diffusion", 2, 2)
    first, second = (pictures(out / f"sample-0{number}") for number in (1, 2))
    assert first.shape == (5, 3, *SIZE) and not torch.allclose(first, second, atol=0.02)
    assert json.loads((out / "sample-02" / "request.json").read_text())["route"] == "diffusion"
    # Each is what the same request gives with its seed.
    assert main([*render[:-3], str(tmp_path / "alone"), *render[-2:], "--seed", "1"]) == 0
    assert torch.equal(pictures(tmp_path / "alone"), second)
    # One more: the others stay as they are, and the sheet shows all of them below the references.
    before = (out / "sample-01" / "video.mp4").stat().st_mtime_ns
    height = height_of(out / "contact_sheet.png")
    capsys.readouterr()
    assert main([*render, "--samples", "3"]) == 0
    assert "5 views of 16x24" in capsys.readouterr().out
    assert (out / "sample-01" / "video.mp4").stat().st_mtime_ns == before
    assert height_of(out / "contact_sheet.png") - 4 == pytest.approx((height - 4) * 4 / 3)
    films = frames_of(out / "samples.mp4")
    assert len(films) == 5 and films[0].shape[1] / films[0].shape[0] == pytest.approx(24 / 16, abs=0.02)
    # Two columns, two rows: the first tile is the first sample, the last one is left white.
    h, w = films[0].shape[0] // 2, films[0].shape[1] // 2
    shown = torch.from_numpy(films[0][:h, :w]).float().mean((0, 1)) / 255
    torch.testing.assert_close(shown, first[0].mean((1, 2)), rtol=0, atol=0.05)
    assert films[0][h + 4 :, w + 4 :].min() > 240


def test_what_is_decoded_has_one_answer(drawing, tmp_path, capsys):
    render = ["render", BUS, "--references", "0,1", "--model", drawing, "--frames", "3"]
    assert main([*render, "--out", str(tmp_path / "one")]) == 0
    assert main([*render, "--out", str(tmp_path / "other"), "--seed", "5"]) == 0
    assert "dit3d: decode." in capsys.readouterr().out
    assert torch.equal(pictures(tmp_path / "one"), pictures(tmp_path / "other"))
    assert main([*render, "--out", str(tmp_path / "out"), "--samples", "2"]) == 1
    assert "dit3d decodes 2 references, and every answer would be the same" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*render, "--out", str(tmp_path / "out"), "--samples", "2", "--steps", "2"]) == 0
    assert not torch.equal(*(pictures(tmp_path / "out" / f"sample-0{number}") for number in (1, 2)))


def test_samples_are_written_where_there_is_nothing_else(drawing, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    render = ["render", BUS, "--references", "0", "--model", drawing, "--frames", "3", "--out", str(tmp_path / "out")]
    assert main([*render, "--samples", "2"]) == 1
    assert "the folder has more than samples (thesis.txt)" in capsys.readouterr().err
    assert main(["generate", "--model", drawing, "--out", str(tmp_path / "out")]) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_objects_of_nothing(drawing, tmp_path, capsys):
    out = tmp_path / "out"
    generate = ["generate", "--model", drawing, "--out", str(out), "--frames", "5", "--elevation", "30", "--depth"]
    assert main([*generate, "--samples", "2", "--json"]) == 0
    note = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (note["samples"], note["new"], note["route"]) == (2, 2, "diffusion")
    first, second = (pictures(out / f"sample-0{number}") for number in (1, 2))
    assert first.shape == (5, 3, *SIZE) and not torch.allclose(first, second, atol=0.02)
    capture = read_capture(out / "sample-01")
    centres = capture.cameras.centres
    torch.testing.assert_close(centres.norm(dim=-1), torch.full((5,), 1.85).to(centres))
    torch.testing.assert_close(centres[:, 2], torch.full((5,), 1.85 / 2).to(centres))
    assert capture.frames[2].depth is not None
    # What is there is kept, what is missing is made.
    assert main([*generate, "--samples", "3"]) == 0
    assert "3 objects (1 of them new), 5 views of 16x24 each; diffusion." in capsys.readouterr().out
    assert torch.equal(pictures(out / "sample-02"), second)
    # Another request is refused, and replaces the samples where it is told to.
    assert main([*generate, "--samples", "1", "--steps", "2"]) == 1
    assert "not empty; give --overwrite" in capsys.readouterr().err
    assert main([*generate, "--samples", "1", "--steps", "2", "--overwrite"]) == 0
    assert not torch.equal(pictures(out / "sample-01"), first)


def test_who_cannot_generate_says_so(tmp_path, capsys):
    assert main(["generate", "--model", "default", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "Generating needs a method that draws scenes of nothing, which kaleido does not (dit3d does)" in said
    assert not (tmp_path / "out").exists()
