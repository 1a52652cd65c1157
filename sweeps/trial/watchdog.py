"""Ends a worker whose trial reports nothing for too long.

`faulthandler` does it from a thread that does not need the GIL: it works while a call into a library hangs,
and writes the stack of every thread to `stall.txt`, where the restarted trial finds it.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

STALL = "stall.txt"


class Watchdog:
    """Ends the process unless it is reset at every report.

    Args:
        file: receives the stacks.
        seconds: time without a report after which the process ends; None for no limit.
    """

    def __init__(self, file: TextIO, seconds: float | None) -> None:
        self._file = file
        self._seconds = seconds
        self.reset()

    def reset(self) -> None:
        """Start the countdown again."""
        if self._seconds is not None:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)


@contextmanager
def watchdog(run_dir: Path, minutes: float | None) -> Iterator[Watchdog]:
    """Watch this process until the trial in `run_dir` has ended."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / STALL).open("a", encoding="utf-8") as file:
        try:
            yield Watchdog(file, None if minutes is None else 60 * minutes)
        finally:
            faulthandler.cancel_dump_traceback_later()


def stalled(run_dir: Path) -> bool:
    """Whether a watchdog has ended this trial."""
    try:
        return (run_dir / STALL).stat().st_size > 0
    except FileNotFoundError:
        return False


def stall_reason(run_dir: Path, minutes: float | None) -> str:
    """The reason of a trial that a watchdog has ended."""
    limit = "" if minutes is None else f" for {minutes:g} minutes"
    return f"reported nothing{limit}; {run_dir / STALL} shows where it hung"
