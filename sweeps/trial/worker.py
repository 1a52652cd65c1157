"""The process that runs trials one after another: what each costs, and whether the process has leaked memory."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from sweeps.trial.memory import peak_memory

LEAK = 2**30
"""Bytes by which an idle worker may have grown since its second trial before it is replaced."""
STEP_SECONDS, MEMORY_BYTES = "trial/step_seconds", "trial/memory_bytes"

_idle: list[int] = []
"""Resident bytes at the start of each trial of this process."""


def has_leaked() -> bool:
    """Whether this process has grown between trials. Call it once at the start of each.

    The first start does not count: the first trial loads the libraries.
    """
    gc.collect()
    if len(_idle) == 1:
        gc.freeze()  # the libraries are loaded: from now on nothing looks through them again
    _idle.append(psutil.Process().memory_info().rss)
    return len(_idle) > 2 and _idle[-1] - _idle[1] > LEAK


class Costs:
    """Wall time of a step and peak memory of one trial, since it started or went on."""

    def __init__(self, resumed: bool) -> None:
        # a trial that goes on reports first the step at which it does
        self._first: tuple[float, int] | None = None if resumed else (time.monotonic(), 0)
        _reset_peak()

    def after(self, step: int) -> dict[str, float]:
        """The costs after `step` steps."""
        costs = {MEMORY_BYTES: float(_peak())}
        if self._first is None:
            self._first = (time.monotonic(), step)
        began, first = self._first
        if step > first:
            costs[STEP_SECONDS] = (time.monotonic() - began) / (step - first)
        return costs


def _reset_peak() -> None:
    """Forget the peaks of the trials before, as far as the system lets us."""
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak() -> int:
    """Bytes: the most that torch has held on the GPU, else the most that was resident."""
    cuda = _cuda()
    return int(cuda.max_memory_allocated()) if cuda else peak_memory()


def _cuda() -> Any:
    """`torch.cuda` where torch is loaded and a GPU is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
