"""The exceptions of `fsdet`: mistakes in the input, with messages that say how to fix them."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of the errors of the system that there is no room for a file."""


class FsdetError(Exception):
    """A mistake in the input. The message says what is wrong, where, and what to do."""


class ConfigError(FsdetError):
    """A setting that does not exist or has an invalid value."""


class DataError(FsdetError):
    """A dataset that is missing or broken."""


class CheckpointError(FsdetError):
    """A checkpoint that is missing, unreadable or of another architecture."""


SHOWN = 200
"""Characters of a value in a message."""
MOST_LINES = 20
"""Mistakes of a file that are listed."""
LONGEST_NAME = 100
"""Characters of a key for which a similar one is looked for."""


def cut(text: str, length: int = SHOWN) -> str:
    """`text` with at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def shown(value: object) -> str:
    """`value` as Python writes it, for a message."""
    return cut(repr(value))


def more_mistakes(source: object) -> str:
    """The line that stands for all mistakes of `source` after the first `MOST_LINES`."""
    return f"{source}: has more mistakes; correct these first"


def nearest(key: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the candidate most similar to `key`, or the empty string."""
    if len(key) > LONGEST_NAME:
        return ""
    close = get_close_matches(key, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of its message, or its name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
