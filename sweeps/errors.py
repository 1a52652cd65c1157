"""The one exception family of `sweeps`: a mistake in the input, told so that it can be mended."""

from __future__ import annotations


class SweepError(Exception):
    """A mistake in what was asked for. The message is complete: file, key, rule, value, cure."""
