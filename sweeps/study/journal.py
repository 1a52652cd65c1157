"""The file behind a study: every change is appended and on disk before the next is made."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend


class Journal(JournalFileBackend):
    """Optuna's, with changes that belong together written at once, and a memory that does not grow.

    A trial's report and its end are some four and ten changes; one by one each is a write that waits
    for the disk. A process that is killed in the middle of a write leaves the first of them, as before.
    """

    def __init__(self, file_path: str) -> None:
        super().__init__(file_path)
        self._waiting: list[dict[str, Any]] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold back what is written within, then write it at once; what is read is as it was before.

        Raises:
            OSError: the file cannot be written.
        """
        self._waiting = []
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            if waiting:
                super().append_logs(waiting)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write, or hold back."""
        if self._waiting is None:
            super().append_logs(logs)
        else:
            self._waiting += logs

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The changes from that number on."""
        yield from super().read_logs(log_number_from)
        # Optuna remembers where every line begins; only what comes after the last is read again
        newest = max(self._log_number_offset)
        self._log_number_offset = {0: 0, newest: self._log_number_offset[newest]}


@contextmanager
def together(study: optuna.Study) -> Iterator[None]:
    """`Journal.together` for the changes of a study; nothing where it is kept elsewhere."""
    journal = getattr(study._storage, "_backend", None)
    if isinstance(journal, Journal):
        with journal.together():
            yield
    else:
        yield
