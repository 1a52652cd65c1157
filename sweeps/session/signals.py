"""Ctrl-C and SIGTERM: the first asks the sweep to stop, the second leaves at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sweeps.search.stops import EXIT_INTERRUPTED, EXIT_TERMINATED, Stop, Stops, SweepStopped

STOPS = {
    signal.SIGINT: Stop("it was interrupted by Ctrl-C", EXIT_INTERRUPTED),
    signal.SIGTERM: Stop("it was asked to end (SIGTERM)", EXIT_TERMINATED),
}


class Signals:
    """Passes both signals on to `stops`.

    While trials run, their loop sees the request; before and after, the signal breaks in.
    """

    def __init__(self, stops: Stops) -> None:
        self._stops = stops
        self._heard = False
        self.in_loop = False

    def install(self) -> None:
        """Take both signals. Again after Ray's start, which takes SIGTERM for itself.

        One that is ignored stays so: that is how a shell protects a job in the background.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        stop = STOPS[signal.Signals(number)]
        if self._heard:
            say("leaving at once; --resume goes on, trials from their last checkpoints")
            os._exit(stop.exit_code)
        self._heard = True
        self._stops.request(stop)
        say("stopping; once more leaves at once")
        if not self.in_loop:
            raise SweepStopped


@contextmanager
def signals_to(stops: Stops) -> Iterator[Signals]:
    """Take both signals, and give them back."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in STOPS}
    signals = Signals(stops)
    signals.install()
    try:
        yield signals
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def say(text: str) -> None:
    """One line; safe in a signal handler."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{text}\n".encode())
