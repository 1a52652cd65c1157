"""The one exception family of `sweeps`: a mistake in the input, with a message that says how to correct it."""

from __future__ import annotations


class SweepError(Exception):
    """A mistake of the user. The message is complete: file, key, rule, value, fix."""
