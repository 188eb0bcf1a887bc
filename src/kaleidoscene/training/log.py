"""Records of a run: metrics.jsonl always, TensorBoard and Weights & Biases if asked for, and a progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import to_plain, write_aside


def _records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Lines of a log with what they say; a line that a kill or a disk has damaged is none."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(errors="replace").split("\n"):
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int) and "loss" in record:
                found.append((line, record))
    return found


def past_records(run: Path, until: int) -> list[dict[str, Any]]:
    """What a run has logged, up to a step."""
    return [record for _, record in _records(run / "metrics.jsonl") if record["step"] <= until]


class RunLog:
    """Writes one line of JSON a step; a resumed run first drops the lines behind its checkpoint."""

    def __init__(self, run: Path, config: Any, step: int) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / "metrics.jsonl"
        self.config, self.step = config, step
        kept = [line for line, record in _records(self.path) if record["step"] <= step]
        write_aside(self.path, "".join(line + "\n" for line in kept))
        write_aside(run / "train.json", json.dumps(to_plain(config), indent=1))
        makers = {"TensorBoard": (config.tensorboard, _TensorBoard), "Weights & Biases": (config.wandb, _Wandb)}
        self._displays: dict[str, Display] = {
            name: make(run, to_plain(config)) for name, (wanted, make) in makers.items() if wanted
        }
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self._bar = self._progress.add_task("", total=config.steps, completed=step, note="")

    def __enter__(self) -> RunLog:
        self._file = self.path.open("a")
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._file.close()
        self._show(lambda display: display.close())

    def write(self, step: int, record: dict[str, float]) -> None:
        """Log one step."""
        self._file.write(json.dumps({"step": step, **record}) + "\n")
        if step % self.config.log_every == 0:
            self._file.flush()
        norm = f"{record['gradient_norm']:.2f}" if "gradient_norm" in record else "overflow"
        note = f"loss {record['loss']:.4f}  |g| {norm}  {1 / record['seconds']:.2f} steps/s"
        held_out = {name: value for name, value in record.items() if name.startswith("held_out/")}
        if held_out:
            self._progress.print(f"step {step}: " + "  ".join(f"{k[9:]} {v:.2f}" for k, v in held_out.items()))
        self._progress.update(self._bar, completed=step, note=note)
        self._show(lambda display: display.write(step, record))

    def _show(self, use: Callable[[Display], object]) -> None:
        """A display must not stop the training: what fails is said once, and metrics.jsonl goes on."""
        for name, display in list(self._displays.items()):
            try:
                use(display)
            except Exception as error:
                del self._displays[name]
                self._progress.print(f"{name} failed ({error}); the run goes on, metrics.jsonl has everything.")

    def flush(self) -> None:
        """Have everything on disk."""
        self._file.flush()


class Display(Protocol):
    """Somewhere else that records are shown."""

    def write(self, step: int, record: dict[str, float]) -> None:
        """Show one step."""
        ...

    def close(self) -> None:
        """No more steps."""
        ...


class _TensorBoard:
    """Files below ``RUN/tensorboard``."""

    def __init__(self, run: Path, config: Any) -> None:
        del config
        try:
            from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415  an extra
        except ImportError as error:
            raise KaleidosceneError("TensorBoard is not installed: pip install 'kaleidoscene[train]'.") from error
        self.writer = SummaryWriter(run / "tensorboard")

    def write(self, step: int, record: dict[str, float]) -> None:
        for name, value in record.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """A run of Weights & Biases that goes by the name of the folder; WANDB_MODE=offline writes files alone."""

    def __init__(self, run: Path, config: Any) -> None:
        try:
            import wandb  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  an extra
        except ImportError as error:
            raise KaleidosceneError("Weights & Biases is not installed: pip install 'kaleidoscene[wandb]'.") from error
        self.run = wandb.init(
            project="kaleidoscene", name=run.name, id=run.name, resume="allow", dir=str(run), config=config
        )

    def write(self, step: int, record: dict[str, float]) -> None:
        self.run.log(record, step=step)

    def close(self) -> None:
        self.run.finish()
