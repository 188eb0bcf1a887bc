"""Which process holds the others up: every process says where it is, so that those who wait can tell whom for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import nn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.training.network import network_of
from kaleidoscene.training.world import World

_PHASES = ("fetching data", "computing the loss", "in the network", "after the network")
_BEAT = 0.5


class Heartbeat:
    """Writes down where this process is, twice a second, where the others can read it.

    A collective that times out says who waited, not for whom. The one that is behind all others, or that gives no
    sign of life any more, is the one that hangs.

    Args:
        world: All processes; alone, nothing is done.
        model: Its units count the way through the network.
    """

    def __init__(self, world: World, model: nn.Module) -> None:
        self.world = world
        self._at = [0, 0, 0]
        self._beats = 0
        self._over = threading.Event()
        if world.size == 1:
            return
        self._store = _connect()
        # Before the hooks that gather sharded weights: a process that waits in those has come so far.
        model.register_forward_pre_hook(lambda *_: self.enter(2), prepend=True)
        model.register_forward_hook(lambda *_: self.enter(3))
        for unit in network_of(model).units().values():
            unit.register_forward_pre_hook(lambda *_: self._pass_unit(), prepend=True)
        threading.Thread(target=self._beat, args=(_connect(),), daemon=True).start()

    def begin(self, step: int) -> None:
        """A step begins: its data are fetched."""
        self._at = [step, 0, 0]

    def enter(self, phase: int) -> None:
        """A part of a step begins: 1 the loss, 2 the network, 3 what follows it."""
        self._at = [self._at[0], phase, 0]

    def stop(self) -> None:
        """No more beats."""
        self._over.set()

    def _pass_unit(self) -> None:
        self._at[2] += 1

    def _beat(self, store: Any) -> None:
        with suppress(Exception):  # the store ends with the process that keeps it
            while not self._over.wait(_BEAT):
                self._beats += 1
                store.set(f"at/{self.world.rank}", " ".join(map(str, (*self._at, self._beats))))

    def explain(self, error: RuntimeError, step: int) -> None:
        """Raise with the names of those who hold the others up, if the error is of a collective that was given up.

        Such an error says who waited; the processes themselves say whom for.
        """
        of_collective = any(word in str(error) for word in ("gloo", "NCCL", "imed out"))
        if of_collective and (culprits := self.culprits()):
            raise KaleidosceneError(
                f"Training stopped at step {step}: waiting for other processes was given up. {culprits} "
                f"({str(error)[:300]})"
            ) from error

    def culprits(self) -> str:
        """Who holds the others up, as a sentence; empty where nothing can be told."""
        if self.world.size == 1:
            return ""
        try:
            first = self._read()
            time.sleep(5 * _BEAT)
            second = self._read()
        except Exception:  # the process that keeps the store is the one that is gone
            return "Process 0, where all meet, does not answer."
        return describe(first, second)

    def _read(self) -> dict[int, tuple[int, ...]]:
        found = {}
        for rank in range(self.world.size):
            key = f"at/{rank}"
            if self._store.check([key]):
                found[rank] = tuple(map(int, self._store.get(key).decode().split()))
        return found


def describe(first: Mapping[int, tuple[int, ...]], second: Mapping[int, tuple[int, ...]]) -> str:
    """Who hangs, from two looks at where all processes are: ``step, phase, units, beats`` by rank."""
    silent = [rank for rank, at in second.items() if first.get(rank) == at]
    if silent and len(silent) < len(second):
        return " ".join(f"Process {rank} gives no sign of life, {_place(second[rank])}." for rank in silent)
    places = {rank: at[:3] for rank, at in second.items()}
    last = min(places.values(), default=None)
    behind = [rank for rank, place in places.items() if place == last]
    if last is None or len(behind) == len(places):
        return ""
    return " ".join(f"Process {rank} holds the others up, {_place(second[rank])}." for rank in behind)


def _place(at: tuple[int, ...]) -> str:
    inside = f" (unit {at[2]})" if at[1] == 2 and at[2] else ""
    return f"{_PHASES[at[1]]}{inside} of step {at[0] + 1}"


def _connect() -> Any:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    patience = timedelta(seconds=10)
    store = dist.TCPStore(host, port, is_master=False, timeout=patience)  # pyright: ignore[reportPrivateImportUsage]
    return dist.PrefixStore("heartbeat", store)  # pyright: ignore[reportPrivateImportUsage]
