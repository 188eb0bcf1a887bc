"""Signals that ask a run to stop: those of a cluster that takes its machines back, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopSignals:
    """While it is entered, a signal is noted instead of ending the process; a second Ctrl-C ends it at once.

    Signals reach the main thread alone; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        """Name of the signal that came."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and self.asked == signal.SIGINT.name:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
