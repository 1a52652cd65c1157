"""Why a trial failed, in words: what the machine lacked is told apart from what the code did."""

from __future__ import annotations

import errno
from pathlib import Path

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TORCH_WRITE = ("PytorchStreamWriter failed writing", "unexpected pos")
"""How torch puts a disk that is full: it loses the number of the error."""
NO_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory", "Cannot allocate memory")
OUT_OF_MEMORY = "out of memory"
EVENTS = Path("/sys/fs/cgroup/memory.events")


def cause_of(error: BaseException) -> str:
    """The reason of a trial whose trainer raised `error`."""
    text = f"{type(error).__name__}: {error}"
    names = {kind.__name__ for kind in type(error).__mro__}
    if {"OutOfMemoryError", "MemoryError"} & names or any(t in str(error) for t in NO_MEMORY):
        return f"{OUT_OF_MEMORY}: {first_line(text)}; fewer trials at once or a smaller batch helps"
    full = isinstance(error, OSError) and error.errno in DISK_FULL
    if full or any(words in str(error) for words in TORCH_WRITE):
        return f"disk full: {first_line(text)}; make room, or lower the number of checkpoints"
    return text


def cause_of_death(text: str, kernel_kills: int) -> str:
    """The reason of a trial whose worker died.

    Args:
        text: what Ray says of it.
        kernel_kills: processes that the kernel killed for want of memory since the sweep began.
    """
    if "OutOfMemoryError" in text or "running low on memory" in text:
        return f"{OUT_OF_MEMORY}: Ray killed the worker before the machine ran out of memory"
    if kernel_kills:
        return f"{OUT_OF_MEMORY}: the kernel killed the worker; run fewer trials at once"
    return "the worker process died twice; see the log of the trial"


def kernel_kills() -> int:
    """Processes of this container that the kernel has killed for want of memory."""
    try:
        lines = EVENTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def first_line(text: str) -> str:
    """`text` up to its first line break."""
    return text.strip().partition("\n")[0]
