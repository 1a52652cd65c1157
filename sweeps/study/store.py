"""Where an Optuna study lies: in a file of the sweep's folder, or in a database that sweeps share.

Both kinds offer the same: they are opened, mended, looked after while a sweep writes, and held by
one driver at a time.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Protocol

from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from sqlalchemy.exc import SQLAlchemyError

from sweeps.secrets import without_password
from sweeps.storage.folder import LOCK
from sweeps.study.journal import Journal

STUDY_NAME = "sweep"
"""Of a study in a file, which holds no other."""
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
        """Fit for a message."""

    def storage(self) -> BaseStorage:
        """Opened, and made where it is missing."""

    def is_there(self) -> bool:
        """Whether there is anything to read."""

    def mend(self) -> None:
        """Make it whole after a driver that was killed. Only while it is held."""

    def check(self) -> None:
        """Look whether what is written now is kept.

        Raises:
            OSError: it is not.
        """

    def held(self) -> AbstractContextManager[None]:
        """Keep the drivers on other machines from this study."""

    def is_held(self) -> bool:
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


def mend(path: Path) -> None:
    """Make a file whole that a process left in the middle of a write.

    A line that was cut off is removed, with it the lock that Optuna would wait for.
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
    """A study in a file of its own. From the first `check` on its content outlives its deletion."""

    name = STUDY_NAME

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    @property
    def place(self) -> str:
        """Its path."""
        return str(self.path)

    def storage(self) -> BaseStorage:
        """Opened, and made where it is missing."""
        return build_storage(self.path)

    def is_there(self) -> bool:
        """Whether the file is."""
        return self.path.is_file()

    def mend(self) -> None:
        """See `mend`."""
        mend(self.path)

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

    def held(self) -> AbstractContextManager[None]:
        """Nothing more than the lock of the sweep's folder, in which the file lies."""
        return nullcontext()

    def is_held(self) -> bool:
        """Whether a living process runs the sweep in the file's folder."""
        return is_locked(self.path.parent)
