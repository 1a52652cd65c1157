"""Text files and their paths, and what no value of a file may be."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

from fsdet.errors import ConfigError, cut

Error = Callable[[str], Exception]
"""Builds the exception from its message."""

MEGABYTE = 1 << 20
LARGEST_FILE = 16 * MEGABYTE
"""Bytes of a file that a person or a sweep has written."""
LARGEST_DATASET = 4096 * MEGABYTE
"""Bytes of the annotations of a dataset."""
LONGEST_NUMBER = 1000
"""Characters of a number."""
LARGEST_NUMBER = 2**63
"""Whole numbers are smaller: Optuna, NumPy and torch store them in 64 bits."""
UNUSABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that no file name and no UTF-8 file can hold."""


def expand_user(path: str | Path) -> Path:
    """`path` with `~` replaced.

    Raises:
        ValueError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{cut(str(path))}: the home directory of this user is not known; write the whole path"
        ) from None


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_text(path: Path, error: Error = ConfigError, largest: int = LARGEST_FILE) -> str:
    """The text of a file.

    Args:
        path: of a regular file: a pipe could be read for ever.
        error: class of the exception.
        largest: most bytes.

    Raises:
        Exception: `error`: the file is missing, cannot be read, is too large or is not UTF-8.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{path}: cannot be read (it is not a regular file); name a file")
        if found.st_size > largest:
            raise error(
                f"{path}: must have at most {largest:,} bytes, but has {found.st_size:,}; "
                "check that it is the right file"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise error(f"{cut(str(path))}: cannot be read ({why}); check the path") from None
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        rule = f"cannot be read as a UTF-8 text file ({problem.reason})"
        raise error(f"{path}:{line}: {rule}; save it as UTF-8") from None


def why_unusable(value: object) -> str | None:
    """Why a value of a file cannot be used; None if it can."""
    if isinstance(value, int) and not -LARGEST_NUMBER <= value < LARGEST_NUMBER:
        return f"a whole number must have at most 64 bits, but got {cut(str(value), 30)}; lower it"
    if isinstance(value, str) and (found := UNUSABLE.search(value)):
        return f"a text must not hold the character {found[0]!r}; remove it"
    return None
