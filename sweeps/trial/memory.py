"""Memory: how much is free, how much was used, and waiting where a worker that has just ended still holds some."""

from __future__ import annotations

import gc
import logging
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

WAIT_SECONDS = 60
"""Seconds to wait for memory; then the trial starts, and if it lacks some it is tried again alone."""
SLACK = 0.15
"""Part of a trial's share of a card that need not be free: contexts of processes, a screen."""
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
    if not wait_for_memory(free, needed):
        log.warning("starting with %.1f GB free after %d s", free() / 1e9, WAIT_SECONDS)


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


def peak_memory() -> int:
    """Bytes: the most of main memory that was resident."""
    try:
        for line in Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
