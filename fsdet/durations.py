"""Durations in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time in two units."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return "{} min {} s".format(*divmod(round(seconds), 60))
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours / 24:.1f} days"
