"""Shared fixtures: the data folder (one setting), tiny models and scenes."""

import json
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from jaxtyping import config as jaxtyping_config

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.families.checkpoints import WEIGHTS
from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig, ScaleFrom
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _same_numbers_on_every_machine():
    torch.set_num_threads(1)
    torch.manual_seed(0)


SHARED_DATA = Path(os.environ.get("KALEIDOSCENE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
"""Real meshes, captures and videos, which are no part of the repository."""


LONGEST = ("training/test_distributed", "viewer/test_window")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest come first, so that no process waits for them in the end.

    Tests on real captures are an extra: they run where these are, and are not among the tests elsewhere.
    """
    items.sort(key=lambda item: next((n for n, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST)))
    real = [item for item in items if "shared_data" in getattr(item, "fixturenames", ())]
    for item in real:
        item.add_marker("real_data")
    if SHARED_DATA.is_dir():
        return
    left_out = [item for item in items if item.get_closest_marker("real_data")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Shapes are checked in all tests but those marked slow, which call most things thousands of times.

    They take half as long again with checks, which ``KALEIDOSCENE_CHECK_ALL_SHAPES=1`` asks for.
    """
    unchecked = item.get_closest_marker("slow") is not None and not os.environ.get("KALEIDOSCENE_CHECK_ALL_SHAPES")
    jaxtyping_config.update("jaxtyping_disable", unchecked)
    try:
        return (yield)
    finally:
        jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data; tests that take it are left out where it is not."""
    return SHARED_DATA


def ring(views: int, image_size: tuple[int, int] = (16, 24), *, seed: int = 0, batch: tuple[int, ...] = ()) -> Cameras:
    """Cameras at random places on a shell around the origin."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(*batch, views, 3, generator=generator), dim=-1)
    distance = 1.5 + 0.7 * torch.rand(*batch, views, 1, generator=generator)
    poses = look_at(direction * distance, torch.zeros_like(direction), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras.from_field_of_view(poses, 0.857, image_size)


def tiny_config(**changes) -> KaleidoConfig:
    """A network of seconds: width 128 (2 heads), 3 blocks, 4 x 4 pixel blocks."""
    values = dict(width=128, depth=3, kv_heads=1, hidden_width=96, window=None, latent_channels=48, patch_size=1)
    return KaleidoConfig(**{**values, **changes})


CAUSAL = dict(reference_attention="causal", reference_time="zero")


def randomised(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Every parameter away from its zero initialisation, so that nothing is hidden by a gate of zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (0.5 if p.ndim < 2 else p.shape[-1] ** -0.5))
    return model


def tiny_renderer(
    *,
    guidance: float = 1.5,
    steps: int = 3,
    use_cache: bool | None = None,
    scale_from: ScaleFrom = "references",
    **changes,
) -> KaleidoRenderer:
    """A renderer of a tiny network with random weights for 16 x 24 images."""
    config = tiny_config(**changes)
    settings = KaleidoSettings(
        model=config, codec=CodecConfig(factor=4), image_size=(16, 24),
        scale_from=scale_from, sampling=SamplingConfig(schedule=Schedule(steps=steps), guidance=guidance),
    )  # fmt: skip
    model = randomised(Kaleido(config)).eval()
    assert isinstance(model, Kaleido)
    return KaleidoRenderer(model, settings, PixelCodec(4), use_cache=use_cache)


def check_shipped(name: str, *words: str, family: str, mebibytes: int = 32) -> None:
    """Weights of the package are small, readable by all, of their family, and their card says what it has to."""
    path = WEIGHTS / name / "model.safetensors"
    assert path.stat().st_size <= mebibytes * 2**20 and path.stat().st_mode & 0o044
    card = (WEIGHTS / name / "MODEL_CARD.md").read_text()
    for word in ("CC-BY 4.0", "Google Scanned Objects", "held-out", *words):
        assert word in card, word
    assert json.loads((WEIGHTS / name / "config.json").read_text())["family"] == family


def seen_by_browser(page: Path) -> str:
    """The document of a page after a real browser has loaded it and run its scripts; skips where there is none."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium here")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags += [f"--user-data-dir={page.parent / 'profile'}", "--window-size=1000,700", "--virtual-time-budget=2000"]
    return subprocess.run(
        [browser, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
