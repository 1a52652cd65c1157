"""Progress bars on the terminal's error stream; one plain line without a terminal.

What is logged meanwhile is printed above the bar.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType
from typing import Self, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, track

from fsdet.durations import duration

T = TypeVar("T")

console = Console(stderr=True)
"""Of all bars of a process, so that lines and bars know of each other."""


def shows_bars() -> bool:
    """Whether bars are drawn: on a terminal that can, whether colours are forced or not."""
    return console.is_terminal and sys.stderr.isatty() and not console.is_dumb_terminal


STEP_LOGGER = "fsdet.run.steps"
"""Logger of what the bar of a training shows too: left out of the terminal."""


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` with a bar named `label`."""
    shown = shows_bars()
    if not shown:
        console.print(f"{label} …", highlight=False)
    yield from track(items, label, total=total, console=console, transient=True, disable=not shown)


MIN_FOR_BAR = 5000
"""Fewer items than this take less than about two seconds."""


def progress_if_many(items: Collection[T], label: str) -> Iterable[T]:
    """Iterate over `items`, with a bar if they are many."""
    return progress(items, label) if len(items) > MIN_FOR_BAR else items


class TrainingProgress:
    """Progress of a training: step of how many, epoch, loss, gradient norm, time left.

    Args:
        label: name of the bar.
        done: optimiser steps done before.
        total: optimiser steps at the end.
        steps_per_epoch: optimiser steps of an epoch.
    """

    def __init__(self, label: str, done: int, total: int, steps_per_epoch: int) -> None:
        self._label, self._done, self._total = label, done, total
        self._steps_per_epoch = steps_per_epoch
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[values]}"),
            console=console,
            transient=True,
            expand=True,
            disable=not shows_bars(),
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._bar.disable:
            console.print(f"{self._label} …", highlight=False)
        self._bar.start()
        self._task = self._bar.add_task(
            self._label, total=self._total, completed=self._done, values="first step"
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show_step(self, step: int, loss: float, norm: float) -> None:
        """Show the values of a step, counted from 1."""
        if self._task is None or self._bar.disable:
            return
        seconds = self._bar.tasks[0].elapsed or 0.0
        left = seconds / max(1, step - self._done) * (self._total - step)
        values = (
            f"step {step}/{self._total}, loss {loss:.3g}, norm {norm:.3g}, {duration(left)} left"
        )
        if console.width >= WIDE:
            values = f"epoch {(step - 1) // self._steps_per_epoch + 1}, {values}"
        self._bar.update(self._task, completed=step, values=values)


WIDE = 80
"""Columns of a terminal that has room for the epoch, too."""


class ProgressHandler(logging.Handler):
    """Logs to a stream; on a terminal above the bars, without what they show themselves.

    Args:
        level: least level that is shown.
        stream: None for standard output.
    """

    def __init__(self, level: int, stream: TextIO | None = None) -> None:
        super().__init__(level)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        stream = self._stream or sys.stdout
        if not (shows_bars() and stream.isatty()):
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        elif record.name != STEP_LOGGER or record.levelno > logging.INFO:
            console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
