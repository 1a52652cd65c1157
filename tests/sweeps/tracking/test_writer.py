"""Rows written into MLflow's database, beside those that MLflow itself writes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweeps.tracking.store import open_experiment
from sweeps.tracking.writer import (
    NAME_TAG,
    ClientWriter,
    RunWriter,
    SqliteWriter,
    Value,
    build_writer,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: making it takes seconds."""
    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    open_experiment(f"sqlite:///{path}", "first")
    return path


def writer_of(kind: type[RunWriter], path: Path, experiment: str) -> RunWriter:
    client, experiment_id = open_experiment(f"sqlite:///{path}", experiment)
    if kind is ClientWriter:
        return ClientWriter(client, experiment_id)
    writer = build_writer(client, experiment_id, path)
    assert isinstance(writer, SqliteWriter)
    return writer


def write_a_run(writer: RunWriter, commit_each: bool) -> str:
    """Everything that happens to a run; values repeat, come late, and are of one step."""
    run_id = writer.create({NAME_TAG: "a", "state": "running", "sweep.id": "7"}, 1000)
    later = [
        lambda: writer.log(run_id, [], {"lr": "0.1", "note": "x" * 5000, "none": "null"}),
        lambda: writer.log(run_id, [Value("loss", 2.0, 1001, 1), Value("loss", 1.5, 1001, 2)]),
        lambda: writer.log(run_id, [Value("loss", 2.0, 1001, 1), Value("loss", 1.25, 1002, 2)]),
        lambda: writer.log(run_id, [Value("loss", 9.0, 1003, 1), Value("AP", 0.0, 1003, 0)]),
        lambda: writer.log(run_id, [Value("AP", -1e300, 1003, 0), Value("AP", 0.5, 1003, 0)]),
        lambda: writer.log(run_id, tags={"state": "paused", "reason": "★ at epoch 2"}),
        lambda: writer.set_status(run_id, "SCHEDULED", 1004),
        lambda: writer.set_status(run_id, "RUNNING"),
        lambda: writer.log(run_id, [Value("loss", 0.5, 1005, 3)], tags={"reason": ""}),
        lambda: writer.log(run_id, tags={"state": "completed", NAME_TAG: "a · 0.5000"}),
        lambda: writer.set_status(run_id, "FINISHED", 1006),
    ]
    for call in later:
        if commit_each:
            writer.commit()
        call()
    writer.commit()
    return run_id


def rows_of(path: Path, run_id: str) -> dict[str, list[dict[str, object]]]:
    """Table -> the rows of a run, for every table that has runs; without the ids."""
    found = {}
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for table in tables:
            columns = [c["name"] for c in connection.execute(f"PRAGMA table_info({table})")]
            if "run_uuid" not in columns:
                continue
            rows = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,))
            found[table] = sorted(
                (described(dict(row), run_id) for row in rows),
                key=lambda row: str(sorted(row.items())),
            )
    return found


def described(row: dict[str, object], run_id: str) -> dict[str, object]:
    """A row with the type of each value; ids are replaced by what they stand for."""
    row["run_uuid"] = "of the run"
    if "artifact_uri" in row:
        folder = f"/{run_id}/artifacts"
        row["artifact_uri"] = str(row["artifact_uri"]).endswith(folder) and "in a folder of its own"
        row["experiment_id"] = type(row["experiment_id"])
    return {key: (type(value), value) for key, value in row.items()}


@pytest.mark.parametrize("commit_each", [False, True], ids=["one transaction", "one for each call"])
def test_rows_are_those_that_mlflow_writes(database, commit_each):
    name = f"compared {commit_each}"
    own = write_a_run(writer_of(SqliteWriter, database, f"{name} rows"), commit_each)
    mlflows = write_a_run(writer_of(ClientWriter, database, f"{name} calls"), commit_each)
    expected, written = rows_of(database, mlflows), rows_of(database, own)
    assert sum(map(len, expected.values())) > 15
    assert written == expected


def test_mlflow_reads_what_was_written(database):
    run_id = write_a_run(writer_of(SqliteWriter, database, "read"), commit_each=False)
    run = MlflowClient(f"sqlite:///{database}").get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("a · 0.5000", "FINISHED")
    assert (run.data.metrics["loss"], run.data.params["none"]) == (0.5, "null")
    assert run.info.artifact_uri.endswith(f"read/{run_id}/artifacts")


def test_nothing_of_a_transaction_that_failed_is_there_and_everything_after_the_next(database):
    writer = writer_of(SqliteWriter, database, "locked")
    run_id = writer.create({NAME_TAG: "a"}, 1000)
    writer.log(run_id, [Value("loss", 1.0, 1000, 1)])
    away = database.rename(database.with_name("away.db"))
    with pytest.raises(sqlite3.OperationalError):
        writer.commit()
    assert not database.exists()
    away.rename(database)
    writer.log(run_id, [Value("loss", 0.5, 1001, 2)])
    writer.commit()
    history = MlflowClient(f"sqlite:///{database}").get_metric_history(run_id, "loss")
    assert [metric.value for metric in history] == [1.0, 0.5]


def test_database_of_another_mlflow_is_written_by_mlflow(database, tmp_path):
    other = tmp_path / "other.db"
    other.write_bytes(database.read_bytes())
    with sqlite3.connect(other) as connection:
        connection.execute("ALTER TABLE metrics ADD COLUMN unit TEXT")
    client, experiment_id = open_experiment(f"sqlite:///{database}", "first")
    assert isinstance(build_writer(client, experiment_id, database), SqliteWriter)
    assert isinstance(build_writer(client, experiment_id, other), ClientWriter)
    assert isinstance(build_writer(client, experiment_id, None), ClientWriter)
