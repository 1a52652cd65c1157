"""Memory: how much is free, and waiting for it where a worker that has just ended still holds some."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

PATIENCE = 60
"""Seconds to wait for memory; then the trial starts, and if it lacks some it is tried again alone."""
SLACK = 0.15
"""Part of a trial's share of a card that need not be free: contexts of processes, a screen."""
CGROUP = Path("/sys/fs/cgroup")


def await_room(
    free: Callable[[], int], needed: int, seconds: float = PATIENCE, every: float = 0.5
) -> bool:
    """Wait until `free()` is at least `needed` bytes; whether it came to that within `seconds`."""
    deadline = time.monotonic() + seconds
    while free() < needed:
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def clear_card(share: float) -> None:
    """Give back what this process holds of its card for nothing, then wait for a trial's share of it.

    Args:
        share: part of the card that the trial may count on; 1 or more for all of it.
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
    if not await_room(free, needed):
        log.warning("starting with %.1f GB free after %d s", free() / 1e9, PATIENCE)


def free_memory() -> int:
    """Bytes of main memory that new processes can have, by the machine and by its container's limit."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return free
    return min(free, limit - used + reclaimable())


def reclaimable() -> int:
    """Bytes of the container that hold copies of files, which the kernel drops when it must."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
