"""Waiting for events. The limit is for what never comes: nothing else is judged by the clock of a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 600.0
"""Seconds, many times what a free machine needs."""


def wait_until(happened: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return when `happened()` is true."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
