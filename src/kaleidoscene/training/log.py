"""Records of a run: metrics.jsonl always, TensorBoard if asked for, and a progress bar."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import to_plain, write_aside


def _lines(path: Path) -> list[str]:
    """Whole lines of a log; a kill may have left half a line."""
    if not path.exists():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line.endswith("}")]


def past_records(run: Path, until: int) -> list[dict[str, Any]]:
    """What a run has logged, up to a step."""
    records = [json.loads(line) for line in _lines(run / "metrics.jsonl")]
    return [record for record in records if record["step"] <= until]


class RunLog:
    """Writes one line of JSON a step; a resumed run first drops the lines behind its checkpoint."""

    def __init__(self, run: Path, config: Any, step: int) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / "metrics.jsonl"
        self.config, self.step = config, step
        kept = [line for line in _lines(self.path) if json.loads(line)["step"] <= step]
        write_aside(self.path, "".join(line + "\n" for line in kept))
        write_aside(run / "train.json", json.dumps(to_plain(config), indent=1))
        self._writer = _tensorboard(run) if config.tensorboard else None
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
        self._to_tensorboard(lambda writer: writer.close())

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
        self._to_tensorboard(lambda writer: [writer.add_scalar(name, value, step) for name, value in record.items()])

    def _to_tensorboard(self, use: Callable[[Any], object]) -> None:
        """A display must not stop the training: what fails is said once, and metrics.jsonl goes on."""
        if self._writer is None:
            return
        try:
            use(self._writer)
        except Exception as error:
            self._writer = None
            self._progress.print(f"TensorBoard failed ({error}); the run goes on, metrics.jsonl has everything.")

    def flush(self) -> None:
        """Have everything on disk."""
        self._file.flush()


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("TensorBoard is not installed: pip install 'kaleidoscene[train]'.") from error
    return SummaryWriter(run / "tensorboard")
