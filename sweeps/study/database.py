"""A study in a database, shared with the studies of other sweeps and other people.

If the database is unreachable for a short time, opening a connection waits for it: a change is one
transaction that begins with a working connection, so nothing is written twice. A change whose connection
breaks is rolled back and ends the session; `--resume` continues it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError

from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.storage.folder import is_locked
from sweeps.study.store import DATABASE_LOST, LOST, reason_of

WAIT_SECONDS = 30.0
"""Seconds to wait for an unreachable database."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0
"""Seconds between two attempts; each pause is twice the one before."""
HELD = sqlalchemy.text(
    "select exists(select from pg_locks join pg_database d on d.oid = database where d.datname = current_database()"
    " and locktype = 'advisory' and granted and objsubid = 1"
    " and (classid::bigint << 32) | objid::bigint = :key)"
)
"""Whether any session holds an advisory lock of 64 bits in this database; it takes none."""
CONNECT_SECONDS = 10
"""Seconds to wait for a server to answer."""


class DatabaseStore:
    """The study `name` in the database at `url`; it is opened at the first use.

    Args:
        url: of SQLAlchemy, with its password.
        name: of the study; unique in the database.
        folder: of the sweep, on this machine; a driver on this machine holds its lock.
    """

    def __init__(self, url: str, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._url = url
        self._storage: RDBStorage | None = None
        self._lost = False

    @property
    def place(self) -> str:
        """Its URL without the password."""
        return without_password(self._url)

    def storage(self) -> BaseStorage:
        """Optuna's storage, opened at the first call; tables are created if they are missing.

        Raises:
            SweepError: it cannot be opened.
        """
        if self._storage is None:
            try:
                self._storage = self._open()
            except (*LOST, ImportError, RuntimeError) as error:
                raise self._error(error) from None
        return self._storage

    def _open(self) -> RDBStorage:
        postgres = make_url(self._url).get_backend_name() == "postgresql"
        timeout = {"connect_timeout": CONNECT_SECONDS} if postgres else {}
        options: dict[str, Any] = {"pool_pre_ping": True, "connect_args": timeout}
        try:
            storage = RDBStorage(self._url, engine_kwargs=options)
        except (IntegrityError, ProgrammingError):  # another driver made the tables just now
            storage = RDBStorage(self._url, engine_kwargs=options)
        sqlalchemy.event.listen(storage.engine, "do_connect", self._connect)
        return storage

    def _error(self, error: BaseException) -> SweepError:
        reason = reason_of(error)
        if isinstance(error, ImportError):
            reason = "its driver is not installed: pip install 'fsdet-sweeps[postgresql]'"
        elif isinstance(error, RuntimeError):  # both have a table `alembic_version`
            reason += "; if MLflow uses this database too, give Optuna one of its own"
        return SweepError(
            f"storage.study: {self.place}: cannot be used ({reason}); correct it, or remove it to "
            "keep the study in a file"
        )

    def _connect(self, dialect: Any, _: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        """Connect, retrying with growing pauses; after a first failure of all retries without any."""
        pause, end = FIRST_PAUSE, time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError:
                if self._lost or time.monotonic() + pause > end:
                    self._lost = True
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    @property
    def _engine(self) -> Engine:
        storage = self.storage()
        assert isinstance(storage, RDBStorage)
        return storage.engine

    def exists(self) -> bool:
        """Whether the database holds the study.

        Raises:
            SweepError: it cannot be opened.
        """
        try:
            self.storage().get_study_id_from_name(self.name)
        except KeyError:
            return False
        return True

    def repair(self) -> None:
        """Nothing to do: the database has rolled back incomplete changes."""

    def check(self) -> None:
        """Check that the database has not been lost.

        Raises:
            OSError: it did not answer within `WAIT_SECONDS`.
        """
        if self._lost:
            raise OSError("the database does not answer")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the study against drivers on other machines, if the database is PostgreSQL.

        Raises:
            SweepError: another driver holds the lock, or the database is lost meanwhile.
        """
        try:
            with self._lock() as free:
                if not free:
                    raise SweepError(
                        f"study {self.name} in {self.place} is being written by another driver; wait "
                        "for its end, stop it, or start a second sweep with --name"
                    )
                yield
        except DATABASE_LOST as error:
            raise self._error(error) from None

    def beside(self, name: str) -> DatabaseStore:
        """Another study in the same database."""
        return DatabaseStore(self._url, f"{self.name}.{name}", self._folder)

    def is_locked(self) -> bool:
        """Whether a running driver uses it; one on another machine is detected with PostgreSQL only."""
        if is_locked(self._folder):
            return True
        if self._engine.dialect.name != "postgresql":
            return False
        with self._engine.connect() as connection:
            return bool(connection.execute(HELD, {"key": self._key}).scalar())

    @property
    def _key(self) -> int:
        """Of the advisory lock: 64 bits."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], signed=True)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Hold an advisory lock, which the server releases when the process dies; yields whether it was free."""
        if self._engine.dialect.name != "postgresql":
            yield True
            return
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            found = connection.execute(
                sqlalchemy.select(sqlalchemy.func.pg_try_advisory_lock(self._key))
            )
            yield bool(found.scalar())
        finally:
            connection.invalidate()  # not only returned to the pool: closing it releases the lock
            connection.close()
