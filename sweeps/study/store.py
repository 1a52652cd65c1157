"""Where an Optuna study is stored: in a journal file of the sweep's folder, or in a shared database.

Both kinds offer the same: they are opened, repaired, checked while a sweep writes, and held by one
driver at a time. The database is in `sweeps.study.database`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from sweeps.secrets import without_password
from sweeps.storage.folder import LOCK

STUDY_NAME = "sweep"
"""Of a sweep's own study in a journal file."""
DATABASE_LOST = (SQLAlchemyError, StorageInternalError)
"""What is raised where a database does not answer, or refuses."""
LOST = (OSError, *DATABASE_LOST)
"""What is raised where a study cannot be read or written any more."""


class StudyStore(Protocol):
    """A place for one study."""

    @property
    def name(self) -> str:
        """Of the study."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""

    def storage(self) -> BaseStorage:
        """Optuna's storage, created where it is missing."""

    def exists(self) -> bool:
        """Whether there is anything to read."""

    def repair(self) -> None:
        """Repair what a killed driver left half written. Only while it is held."""

    def check(self) -> None:
        """Check that what is written now is kept.

        Raises:
            OSError: it is not.
        """

    def locked(self) -> AbstractContextManager[None]:
        """Keep the drivers on other machines from this study."""

    def beside(self, name: str) -> StudyStore:
        """A further study of the same sweep, in the same file or database."""

    def is_locked(self) -> bool:
        """Whether a living driver works on it."""


def reason_of(error: BaseException) -> str:
    """Why a store is lost, in a line and without secrets."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    told = getattr(error, "orig", None) or error
    text = getattr(told, "strerror", None) or str(told) or type(told).__name__
    return without_password(text.strip().splitlines()[0])


def build_storage(path: Path) -> BaseStorage:
    """The store in the file `path`. Every change is appended, so that it survives a killed process."""
    return JournalStorage(Journal(str(path)))


def repair(path: Path) -> None:
    """Repair a file that a process left in the middle of a write.

    Removes a line that was cut off, and the lock that Optuna would wait for.
    """
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if not path.is_file():
        return
    with path.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


def is_locked(folder: Path) -> bool:
    """Whether a living process runs the sweep in `folder`."""
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that may only be read: nobody here runs it
        return False


class JournalStore:
    """A study in a journal file. From the first `check` on its content outlives its deletion."""

    def __init__(self, path: Path, name: str = STUDY_NAME) -> None:
        self.path = path
        self.name = name
        self._file: IO[bytes] | None = None

    @property
    def place(self) -> str:
        """Its path."""
        return str(self.path)

    def storage(self) -> BaseStorage:
        """Optuna's storage, created where it is missing."""
        return build_storage(self.path)

    def exists(self) -> bool:
        """Whether the file is."""
        return self.path.is_file()

    def repair(self) -> None:
        """See `repair`."""
        repair(self.path)

    def check(self) -> None:
        """Raise if the file is not in its place any more; write it back if that was empty.

        Raises:
            OSError: it was deleted or replaced. Optuna would lose all that comes.
        """
        if self._file is None:
            self._file = self.path.open("rb")
        try:
            if self.path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                return
        except FileNotFoundError:
            self._file.seek(0)
            self.path.write_bytes(self._file.read())
            self._file = self.path.open("rb")
            raise OSError("it was deleted, and is written back") from None
        raise OSError("another file has taken its place")

    def locked(self) -> AbstractContextManager[None]:
        """Nothing more than the lock of the sweep's folder, in which the file lies."""
        return nullcontext()

    def beside(self, name: str) -> JournalStore:
        """Another study in the same file."""
        return JournalStore(self.path, name)

    def is_locked(self) -> bool:
        """Whether a living process runs the sweep in the file's folder."""
        return is_locked(self.path.parent)


class Journal(JournalFileBackend):
    """Optuna's journal file, with changes that belong together written at once, and a memory that does not grow.

    A trial's report and its end are some four and ten changes; one by one each is a write that waits
    for the disk. A process that is killed in the middle of a write leaves the first of them, as before.
    """

    def __init__(self, file_path: str) -> None:
        super().__init__(file_path)
        self._waiting: list[dict[str, Any]] | None = None

    @contextmanager
    def batched(self) -> Iterator[None]:
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
def batched(study: optuna.Study) -> Iterator[None]:
    """`Journal.batched` for the changes of a study; nothing where it is kept elsewhere."""
    journal = getattr(study._storage, "_backend", None)
    if isinstance(journal, Journal):
        with journal.batched():
            yield
    else:
        yield
