"""Notices that a server of the Ray of this machine has died.

Ray itself would try to reach it for a minute, then end this process with words of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

SERVERS = ("gcs_server", "raylet")
"""Processes without which no trial can run."""
EVERY_SECONDS = 1.0
"""Seconds between two looks."""


@contextmanager
def watched_servers(on_death: Callable[[str], None]) -> Iterator[None]:
    """Watch the servers that this process has started.

    Args:
        on_death: gets the name of the first one that dies; called in a thread of its own.
    """
    servers = {p: p.name() for p in psutil.Process().children() if p.name() in SERVERS}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY_SECONDS):
            dead = next((name for server, name in servers.items() if is_dead(server)), None)
            if dead is not None:
                on_death(dead)
                return

    threading.Thread(target=watch, name="ray servers", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def is_dead(process: psutil.Process) -> bool:
    """Whether a process has ended; its parent may not have noticed."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
