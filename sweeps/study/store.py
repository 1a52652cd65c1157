"""Where an Optuna study is stored: in a journal file of the sweep's folder, or in a shared database.

Both implement `StudyStore`: they are opened, repaired, checked while a sweep writes, and locked by one
driver at a time. The database is in `sweeps.study.database`.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from fsdet.files import atomic_path, open_regular
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.storage.folder import CURE_OF_DAMAGE, is_locked
from sweeps.study.internals import backend_of, drop_line_offsets

UNNAMED = "sweep"
"""Name of every sweep's study in files of earlier versions; other studies in them have names without a prefix."""
BESIDE = "/"
"""Between the name of a sweep, which has none of these, and that of another study in its file."""
SYNC_SECONDS = 1.0
"""Time between two waits for the disk while many trials report."""
DATABASE_LOST = (SQLAlchemyError, StorageInternalError)
"""Raised when a database does not answer, or refuses."""
LOST = (OSError, *DATABASE_LOST)
"""Raised when a study can no longer be read or written."""


CUT_OFF = re.compile(rb'^[^\n]+(?=\{"op_code")', re.MULTILINE)
"""Part of a line before a whole one: what was written of it when the disk was full."""


class StudyStore(Protocol):
    """A place for one study."""

    @property
    def name(self) -> str:
        """Name of the study."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""

    def storage(self) -> BaseStorage:
        """Optuna's storage, created where it is missing."""

    def exists(self) -> bool:
        """Whether there is anything to read."""

    def repair(self) -> None:
        """Repair what a killed driver left half written. The caller holds the lock."""

    def check(self) -> None:
        """Check that the study can be written.

        Raises:
            OSError: it cannot: changes would be lost.
        """

    def locked(self) -> AbstractContextManager[None]:
        """Lock the study against drivers on other machines."""

    def beside(self, name: str) -> StudyStore:
        """A further study of the same sweep, in the same file or database."""

    def is_locked(self) -> bool:
        """Whether a running driver uses it."""


def reason_of(error: BaseException) -> str:
    """Why a store cannot be used, as one line without secrets."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    cause = getattr(error, "orig", None) or error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return without_password(text.strip().splitlines()[0])


def build_storage(path: Path) -> BaseStorage:
    """Optuna's storage in the file `path`. Every change is appended, so that it survives a killed process."""
    return JournalStorage(Journal(str(path)))


def repair(path: Path) -> None:
    """Repair a file that a process left in the middle of a write.

    Removes a line that was cut off, also if others follow it, and the lock that Optuna would wait for.
    """
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if not path.is_file():
        return
    with path.open("rb+") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            file.truncate(end)
    whole = CUT_OFF.sub(b"", data[:end])
    if len(whole) < end:
        with atomic_path(path) as part:
            part.write_bytes(whole)


def study_name_in(path: Path) -> str:
    """Name of the sweep's own study in the journal file `path`.

    It is that of the sweep's folder, which may have been renamed since; so the first line of the file says it.
    """
    try:
        with open_regular(path) as file:
            return str(json.loads(file.readline())["study_name"]).partition(BESIDE)[0]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or its first line was cut off
        return path.absolute().parent.name


class JournalStore:
    """A study in a journal file. After the first `check`, a deleted file is restored by the next one.

    Args:
        path: of the file, in the folder of the sweep.
        name: of the study; None for the sweep's own one.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = name or study_name_in(path)
        self._file: IO[bytes] | None = None

    @property
    def place(self) -> str:
        """Its path."""
        return str(self.path)

    def storage(self) -> BaseStorage:
        """Optuna's storage, created where it is missing.

        Raises:
            SweepError: something else than a file is there.
        """
        if os.path.lexists(self.path) and not self.path.is_file():
            raise SweepError(f"{self.path}: the study is not a regular file; {CURE_OF_DAMAGE}")
        return build_storage(self.path)

    def exists(self) -> bool:
        """Whether the file exists."""
        return self.path.is_file()

    def repair(self) -> None:
        """See the function `repair`."""
        repair(self.path)

    def check(self) -> None:
        """Check that the file is still the one that was opened; restore it if it was deleted.

        Raises:
            OSError: it was deleted or replaced: Optuna would lose every further change.
        """
        if self._file is None:
            self._file = self.path.open("rb")
        try:
            if self.path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                return
        except FileNotFoundError:
            self._file.seek(0)
            with atomic_path(self.path) as part, self._file as deleted:
                part.write_bytes(deleted.read())
            self._file = self.path.open("rb")
            raise OSError("it was deleted, and has been restored") from None
        raise OSError("it was replaced by another file")

    def locked(self) -> AbstractContextManager[None]:
        """No lock of its own: the lock of the sweep's folder covers the file."""
        return nullcontext()

    def beside(self, name: str) -> JournalStore:
        """Another study in the same file."""
        own = self.name != UNNAMED
        return JournalStore(self.path, f"{self.name}{BESIDE}{name}" if own else name)

    def is_locked(self) -> bool:
        """Whether a running process holds the lock of the file's folder."""
        return is_locked(self.path.parent)


class Journal(JournalFileBackend):
    """Optuna's journal file with batched writes and constant memory.

    A report of a trial is about four changes, its end about ten; unbatched, each is a write that waits
    for the disk. A process that is killed in the middle of a write leaves the first of them, as before.
    Optuna's lock around each write is left out: the sweep's folder is locked as long as its driver writes.
    """

    def __init__(self, file_path: str) -> None:
        super().__init__(file_path)
        self._path = Path(file_path)
        self._synced = -math.inf
        """Monotonic time at which the disk had everything."""
        self._waiting: list[dict[str, Any]] | None = None

    @contextmanager
    def batched(self, durable: bool = True) -> Iterator[None]:
        """Buffer the changes made within, then write them at once; until then reads do not see them.

        Args:
            durable: whether to wait for the disk in any case. If not, the disk is waited for once in `SYNC_SECONDS`: a
                process that is killed loses nothing, a machine that loses its power may lose the changes in between.

        Raises:
            OSError: the file cannot be written.
        """
        self._waiting = []
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            if waiting:
                self._append(waiting, durable)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write the changes, or buffer them within `batched`."""
        if self._waiting is None:
            self._append(logs, durable=True)
        else:
            self._waiting += logs

    def _append(self, logs: list[dict[str, Any]], durable: bool) -> None:
        """Append the changes to the file."""
        lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._path.open("ab", buffering=0) as file:
            write_all(file, "".join(lines).encode())
            if durable or time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The changes from that number on; none within `batched`."""
        if self._waiting is None:
            yield from super().read_logs(log_number_from)
            drop_line_offsets(self)  # only lines after the last one are read again


def write_all(file: io.FileIO, data: bytes) -> None:
    """Append to a file without a buffer: all of `data`, or nothing if there is no room.

    Raises:
        OSError: the file cannot be written; it is as before.
    """
    before = file.seek(0, os.SEEK_END)
    try:
        while data:
            data = data[file.write(data) :]
    except OSError:
        file.truncate(before)
        raise


@contextmanager
def batched(study: optuna.Study, durable: bool = True) -> Iterator[None]:
    """`Journal.batched` for the changes of a study; no effect for a study in a database."""
    journal = backend_of(study)
    if isinstance(journal, Journal):
        with journal.batched(durable):
            yield
    else:
        yield
