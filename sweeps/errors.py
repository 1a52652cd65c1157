"""The one exception family of `sweeps`: a mistake in the input, with a message that says how to correct it."""

from __future__ import annotations


class SweepError(Exception):
    """A mistake of the user. The message is complete: file, key, rule, value, fix."""


def first_line(error: BaseException) -> str:
    """The first line of its message, or its name if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
