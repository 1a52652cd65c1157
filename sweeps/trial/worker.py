"""The worker process: costs of its trials, memory leaks, free memory of the machine and the GPU."""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from fsdet.report import Report
from sweeps.config import COSTS

LEAK = 2**30
"""Bytes by which an idle worker may have grown since its second trial before it is replaced."""
STEP_SECONDS, MEMORY_BYTES = COSTS
EVALUATION_EPOCHS = "trial/evaluation_epochs"
"""Cost of an evaluation in epochs of training, each without its own evaluation."""

_idle: list[int] = []
"""Resident bytes at the start of each trial of this process."""


def has_leaked() -> bool:
    """Whether this process has grown between trials. Call it once at the start of each.

    The first start does not count: the first trial loads the libraries.
    """
    gc.collect()
    if len(_idle) == 1:
        gc.freeze()  # the libraries are loaded: later collections need not traverse them
    _idle.append(psutil.Process().memory_info().rss)
    return len(_idle) > 2 and _idle[-1] - _idle[1] > LEAK


class Costs:
    """Wall time of a step and peak memory of one trial, since it started or resumed."""

    def __init__(self, resumed: bool) -> None:
        # the first report of a resumed trial repeats the step of its checkpoint
        self._first: tuple[float, int] | None = None if resumed else (time.monotonic(), 0)
        self._evaluating = 0.0
        _reset_peak()

    def after(self, report: Report) -> dict[str, float]:
        """The costs so far."""
        costs = {MEMORY_BYTES: float(_peak())}
        if self._first is None:
            self._first = (time.monotonic(), report.step)
        began, first = self._first
        self._evaluating += report.evaluation_seconds
        if report.step > first:
            total, steps = time.monotonic() - began, report.step - first
            costs[STEP_SECONDS] = total / steps
            epoch = (total - self._evaluating) / steps * report.step / max(1, report.epoch)
            costs[EVALUATION_EPOCHS] = report.evaluation_seconds / max(epoch, 1e-9)
        return costs


def _reset_peak() -> None:
    """Reset the peaks of earlier trials, where the system allows it."""
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak() -> int:
    """Bytes: peak allocation on the GPU, or peak resident memory without one."""
    cuda = _cuda()
    return int(cuda.max_memory_allocated()) if cuda else peak_memory()


def _cuda() -> Any:
    """`torch.cuda` where torch is loaded and a GPU is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


log = logging.getLogger(__name__)

WAIT_SECONDS = 60
"""Seconds to wait for memory; then the trial starts, and is retried alone if it runs out of memory."""
SLACK = 0.15
"""Fraction of a trial's share of a card that need not be free: contexts of processes, a display."""
CGROUP = Path("/sys/fs/cgroup")


def wait_for_memory(
    free: Callable[[], int], needed: int, seconds: float = WAIT_SECONDS, every: float = 0.5
) -> bool:
    """Wait until `free()` is at least `needed` bytes; returns whether that was so within `seconds`."""
    deadline = time.monotonic() + seconds
    while free() < needed:
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def wait_for_card(share: float) -> None:
    """Release this process's cached GPU memory, then wait until a trial's share of the card is free.

    Args:
        share: fraction of the card reserved for the trial; 1 or more for all of it.
    """
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    needed = int((1 - SLACK) * min(share, 1.0) * total)

    def free() -> int:
        return int(torch.cuda.mem_get_info()[0])

    if free() >= needed:
        return
    log.warning("waiting for %.1f GB of the card, %.1f GB are free", needed / 1e9, free() / 1e9)
    if not wait_for_memory(free, needed):
        log.warning("starting with %.1f GB free after %d s", free() / 1e9, WAIT_SECONDS)


def free_memory() -> int:
    """Bytes of main memory available to new processes, within the limit of the container."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return free
    return min(free, limit - used + reclaimable())


def reclaimable() -> int:
    """Bytes of the container's file cache, which the kernel frees under memory pressure."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def peak_memory() -> int:
    """Bytes: peak resident memory of this process."""
    try:
        for line in Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
