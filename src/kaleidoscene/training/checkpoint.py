"""Checkpoints: a folder with config.json, model.safetensors and training/; written aside, then renamed. No pickle.

``model.safetensors`` holds the averaged weights whole, which are the ones to render with. ``training/`` holds what it
takes to go on exactly: ``state.json``, and in ``shards/`` the weights, their average and the states of the optimisers
as every process had them (PyTorch's distributed checkpoint in safetensors files, so that any number of processes can
read it). The whole average is made from the shards: no process asks another for its share.
``checksums.json`` has the SHA-256 of every file.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future as TorchFuture

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import file_sha256
from kaleidoscene.training.checkpoint_folders import discard, list_checkpoints, step_name
from kaleidoscene.training.checkpoint_state import BROKEN, EXPORTED, FORMAT_VERSION, TrainingState, quiet
from kaleidoscene.training.integrity import CHECKSUMS
from kaleidoscene.training.world import World


class _Writer(HuggingFaceStorageWriter):
    """Writes on the device of its process.

    The thread that writes in the background would begin on the first GPU, where all processes of a node would meet.
    """

    def __init__(self, folder: str, device: str) -> None:
        super().__init__(folder, save_distributed=True)
        self._device = torch.device(device)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> TorchFuture[list[WriteResult]]:
        """Write this process's part."""
        if self._device.index is not None:
            torch.cuda.set_device(self._device)
        return super().write_data(plan, planner)


@dataclass(eq=False)
class _Pending:
    """A checkpoint that was begun, and what is under way of it."""

    partial: Path
    future: Future[Any] | None
    """Shards being written; then the rest. None: nothing that would have to be waited for."""
    is_settling: bool = False


class CheckpointWriter:
    """Writes the checkpoints of a run, in the background if asked to.

    First every process writes its shards. When all are there, the first exports the averaged weights whole, and all
    put their files on disk and take their checksums. Then the folder gets its name.

    Args:
        run: Folder of the run.
        world: All its processes; each must make the same calls.
        keep: How many checkpoints stay.
        background: Go on training while files are written.
        timeout: Seconds after which the processes give up on each other.
    """

    def __init__(self, run: Path, world: World, *, keep: int, background: bool = False, timeout: float = 600.0) -> None:
        self.run, self.world, self.keep, self.background = run, world, keep, background
        self._pending: _Pending | None = None
        self._hand = ThreadPoolExecutor(1, "checkpoint") if background else None
        if background and world.size == 1:  # said by the thread that writes, where nothing can be caught
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        # The thread that writes must not mix its messages with those of the training.
        self._group = (
            dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
            if background and world.size > 1
            else None
        )

    def save(self, config: dict[str, Any], state: TrainingState) -> None:
        """Write ``checkpoints/step-N``, or begin to.

        Raises:
            KaleidosceneError: It cannot be written; nothing is left of it, and earlier checkpoints are as they were.
        """
        self.finish()
        partial = self.run / "checkpoints" / f"{step_name(state.step)}.partial"
        with self._refusing(partial):
            if self.world.is_main:
                shutil.rmtree(partial, ignore_errors=True)
                (partial / "training" / "shards").mkdir(parents=True)
            self.world.barrier()
            future = self._write_shards(state, partial / "training" / "shards")
            if self.world.is_main:
                document = {"format_version": FORMAT_VERSION, "step": state.step, **state.extra}
                (partial / "config.json").write_text(json.dumps(config, indent=1))
                (partial / "training" / "state.json").write_text(json.dumps(document))
        self._pending = _Pending(partial, future)
        if not self.background:
            self.finish()

    def _write_shards(self, state: TrainingState, folder: Path) -> Future[Any] | None:
        writer = _Writer(str(folder), self.world.device)
        alone = self.world.size == 1
        with quiet():
            if self.background:
                # Copies are taken here; training may go on changing the tensors.
                future = async_save(
                    state.tensors(), storage_writer=writer, no_dist=alone, process_group=cast(Any, self._group)
                )
                return cast("Future[Any]", future)
            save(state.tensors(), storage_writer=writer, no_dist=alone)
        return None

    @property
    def is_waiting(self) -> bool:
        """Whether this process has done its part of what is under way, so that :meth:`advance` would not wait."""
        return self._pending is not None and (self._pending.future is None or self._pending.future.done())

    def advance(self) -> None:
        """One stage further with the checkpoint that was begun; every process must make this call."""
        if self._pending is None:
            return
        pending = self._pending
        with self._refusing(pending.partial):
            result: Any = None if pending.future is None else pending.future.result()
            if pending.is_settling:
                self._pending = None
                self._give_name(pending.partial, result)
                return
            self.world.barrier()  # all shards of all processes are written
            files = sorted(str(p.relative_to(pending.partial)) for p in pending.partial.rglob("*") if p.is_file())
            names = self.world.agree(files)
            mine = names[self.world.rank :: self.world.size]
            if self._hand is None:
                self._pending = None
                self._give_name(pending.partial, self._settle(pending.partial, mine))
            else:
                pending.future = self._hand.submit(self._settle, pending.partial, mine)
                pending.is_settling = True

    def finish(self) -> None:
        """Give the checkpoint that was begun its name, when all its files are on disk; drop the oldest."""
        while self._pending is not None:
            self.advance()

    def _settle(self, partial: Path, mine: list[str]) -> dict[str, str]:
        """Have this process's share of the files on disk; returns their checksums."""
        sums = {name: _settle(partial / name) for name in mine}
        if self.world.is_main:
            _export_average(partial)
            sums[EXPORTED] = _settle(partial / EXPORTED)
        return sums

    def _give_name(self, partial: Path, mine: dict[str, str]) -> None:
        folder = partial.with_suffix("")
        sums = {name: value for part in self.world.gather(mine) for name, value in part.items()}
        if self.world.is_main:
            (partial / CHECKSUMS).write_text(json.dumps(sums, indent=1, sort_keys=True))
            _settle(partial / CHECKSUMS)
            if folder.exists():
                discard(folder)
            os.replace(partial, folder)
            for old in list_checkpoints(self.run)[: -self.keep]:
                discard(old)
        self.world.barrier()

    @contextmanager
    def _refusing(self, partial: Path) -> Iterator[None]:
        try:
            yield
        except BROKEN as error:
            self._pending = None
            shutil.rmtree(partial, ignore_errors=True)
            good = list_checkpoints(self.run)
            last = f"the last good one is {good[-1]}" if good else "there is none yet"
            reason = error.strerror if isinstance(error, OSError) and error.strerror else _reason(error)
            raise KaleidosceneError(
                f"{partial.with_suffix('')}: the checkpoint cannot be written ({reason}); {last}."
            ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        return "; ".join(f"process {rank}: {failure[0]!r}" for rank, failure in error.failures.items())
    return str(error)


def _export_average(checkpoint: Path) -> None:
    """Write the averaged weights whole, from the shards that all processes have written."""
    with quiet():
        reader = HuggingFaceStorageReader(str(checkpoint / "training" / "shards"))
        stored = reader.read_metadata().state_dict_metadata
        names = [name for name in stored if name.startswith("average/")]
        tensors: dict[str, Any] = {name: torch.empty(cast(Any, stored[name]).size) for name in names}
        load(tensors, storage_reader=reader, no_dist=True)
    save_file({name.removeprefix("average/"): tensor for name, tensor in tensors.items()}, checkpoint / EXPORTED)


def _settle(path: Path) -> str:
    """Have a file on disk; returns its SHA-256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return file_sha256(path)
