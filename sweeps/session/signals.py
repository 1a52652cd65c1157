"""Ctrl-C and SIGTERM: the first signal asks the sweep to stop, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fsdet.command import ExitCode
from sweeps.search.stopping import StoppingCriteria, StopReason, SweepStopped

REASONS = {
    signal.SIGINT: StopReason("it was interrupted by Ctrl-C", ExitCode.INTERRUPTED),
    signal.SIGTERM: StopReason("it was asked to end (SIGTERM)", ExitCode.TERMINATED),
}


class Signals:
    """Turns both signals into a request to stop.

    While trials run, their loop sees the request; before and after, the signal raises `SweepStopped`.

    Args:
        stopping: criteria of the session.
        show: shows one line; safe in a signal handler.
    """

    def __init__(self, stopping: StoppingCriteria, show: Callable[[str], None]) -> None:
        self._stopping = stopping
        self._show = show
        self._received = False
        self.in_loop = False

    def install(self) -> None:
        """Install both handlers; again after Ray's start, which installs its own for SIGTERM.

        An ignored signal stays ignored: that is how a shell protects a background job.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in REASONS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        reason = REASONS[signal.Signals(number)]
        if self._received:
            self._show("leaving at once; --resume continues, trials from their last checkpoints")
            os._exit(reason.exit_code)
        self._received = True
        self._stopping.request(reason)
        self._show("stopping; once more leaves at once")
        if not self.in_loop:
            raise SweepStopped


@contextmanager
def handle_signals(stopping: StoppingCriteria, show: Callable[[str], None]) -> Iterator[Signals]:
    """Handle both signals; restores the handlers afterwards. See `Signals`."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in REASONS}
    signals = Signals(stopping, show)
    signals.install()
    try:
        yield signals
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
