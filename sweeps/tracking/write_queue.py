"""`WriteQueue`: executes writes in order in a background thread, so that no caller waits for a server."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from sweeps.secrets import without_password

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""Times that a write is tried while the store is locked."""

Write = Callable[[], None]


class WriteQueue:
    """A queue of writes to one store. The first failure is logged as a warning; none is raised.

    Args:
        store: its address, for messages.
        deliver: writes the buffered values; called at `deliver_at`, and at the end.
    """

    def __init__(self, store: str, deliver: Write) -> None:
        self._store = without_password(store)
        self._deliver = deliver
        self.deliver_at: float | None = None
        """Monotonic time at which buffered values are due; None without any."""
        self._failures = 0
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def put(self, write: Write) -> None:
        """Queue `write`. It may be called more than once."""
        self._queue.put(write)

    def flush(self, seconds: float) -> None:
        """Wait until all queued and buffered values are written, for at most `seconds`."""
        done = threading.Event()

        def write() -> None:
            try:
                self._deliver()
            finally:
                done.set()

        self.put(write)
        done.wait(seconds)

    def close(self, seconds: float | None) -> None:
        """Write everything that is queued, then stop; give up after `seconds`, None for no limit."""
        self._queue.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning(
                "tracking: %s: does not answer; the last writes are missing in MLflow, `--resume` adds them",
                self._store,
            )
        elif self._failures > 1:
            log.warning("tracking: %d writes failed in all", self._failures)

    def attempt(self, write: Write) -> None:
        """Call `write`, again while another process locks the SQLite store."""
        for _ in range(ATTEMPTS - 1):
            try:
                write()
            except Exception as error:
                if self._failures or "locked" not in str(error):
                    raise
                time.sleep(1)
            else:
                return
        write()

    def _run(self) -> None:
        while (write := self._next()) is not None:
            try:
                self.attempt(write)
            except Exception as error:  # of any kind: the sweep continues
                self._failures += 1
                if self._failures == 1:
                    log.warning(
                        "tracking: %s: could not write (%s); the sweep continues, but its log in "
                        "MLflow will be incomplete",
                        self._store,
                        without_password(f"{type(error).__name__}: {error}"),
                    )

    def _next(self) -> Write | None:
        """The next write; None when everything is written."""
        left = None if self.deliver_at is None else self.deliver_at - time.monotonic()
        if left is not None and left <= 0:
            return self._deliver
        try:
            write = self._queue.get(timeout=left)
        except queue.Empty:
            return self._deliver
        if write is None and self.deliver_at is not None:
            self._queue.put(None)
            return self._deliver
        return write
