"""Claims the folder of a new sweep, so that two processes that start together do not choose the same one."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from sweeps.errors import SweepError

CLAIM = ".claim"
"""Lock file in the folder of a sweep, held from its choice to the end of the process that chose it."""

_held: dict[Path, FileLock] = {}
"""The claims of this process; a lock is released when nothing refers to it."""


def claim(folder: Path) -> bool:
    """Create `folder` and claim it until this process ends; returns False if another process has claimed it.

    Raises:
        SweepError: it cannot be created.
    """
    if folder in _held and folder.is_dir():
        return True
    lock = FileLock(folder / CLAIM)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        raise SweepError(
            f"{folder}: cannot be created ({error.strerror or error}); run this in a folder that you can write to, "
            "or give the sweep a storage.path"
        ) from None
    _held[folder] = lock
    return True
