"""Messages for failed trials; out of memory and disk full are distinguished from errors of the code."""

from __future__ import annotations

import re
from pathlib import Path

from fsdet.errors import DISK_FULL

TORCH_WRITE = ("PytorchStreamWriter failed writing", "unexpected pos")
"""Texts of torch's errors if the disk is full; they carry no errno."""
NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "HIP out of memory",
    "Cannot allocate memory",
)
"""Texts of out-of-memory errors of libraries that have no exception class for it."""
OUT_OF_MEMORY = "out of memory"
ALONE_TOO = "; this was the second time, running alone"
"""Added to the reason of a trial that ran out of memory again when it was retried."""
EVENTS = Path("/sys/fs/cgroup/memory.events")


class RanOutOfMemory(Exception):  # noqa: N818
    """Ends the worker of a trial that ran out of memory and is to be retried; its message is the reason."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means out of memory, of the machine or of a GPU."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool({"OutOfMemoryError", "MemoryError"} & names) or any(
        text in str(error) for text in NO_MEMORY
    )


def cause_of(error: BaseException) -> str:
    """The reason of a trial whose trainer raised `error`."""
    text = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return f"{OUT_OF_MEMORY}: {first_line(text)}; fewer trials at once or a smaller batch helps"
    full = isinstance(error, OSError) and error.errno in DISK_FULL
    if full or any(words in str(error) for words in TORCH_WRITE):
        return f"disk full: {first_line(text)}; make room, or lower the number of checkpoints"
    return text


def cause_of_death(text: str, kernel_kills: int) -> str:
    """The reason of a trial whose worker ended.

    Args:
        text: Ray's error text.
        kernel_kills: processes that the kernel killed because memory ran out, without those that explain
            other deaths.
    """
    if raised := re.search(rf"{RanOutOfMemory.__name__}: ({OUT_OF_MEMORY}: .*)", text):
        return raised[1]
    if "OutOfMemoryError" in text or "running low on memory" in text:
        return f"{OUT_OF_MEMORY}: Ray killed the worker before the machine ran out of memory"
    if kernel_kills:
        return f"{OUT_OF_MEMORY}: the kernel killed the worker; run fewer trials at once"
    return "the worker process died twice; see the log of the trial"


def kernel_kills() -> int:
    """Number of processes of this container that the kernel has killed because memory ran out."""
    try:
        lines = EVENTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def first_line(text: str) -> str:
    """`text` up to its first line break."""
    return text.strip().partition("\n")[0]
