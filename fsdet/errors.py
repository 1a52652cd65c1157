"""The one exception family of `fsdet`: a mistake in the input, told so that the reader can mend it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FsdetError(Exception):
    """A mistake in what was asked for. The message is complete: what is wrong, where, and what to do."""


class ConfigError(FsdetError):
    """A setting that does not exist or has a value it cannot have."""


class DataError(FsdetError):
    """A dataset that is missing or broken."""


class CheckpointError(FsdetError):
    """A checkpoint that is missing, unreadable or of another architecture."""


def nearest(key: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the candidate most like `key`, or the empty string."""
    close = get_close_matches(key, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
