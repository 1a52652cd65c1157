"""The exceptions of `fsdet`: mistakes in the input, with messages that say how to fix them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FsdetError(Exception):
    """A mistake in the input. The message says what is wrong, where, and what to do."""


class ConfigError(FsdetError):
    """A setting that does not exist or has an invalid value."""


class DataError(FsdetError):
    """A dataset that is missing or broken."""


class CheckpointError(FsdetError):
    """A checkpoint that is missing, unreadable or of another architecture."""


def nearest(key: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the candidate most similar to `key`, or the empty string."""
    close = get_close_matches(key, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
