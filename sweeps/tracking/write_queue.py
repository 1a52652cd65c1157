"""`WriteQueue`: executes writes in order in a background thread, so that no caller waits for a server.

A store that does not answer is asked again until it does, or until the queue is closed and its time is over. So a
server that is away for a while costs nothing but a delay. What was never written can be restored from the files of the
trials: see `sweeps.sync`.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from sweeps.secrets import without_password
from sweeps.tracking.client import MlflowException

log = logging.getLogger(__name__)

DELAY = 1.0
"""Seconds for which values are buffered and then written together."""
LONGEST_REASON = 200
"""Characters of an error in a warning."""
ATTEMPTS = 5
"""Times that a write is tried to which a store answers with an internal error."""
LONGEST_WAIT = 10.0
"""Seconds between two attempts."""
AWAY = (429, 502, 503, 504)
"""HTTP codes of a server that is busy, starting, or away behind a proxy; MLflow maps errors of a database to 503."""

Write = Callable[[], None]


class WriteQueue:
    """A queue of writes to one store.

    Args:
        store: its address, for messages.
        warn: told once that the store does not answer, and of the first write that it refused.
        commit: called after the writes of a second, which may have buffered something.
    """

    def __init__(
        self, store: str, warn: Callable[[str, str], None], commit: Write = lambda: None
    ) -> None:
        self._store = without_password(store)
        self._warn = warn
        self._commit = commit
        self._buffered: dict[Hashable, Write] = {}
        self._due: float | None = None
        """Monotonic time at which buffered values are written; None if nothing was written since the last time."""
        self._deadline = float("inf")
        self._closing = threading.Event()
        self.missing = 0
        """Writes that the store refused or did not take before the queue was closed."""
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._writing = threading.RLock()
        """Held during each write; a write may deliver others."""
        self._running = threading.Event()
        """Cleared while no write may begin."""
        self._running.set()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def put(self, write: Write) -> None:
        """Queue `write`. It may be called more than once."""
        self._queue.put(write)

    def put_later(self, key: Hashable, write: Write) -> None:
        """Write what is buffered under `key` within `DELAY` seconds; called by writes, in the thread of the queue."""
        self._buffered.setdefault(key, write)

    def flush(self, seconds: float) -> None:
        """Wait until all queued and buffered values are written, for at most `seconds`."""
        done = threading.Event()

        def write() -> None:
            self._deliver()
            done.set()

        self.put(write)
        done.wait(seconds)

    @contextmanager
    def paused(self, seconds: float) -> Iterator[None]:
        """Begin no write within the context, after waiting for the present one, for at most `seconds`."""
        self._running.clear()
        held = self._writing.acquire(timeout=seconds)
        try:
            yield
        finally:
            self._running.set()
            if held:
                self._writing.release()

    def close(self, deadline: float) -> int:
        """Write everything that is queued, then stop; give up at `deadline`, a monotonic time.

        Returns:
            the number of writes that are missing in the store.
        """
        self._deadline = deadline
        self._closing.set()
        self._queue.put(None)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if not self._thread.is_alive():
            return self.missing
        return self.missing + 1 + self._queue.qsize() + len(self._buffered)  # 1: it still tries one

    def _run(self) -> None:
        while (write := self._next()) is not None:
            if write == self._deliver:
                self._deliver()
            else:
                self._attempt(write)
                self._due = self._due or time.monotonic() + DELAY

    def _next(self) -> Write | None:
        """The next write; None when everything is written."""
        left = None if self._due is None else self._due - time.monotonic()
        if left is not None and left <= 0:
            return self._deliver
        try:
            write = self._queue.get(timeout=left)
        except queue.Empty:
            return self._deliver
        if write is None and self._due is not None:
            self._queue.put(None)
            return self._deliver
        return write

    def _deliver(self) -> None:
        """Write all buffered values."""
        self._due = None
        while self._buffered:
            self._attempt(self._buffered.pop(next(iter(self._buffered))))
        self._attempt(self._commit)

    def _attempt(self, write: Write) -> None:
        """Call `write` until the store takes it; give up if it refuses, or at the deadline."""
        number, answered = 0, 0
        while time.monotonic() < self._deadline:
            number += 1
            self._running.wait()
            try:
                with self._writing:
                    write()
            except Exception as error:  # of any kind: the sweep continues
                text = without_password(f"{type(error).__name__}: {error}")[:LONGEST_REASON]
                answered += not is_away(error)
                if answered and (answered >= ATTEMPTS or not is_internal(error)):
                    self._warn("refused", f"tracking: {self._store}: could not write ({text})")
                    break
                self._warn("away", f"tracking: {self._store}: does not answer ({text})")
                self._closing.wait(min(2.0 ** (number - 1), LONGEST_WAIT))
                if self._closing.is_set():
                    time.sleep(0.2)
            else:
                return
        self.missing += 1


class ParentMissingError(Exception):
    """The run above a run was not written yet."""


def is_away(error: Exception) -> bool:
    """Whether a store may take the same write later."""
    if isinstance(error, ParentMissingError) or "is locked" in str(error):
        return True
    if not isinstance(error, MlflowException):
        return isinstance(error, ConnectionError | sqlite3.OperationalError)
    return error.get_http_status_code() in AWAY or "failed with exception" in str(error)


def is_internal(error: Exception) -> bool:
    """Whether a store answered with an internal error, which may be gone the next time."""
    return isinstance(error, MlflowException) and error.get_http_status_code() == 500
