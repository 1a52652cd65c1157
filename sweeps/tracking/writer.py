"""How runs are written: by calls of MLflow, or, for a database in a file, as the rows that MLflow itself would write.

A call of MLflow is several transactions of some milliseconds each. A file is written in one transaction a second for
all runs, which costs a tenth. Everything else is read and written by MLflow.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from sweeps.tracking.client import Metric, MlflowClient, Param, RunTag

NAME_TAG = "mlflow.runName"
"""Tag with the name of a run, which MLflow stores twice."""


class Value(NamedTuple):
    """One value of a metric."""

    key: str
    value: float
    when: int
    """Milliseconds since the epoch."""
    step: int


class RunWriter(Protocol):
    """Writes the runs of one experiment."""

    def create(self, tags: Mapping[str, str], started: int) -> str:
        """Create a run, which is named by its tag; returns its id."""

    def log(
        self,
        run_id: str,
        values: Sequence[Value] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write values, parameters that the run does not have, and tags."""

    def set_status(self, run_id: str, status: str, ended: int | None = None) -> None:
        """Set the status of a run; `ended`: milliseconds since the epoch."""

    def commit(self) -> None:
        """Write what is buffered."""


class ClientWriter:
    """Calls MLflow, whatever the store is; nothing is buffered."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id

    def create(self, tags: Mapping[str, str], started: int) -> str:
        run = self._client.create_run(
            self._experiment_id, start_time=started, tags=dict(tags), run_name=tags[NAME_TAG]
        )
        return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        values: Sequence[Value] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._client.log_batch(
            run_id,
            metrics=[Metric(*value) for value in values],
            params=[Param(*param) for param in (params or {}).items()],
            tags=[RunTag(*tag) for tag in (tags or {}).items()],
        )

    def set_status(self, run_id: str, status: str, ended: int | None = None) -> None:
        if ended is None:
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, ended)

    def commit(self) -> None:
        """Nothing is buffered."""


COLUMNS = {
    "runs": (
        "run_uuid name source_type source_name entry_point_name user_id status start_time end_time deleted_time "
        "source_version lifecycle_stage artifact_uri experiment_id"
    ),
    "tags": "key value run_uuid",
    "params": "key value run_uuid",
    "metrics": "key value timestamp step is_nan run_uuid",
    "latest_metrics": "key value timestamp step is_nan run_uuid",
}
"""Table -> its columns, as `SqliteWriter` knows them."""
RUN = """INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
    end_time, deleted_time, source_version, lifecycle_stage, artifact_uri, experiment_id)
    VALUES (?, ?, 'UNKNOWN', '', '', 'unknown', 'RUNNING', ?, NULL, NULL, '', 'active', ?, ?)"""
UPDATE = """UPDATE runs SET name = coalesce(?, name), status = coalesce(?, status), end_time = coalesce(?, end_time)
    WHERE run_uuid = ?"""
TAG = """INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)
    ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value"""
PARAM = """INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?)
    ON CONFLICT (key, run_uuid) DO NOTHING"""
VALUE = """INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)
    ON CONFLICT DO NOTHING"""
LATEST = """INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)
    ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value, timestamp = excluded.timestamp,
    step = excluded.step, is_nan = excluded.is_nan
    WHERE (excluded.step, excluded.timestamp, excluded.value)
    > (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)"""
LOCKED_SECONDS = 20
"""Time to wait for another process that writes to the database; MLflow waits as long."""


@dataclass
class Rows:
    """What is to be written of one run."""

    created: tuple[str, str, int, str, int] | None = None
    """Row of a new run: id, name, start, place of its artifacts, experiment."""
    name: str | None = None
    status: str | None = None
    ended: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)

    @property
    def is_changed(self) -> bool:
        """Whether the row of the run changes."""
        return (self.name, self.status, self.ended) != (None, None, None)

    def latest(self) -> Iterable[Value]:
        """The newest value of each metric, by step, then time, then size, as MLflow orders them."""
        found: dict[str, Value] = {}
        for value in self.values:
            known = found.get(value.key)
            if known is None or order(value) > order(known):
                found[value.key] = value
        return found.values()


def order(value: Value) -> tuple[int, int, float]:
    """Sort key: the newest value is the largest."""
    return value.step, value.when, value.value


class SqliteWriter:
    """Buffers rows of MLflow's database; `commit` writes them in one transaction.

    Args:
        path: of the database.
        experiment_id: of the runs.
        artifacts: URI of the experiment's artifacts.
    """

    def __init__(self, path: Path, experiment_id: str, artifacts: str) -> None:
        self._path = path
        self._experiment_id = int(experiment_id)
        self._artifacts = artifacts.rstrip("/")
        self._waiting: dict[str, Rows] = {}

    def create(self, tags: Mapping[str, str], started: int) -> str:
        run_id = uuid.uuid4().hex
        place = f"{self._artifacts}/{run_id}/artifacts"
        rows = self._rows(run_id)
        rows.created = (run_id, tags[NAME_TAG], started, place, self._experiment_id)
        rows.tags |= tags
        return run_id

    def log(
        self,
        run_id: str,
        values: Sequence[Value] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        rows = self._rows(run_id)
        rows.values += values
        rows.params |= {key: text for key, text in (params or {}).items() if key not in rows.params}
        rows.tags |= tags or {}
        rows.name = (tags or {}).get(NAME_TAG, rows.name)

    def set_status(self, run_id: str, status: str, ended: int | None = None) -> None:
        rows = self._rows(run_id)
        rows.status, rows.ended = status, ended or rows.ended

    def _rows(self, run_id: str) -> Rows:
        return self._waiting.setdefault(run_id, Rows())

    def commit(self) -> None:
        """Write everything or nothing.

        Raises:
            sqlite3.OperationalError: the database is locked, full or away; the next call tries again.
            sqlite3.Error: it refuses; what was buffered is lost.
        """
        if not self._waiting:
            return
        try:
            with transaction(self._path) as database:
                insert(database, self._waiting)
        except sqlite3.OperationalError:
            raise
        except sqlite3.Error:
            self._waiting = {}
            raise
        self._waiting = {}


def insert(database: sqlite3.Connection, waiting: Mapping[str, Rows]) -> None:
    """Write the rows of all runs, table by table."""
    rows = waiting.items()
    database.executemany(RUN, (r.created for _, r in rows if r.created))
    changes = ((r.name, r.status, r.ended, run) for run, r in rows if r.is_changed)
    database.executemany(UPDATE, changes)
    database.executemany(TAG, ((run, *tag) for run, r in rows for tag in r.tags.items()))
    database.executemany(PARAM, ((run, *param) for run, r in rows for param in r.params.items()))
    database.executemany(VALUE, ((run, *value) for run, r in rows for value in r.values))
    database.executemany(LATEST, ((run, *value) for run, r in rows for value in r.latest()))


@contextmanager
def transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction on an existing database; an error rolls it back."""
    address = f"{path.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(
        address, uri=True, timeout=LOCKED_SECONDS, isolation_level="IMMEDIATE"
    )
    with closing(connection), connection:
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection


def build_writer(client: MlflowClient, experiment_id: str, path: Path | None) -> RunWriter:
    """The writer of an experiment.

    Args:
        client: of the store.
        experiment_id: of the runs.
        path: of an SQLite database; None for any other store.
    """
    place = str(client.get_experiment(experiment_id).artifact_location)
    if path is not None and "?" not in place and is_known(path):
        return SqliteWriter(path, experiment_id, place)
    return ClientWriter(client, experiment_id)


def is_known(path: Path) -> bool:
    """Whether the tables of a database are those of the MLflow for which `SqliteWriter` was written."""
    try:
        with transaction(path) as database:
            found = {
                table: database.execute(
                    "SELECT name FROM pragma_table_info(?)", (table,)
                ).fetchall()
                for table in COLUMNS
            }
    except sqlite3.Error:
        return False
    return all(
        {*COLUMNS[table].split()} == {name for (name,) in rows} for table, rows in found.items()
    )
