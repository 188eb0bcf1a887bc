"""What the benchmarks share: timing and a dated result file beside each script."""

from __future__ import annotations

import datetime
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from kaleidoscene.api import Model
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.evaluation.scene_views import CaptureViews
from kaleidoscene.evaluation.unposed import TrueViews
from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.positions import ViewPositions


def median_seconds(function: Callable[[], object], *, repeats: int = 5, warmup: int = 1) -> float:
    """Median time of a call."""
    for _ in range(warmup):
        function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def interleaved_medians(functions: Mapping[str, Callable[[], object]], *, repeats: int = 5) -> dict[str, float]:
    """Median times of calls that take turns, so that a drift of the machine meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def read_views(folder: Path, model: Model) -> TrueViews:
    """All views of a capture as a model takes them."""
    capture = read_capture(folder).recentred()
    return TrueViews.read(CaptureViews(folder.name, capture, model.image_size, model.system.focal_over_height))


def peak_mebibytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def network(**changes) -> Kaleido:
    """A small network of the paper's form (width 256, 4 blocks, 16 x 16 tokens of 64 numbers)."""
    values = dict(width=256, depth=4, kv_heads=1, latent_channels=16, patch_size=2, window=4)
    return Kaleido(KaleidoConfig(**{**values, **changes}))


def train_step(model: Kaleido, views: int, references: int, side: int) -> Callable[[], None]:
    """One forward and backward pass in bf16 on one scene of ``views`` views with ``side`` x ``side`` latents."""
    latents = torch.randn(1, views, model.config.latent_channels, side, side)
    positions, t = ViewPositions.from_poses(random_rigid(1, views, translation=0.5)), torch.tensor([0.7])

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(latents, t, positions, references).square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)

    return step


def write_result(script: str, title: str, lines: list[str], *, start: str = "python") -> None:
    """Print a result and write it beside its script, with date and machine, and how the script is started."""
    cpu = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ""
    )
    flags = Path("/proc/cpuinfo").read_text()
    said = "".join(" FOLDER" if Path(word).exists() else f" {word}" for word in sys.argv[1:])
    fast = ", AMX bf16" if "amx_bf16" in flags else ", AVX-512 bf16" if "avx512_bf16" in flags else ""
    head = [
        f"# {title}",
        "",
        f"{datetime.date.today()}, {torch.get_num_threads()} threads of {cpu or platform.machine()}{fast}, "
        f"torch {torch.__version__}, Python {platform.python_version()}. `{start} -m benchmarks.{script}{said}`",
        "",
    ]
    text = "\n".join(head + lines) + "\n"
    Path(__file__).with_name(f"{script}.md").write_text(text)
    sys.stdout.write(text)
