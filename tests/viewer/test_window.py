"""The window in a real browser: looking, keyframes, rendering, several pages, pages that vanish, an exported page."""

import functools
import io
import json
import math
import shutil
import socket
import time
import zipfile
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
import viser
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from viser._messages import ShareUrlRequest

from kaleidoscene.api import load
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.images.files import read_image
from kaleidoscene.viewer.client import Page
from kaleidoscene.viewer.path import Keyframe
from kaleidoscene.viewer.things import scale_of
from kaleidoscene.viewer.window import Subject, Window, opened
from tests.conftest import REPOSITORY

BUS = REPOSITORY / "examples" / "captures" / "school_bus"
PATIENCE = 60_000
# The server's and the browser's threads close their sockets when they come to it.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here")
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


loaded = functools.cache(load)


@contextmanager
def shown(out, capture: Capture | None = None, model: str | None = "default", host: str = "127.0.0.1", **more):
    """A window on the school bus, or on another capture; at a port of its own, since pages look for lost servers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with opened(host, port) as window:
        values = dict(references=(0, 2), out=out, name=model or "none", load=None if model is None else loaded)
        window.show(Subject(capture=capture or read_capture(BUS), **{**values, **more}))
        yield window


def new_page(browser, window: Window, wait: bool = True, at: str | None = None):
    """A page, by default one that has been flown to the first reference and shows a view of it."""
    page = browser.new_page(viewport={"width": 700, "height": 560}, accept_downloads=True)
    known = set(window.pages)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(at or window.address)
    if wait:
        expect(page.get_by_text("ms a view")).to_be_visible(timeout=PATIENCE)
        first = window.capture.cameras.world_from_cam[window.references[0]].double()
        until(lambda: set(window.pages) - known)
        (new,) = set(window.pages) - known
        # What a page sent before it was flown may arrive after it: where it looks must stay what it is.
        until(lambda: torch.allclose(window.pages[new].pose, first, atol=1e-3), holds=1)
    return page


def press(page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()
    pause(page)


def enter(page, label: str, text: str) -> None:
    enter_into(page, page.get_by_label(label), text)


def enter_into(page, box, text: str) -> None:
    box.fill(text)
    pause(page)
    page.keyboard.press("Tab")
    pause(page)


def pause(page) -> None:
    """No quicker than a hand: viser's panel sends one message in 50 ms, and of those in between the last alone.

    The page's own clock is asked, which a busy machine delays as it delays viser's.
    """
    page.evaluate("() => new Promise(done => setTimeout(done, 100))")


def drag(page, by: int) -> None:
    page.mouse.move(250, 450)
    page.mouse.down()
    page.mouse.move(250 + by, 470, steps=4)
    page.mouse.up()


def until(what, seconds: float = PATIENCE / 1000, holds: float = 0) -> None:
    """Wait for something to be true, and to have been so for a while."""
    deadline = time.monotonic() + seconds
    since = None
    while since is None or time.monotonic() - since < holds:
        assert time.monotonic() < deadline
        true = what()
        since = (since or time.monotonic()) if true else None
        if not true or holds:
            time.sleep(0.05)


def test_keyframes_become_a_film_as_the_command_line_renders_it(browser, tmp_path):
    with shown(tmp_path / "out") as window:
        page = new_page(browser, window)
        (client,) = window.pages.values()
        first = client.pose
        capture = read_capture(BUS)
        torch.testing.assert_close(first.float(), capture.cameras.world_from_cam[0], rtol=0, atol=1e-3)
        press(page, "Add keyframe")
        expect(page.get_by_text("1 keyframes; a path needs two.")).to_be_visible(timeout=PATIENCE)
        drag(page, 120)
        until(lambda: not torch.allclose(client.pose, first, atol=1e-2))
        press(page, "Add keyframe")
        expect(page.get_by_text("2 keyframes, 48 frames.")).to_be_visible(timeout=PATIENCE)
        enter(page, "Seconds", "0.4")
        expect(page.get_by_text("2 keyframes, 5 frames.")).to_be_visible(timeout=PATIENCE)
        keys = window.path.editor.keyframes
        assert torch.equal(keys[0].world_from_cam, first.float())
        with page.expect_download(timeout=PATIENCE) as waited:
            press(page, "Render path")
        waited.value.save_as(tmp_path / "video.mp4")
        folder = tmp_path / "out" / "path-001"
        assert (folder / "video.mp4").read_bytes() == (tmp_path / "video.mp4").read_bytes()
        with page.expect_download(timeout=PATIENCE) as waited:
            press(page, "Download frames")
        waited.value.save_as(tmp_path / "path.zip")
        with zipfile.ZipFile(tmp_path / "path.zip") as archive:
            files = {str(path.relative_to(folder.parent)) for path in folder.rglob("*") if path.is_file()}
            assert set(archive.namelist()) == files and archive.testzip() is None
        with page.expect_download(timeout=PATIENCE) as waited:
            press(page, "Save path")
        waited.value.save_as(tmp_path / "path.json")
        page.reload()  # what was made stays
        expect(page.get_by_text("ms a view")).to_be_visible(timeout=PATIENCE)
        expect(page.get_by_label("Seconds")).to_have_value("0.4", timeout=PATIENCE)
        assert len(window.path.editor.keyframes) == 2
        films = [frame.image for frame in window.scene.film(window.path.editor.cameras())]
        assert not page.errors
        page.close()
    render = ["render", str(BUS), "--references", "0,2", "--camera-path", str(tmp_path / "path.json"), "--chunk", "1"]
    assert main([*render, "--out", str(tmp_path / "again")]) == 0
    names = [f"{number:04d}.png" for number in range(5)]
    for name, film in zip(names, films, strict=True):
        assert (folder / "frames" / name).read_bytes() == (tmp_path / "again" / "frames" / name).read_bytes()
        torch.testing.assert_close(read_image(folder / "frames" / name)[0], film, rtol=0, atol=0.51 / 255)
    poses = read_capture(folder).cameras.world_from_cam
    torch.testing.assert_close(poses[[0, -1]], torch.stack([key.world_from_cam for key in keys]), rtol=0, atol=1e-5)


def test_a_model_is_held_against_the_photographs(browser, tmp_path):
    """A slider from all photograph to all model, where the page looks through a camera."""
    with shown(tmp_path / "out", against="truth") as window:
        page = new_page(browser, window)
        capture, slider = window.capture, page.get_by_role("slider").first
        page.get_by_label("Show cameras").uncheck()
        (client,) = window.pages.values()
        client.fly(capture.cameras.world_from_cam[9], capture.origin())
        photograph = window.scene.model.prepare(capture.select([9]))[0]
        answer = window.scene.view(capture.cameras.world_from_cam[9]).image[None]

        canvas = page.locator("canvas").first.bounding_box()

        def nearer_to(image, other) -> bool:
            """Which of two images the middle of the page shows, whose height is theirs."""
            with Image.open(io.BytesIO(page.screenshot())) as picture:
                pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1) / 255
            side, middle = canvas["height"], canvas["x"] + canvas["width"] / 2
            pixels = pixels[:, :, int(middle - 0.2 * side) : int(middle + 0.2 * side)]
            shown = torch.nn.functional.interpolate(pixels[None], (128, 52), mode="area")
            one, two = (float((shown - some[..., 38:90]).abs().mean()) for some in (image, other))
            return one < 0.5 * two

        slider.press("Home")
        until(lambda: nearer_to(photograph, answer))
        slider.press("End")
        until(lambda: nearer_to(answer, photograph))
        assert not page.errors
        page.close()


def test_two_pages_look_for_themselves_and_one_may_vanish(browser, tmp_path):
    with shown(tmp_path / "out") as window:
        first, second = new_page(browser, window), new_page(browser, window)
        one, other = window.pages.values()
        before = other.pose
        drag(first, 150)
        until(lambda: not torch.allclose(one.pose, before, atol=1e-2))
        until(lambda: torch.allclose(other.pose, before, atol=1e-3), holds=0.5)
        press(second, "Take preset")
        press(second, "Play")
        time.sleep(0.5)
        second.close()  # in the middle of the film
        until(lambda: len(window.pages) == 1)
        page = first
        enter_into(page, page.get_by_role("textbox").first, "0,2,7")
        until(lambda: window.references == [0, 2, 7])
        enter_into(page, page.get_by_role("textbox").first, "0,99")
        expect(page.get_by_text("view 99 is out of range")).to_be_visible(timeout=PATIENCE)
        (client,) = window.pages.values()
        seen = client.pose
        drag(page, -90)  # views that follow say nothing over it
        until(lambda: not torch.allclose(client.pose, seen, atol=1e-2), holds=1.5)
        assert page.get_by_text("view 99 is out of range").is_visible() and window.references == [0, 2, 7]
        enter_into(page, page.get_by_role("textbox").first, "0,2,7")
        expect(page.get_by_text("ms a view")).to_be_visible(timeout=PATIENCE)
        assert window.references == [0, 2, 7] and not page.errors
        page.close()


def test_a_rendering_can_be_stopped_and_a_bad_path_is_named(browser, tmp_path):
    with shown(tmp_path / "out") as window:
        page = new_page(browser, window)
        press(page, "Render path")
        expect(page.get_by_text("A path needs at least 2 keyframes")).to_be_visible(timeout=PATIENCE)
        assert not (tmp_path / "out").exists()
        press(page, "Take preset")
        enter(page, "Seconds", "2")
        expect(page.get_by_text("24 frames.")).to_be_visible(timeout=PATIENCE)
        press(page, "Render path")
        expect(page.get_by_text("of 24 views").first).to_be_visible(timeout=PATIENCE)
        press(page, "Stop")
        expect(page.get_by_text("rendering the same path again goes on")).to_be_visible(timeout=PATIENCE)
        assert not (tmp_path / "out" / "path-001").exists()
        # Another path of another seed has a folder of its own; the first one goes on where it was.
        for seed, frames, folder in ((1, 6, "path-002"), (0, 24, "path-001")):
            enter(page, "Seed", str(seed))
            enter(page, "Seconds", str(frames / 12))
            expect(page.get_by_text(f"{frames} frames.", exact=True)).to_be_visible(timeout=PATIENCE)
            until(lambda seed=seed: window.scene.seed == seed)
            with page.expect_download(timeout=PATIENCE):
                press(page, "Render path")
            assert len(list((tmp_path / "out" / folder / "frames").iterdir())) == frames
        assert not list((tmp_path / "out").glob(".*"))
        bad = tmp_path / "bad.json"
        bad.write_text(json.dumps({"format": "recipe"}))
        page.locator("input[type=file]").set_input_files(bad)
        expect(page.get_by_text("the file: not a camera path")).to_be_visible(timeout=PATIENCE)
        page.close()


def test_files_that_are_shown_can_be_downloaded(browser, tmp_path):
    (tmp_path / "box.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with shown(tmp_path / "out", model=None) as window:
        assert window.show_files([tmp_path / "box.obj"]) == ["box.obj: a mesh"]
        page = new_page(browser, window, wait=False)
        with page.expect_download(timeout=PATIENCE) as waited:
            press(page, "Download box.obj")
        waited.value.save_as(tmp_path / "again.obj")
        assert (tmp_path / "again.obj").read_bytes() == (tmp_path / "box.obj").read_bytes() and not page.errors
        page.close()


def test_two_hundred_cameras_without_a_model(browser, tmp_path):
    bus = read_capture(BUS)
    many = bus.select([number % len(bus) for number in range(200)])
    with shown(tmp_path / "out", many, model=None) as window:
        page = new_page(browser, window, wait=False)
        expect(page.locator("canvas").first).to_be_visible(timeout=PATIENCE)
        until(lambda: len(window.pages) == 1)
        assert len(window._cameras) >= 200 and not page.errors
        page.close()


def test_who_moves_sees_drafts_and_who_stands_the_whole(browser, tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Of each place that is passed a smaller view, and where one stays the whole one behind it."""
    sizes, show = [], Page._show

    def watched(page, frame):
        sizes.append(tuple(frame.image.shape[-2:]))
        show(page, frame)

    monkeypatch.setattr(Page, "_show", watched)
    with shown(tmp_path) as window:
        page = new_page(browser, window)
        until(lambda: sizes[-1:] == [(128, 128)])
        (one,) = window.pages.values()
        before = len(sizes)
        for number in (3, 5, 7, 9):
            one.fly(window.capture.cameras.world_from_cam[number], window.capture.origin())
            time.sleep(0.1)
        until(lambda: len(sizes) > before and sizes[-1] == (128, 128))
        assert (64, 64) in sizes[before:] and sizes[before:].count((128, 128)) < 4
        page.close()


def test_what_a_run_rendered_stands_in_a_row(tmp_path):
    """A run's newest samples, and another capture beside them, in one page."""
    sample = tmp_path / "run" / "samples" / "step-00000020"
    for name in ("one", "two"):
        shutil.copytree(BUS, sample / name)
    shutil.copytree(BUS, tmp_path / "run" / "samples" / "step-00000010" / "old")
    pages = [tmp_path / "run.html", tmp_path / "more.html"]
    assert main(["view", str(tmp_path / "run"), "--export", str(pages[0])]) == 0
    assert main(["view", str(tmp_path / "run"), str(BUS), "--export", str(pages[1])]) == 0
    sizes = [page.stat().st_size for page in pages]
    with shown(tmp_path, None, model=None, beside=(read_capture(sample / "one"), read_capture(BUS))) as window:
        names = list(window.server.scene._handle_from_node_name)
        assert sum(name.startswith("/beside/2/") for name in names) == len(read_capture(BUS)) + 1
    assert 0 < sizes[0] < sizes[1]


def test_an_exported_page_needs_no_network(browser, tmp_path, capsys):
    render = ["render", str(BUS), "--references", "0,2", "--frames", "4", "--out", str(tmp_path / "film")]
    assert main(render) == 0
    assert main(["view", str(tmp_path / "film"), "--export", str(tmp_path / "page.html")]) == 0
    assert f"wrote {tmp_path / 'page.html'}" in capsys.readouterr().out
    context = browser.new_context(offline=True)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.frame_locator("iframe").locator("canvas").first).to_be_visible(timeout=PATIENCE)
    until(lambda: page.evaluate("document.querySelector('video').readyState") >= 2)
    assert not errors
    context.close()


def test_the_window_is_for_this_machine_alone(browser, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(viser.ViserServer, "request_share_url", lambda *_, **__: asked.append("share"))
    with shown(tmp_path / "out", model=None) as window:
        page = new_page(browser, window, wait=False)
        expect(page.locator("canvas").first).to_be_visible(timeout=PATIENCE)
        # Whoever asks for a public address, as a page can, gets none.
        for handler in window.server._websock_server._incoming_handlers[ShareUrlRequest]:
            handler(0, ShareUrlRequest())
        time.sleep(0.5)
        assert not asked
        page.close()


def test_other_machines_need_the_token_of_the_address(browser, tmp_path):
    """Without it nothing is served, of no path and to no socket; with it the page works, and its socket too."""
    with shown(tmp_path / "out", host="0.0.0.0") as window:
        port = window.gate.port
        assert "0.0.0.0" not in window.address and window.address.endswith(f":{port}/?token={window.gate.token}")
        bare = f"http://127.0.0.1:{port}"
        address = f"{bare}/?token={window.gate.token}"
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        for path, headers in (
            ("/", {}), ("/index.html", {}), ("/?token=wrong", {}), ("/", upgrade),
            ("/", {"Cookie": f"kaleidoscene-{port}=wrong"}), ("/", {"Cookie": "other=" + window.gate.token}),
        ):  # fmt: skip
            with pytest.raises(HTTPError) as refused:
                urlopen(Request(bare + path, headers=headers), timeout=20)
            assert refused.value.code == 403 and refused.value.read() == b"Open the whole address, with its token."
        others = f'prefs={{"a": 1}}; odd; kaleidoscene-{port}={window.gate.token}; last=1'
        with urlopen(Request(bare + "/", headers={"Cookie": others}), timeout=20) as served:
            assert served.status == 200 and b"<html" in served.read().lower()
        with socket.create_connection(("127.0.0.1", port)) as nonsense:
            nonsense.sendall(b"nonsense\r\n\r\n")
            assert nonsense.recv(100) == b""
        page = new_page(browser, window, at=address)
        assert page.url == bare + "/", "the token is not left in the address"
        assert not page.errors
        page.close()
        with pytest.raises(KaleidosceneError, match=rf"--host 0\.0\.0\.0 --port {port}: nothing can listen there"):
            Window("0.0.0.0", port)
    with pytest.raises(KaleidosceneError, match=r"--host a\.\.b .*nothing can listen there"):
        Window("a..b", port)


def pixel_of(page, window: Window, point) -> tuple[float, float]:
    """Where a point of the world is on a page that looks from its first client's pose."""
    (client,) = window.pages.values()
    box = page.locator("canvas").first.bounding_box()
    seen = torch.linalg.inv(client.pose) @ torch.cat([point.double(), torch.ones(1).double()])
    focal = box["height"] / 2 / math.tan(client.client.camera.fov / 2)
    return box["x"] + box["width"] / 2 + focal * float(seen[0] / seen[2]), box["y"] + box["height"] / 2 + focal * float(
        seen[1] / seen[2]
    )


def test_keyframes_are_dragged_and_the_path_follows(browser, tmp_path):
    """By the arrow of one of their axes; the other axes stay, and so does the direction."""
    bus = read_capture(BUS)
    with shown(tmp_path / "out") as window:
        page = new_page(browser, window)
        page.get_by_label("Show cameras").uncheck()
        (client,) = window.pages.values()
        press(page, "Add keyframe")
        expect(page.get_by_text("1 keyframes; a path needs two.")).to_be_visible(timeout=PATIENCE)
        # A second one in front of the page, which looks at it across its x axis.
        pose = bus.cameras.world_from_cam[0].clone()
        pose[:3, 3] *= 0.4
        window.path._edit(lambda: window.path.editor.add(Keyframe(pose)))
        window.path.chosen.value = "2"
        assert window.path._grip is None
        page.get_by_label("Drag keyframe").check()
        until(lambda: window.path._grip is not None)
        grip = window.path._grip
        along, scale = pose[:3, 0], 0.2 * scale_of(bus)
        until(lambda: len(window.path.editor.cameras()) == 48, holds=2)
        start = pixel_of(page, window, pose[:3, 3] + 0.8 * scale * along)
        end = pixel_of(page, window, pose[:3, 3] + 1.6 * scale * along)
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*end, steps=8)
        page.mouse.up()
        until(lambda: not torch.equal(window.path.editor.keyframes[1].world_from_cam, pose.float()), holds=1)
        assert grip is window.path._grip
        moved = window.path.editor.keyframes[1].world_from_cam
        shift = pose[:3, :3].T @ (moved[:3, 3] - pose[:3, 3])
        assert shift[0] > 0.3 * scale and shift[1:].abs().max() < 1e-3
        torch.testing.assert_close(moved[:3, :3], pose[:3, :3].float(), rtol=0, atol=1e-4)
        torch.testing.assert_close(window.path.editor.cameras().world_from_cam[-1], moved, rtol=0, atol=1e-4)
        assert client.pose[:3, 3].norm() > 0 and not page.errors
        page.close()


def test_model_lens_and_steps_are_chosen_in_the_window(browser, tmp_path):
    """A path whose keyframes have different lenses, of a model that shows any, is rendered with them."""
    with shown(tmp_path / "out", names=("default", "places", "dit3d")) as window:
        page = new_page(browser, window)
        assert page.get_by_label("Lens, degrees").is_disabled() and page.get_by_text("References").count() == 1
        enter(page, "Steps", "2")
        until(lambda: window._choice.steps == 2)
        assert window.scene.model.system.method_note["schedule"]["steps"] == 2
        # A page can send what no list offers: nothing else is loaded.
        window.chosen.model.value = "/some/where"
        expect(page.get_by_text("Unknown model '/some/where'")).to_be_visible(timeout=PATIENCE)
        assert window._choice.model == "default"
        window.chosen.model.value = "default"
        page.get_by_role("combobox").first.click()
        page.get_by_role("option", name="places").click()
        until(lambda: window._choice.model == "places")
        expect(page.get_by_label("Lens, degrees")).to_be_enabled(timeout=PATIENCE)
        press(page, "Add keyframe")
        expect(page.get_by_text("1 keyframes; a path needs two.")).to_be_visible(timeout=PATIENCE)
        enter(page, "Lens, degrees", "80")
        (client,) = window.pages.values()
        until(lambda: client.degrees == 80)
        press(page, "Add keyframe")
        expect(page.get_by_text("2 keyframes, 48 frames.")).to_be_visible(timeout=PATIENCE)
        enter(page, "Seconds", "0.3")
        expect(page.get_by_text("2 keyframes, 4 frames.")).to_be_visible(timeout=PATIENCE)
        with page.expect_download(timeout=PATIENCE):
            press(page, "Render path")
        rendered = read_capture(tmp_path / "out" / "path-001").cameras
        h = rendered.image_size[0]
        angles = [math.degrees(field_of_view(float(camera), h)) for camera in rendered.intrinsics[:, 1, 1]]
        assert angles[0] == pytest.approx(49.1, abs=0.1) and angles[-1] == pytest.approx(80, abs=0.1)
        assert angles == sorted(angles) and not page.errors
        page.close()


def test_a_scene_file_is_shown_without_its_photographs(browser, tmp_path, capsys):
    """What a model made is kept; the window looks around in it, and renders paths with depth."""
    rng = load("rng")
    made = rng.reconstruct(read_capture(BUS).select([0, 5]))
    made.save(tmp_path / "bus.safetensors")
    opened_again = rng.open_scene(tmp_path / "bus.safetensors")
    (tmp_path / "scratch").mkdir()
    capture = opened_again.photographs(tmp_path / "scratch")
    torch.testing.assert_close(capture.images(), made.images, rtol=0, atol=0.51 / 255)
    with shown(tmp_path / "out", capture, "rng", references=(0, 1), made=opened_again) as window:
        page = new_page(browser, window)
        assert page.get_by_text("References").count() == page.get_by_text("Model").count() == 0
        pose = capture.cameras.world_from_cam[0].float()
        expected = made.render(window.scene.camera(pose))
        torch.testing.assert_close(window.scene.view(pose).image, expected.images[0], rtol=0, atol=1e-5)
        press(page, "Take preset")
        enter(page, "Seconds", "0.4")
        expect(page.get_by_text("5 frames.", exact=True)).to_be_visible(timeout=PATIENCE)
        with page.expect_download(timeout=PATIENCE):
            press(page, "Render path")
        folder = read_capture(tmp_path / "out" / "path-001")
        assert len(folder) == 5 and folder.depths() is not None and not page.errors
        assert not list((tmp_path / "out").glob(".*"))
        page.close()
    assert main(["view", str(tmp_path / "bus.safetensors"), "--references", "0"]) == 1
    assert "takes no other references" in capsys.readouterr().err
