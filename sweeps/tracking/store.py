"""The MLflow store: finds, opens, creates and searches it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
import sqlalchemy
from filelock import FileLock
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from sweeps.config.sections import TrackingSpec
from sweeps.errors import SweepError
from sweeps.secrets import full_url, without_password
from sweeps.tracking.client import MlflowClient, MlflowException

STUDY_TAG = "sweep.study"
"""Tag of a parent run: where the study is, without a secret."""
WINNER_TAG = "sweep.winner"
"""Tag of the best trial's run."""


def tracking_uri(spec: TrackingSpec) -> str:
    """The store of the YAML, of MLFLOW_TRACKING_URI, or `mlruns/mlflow.db` as an absolute path."""
    uri = spec.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or sqlite_uri((Path.cwd() / "mlruns" / "mlflow.db").resolve())


def sqlite_uri(database: Path) -> str:
    """The URI of an SQLite store, with `?`, `%` and the like in its path quoted."""
    plain = f"sqlite:///{database}"
    if sqlite_file(plain) == database:
        return plain
    # from `sqlite:///`, MLflow would create the folder of the quoted path too, beside the real one
    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string()


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other store."""
    try:
        url = make_url(uri)
    except ArgumentError:  # the path of a folder
        return None
    named = url.get_backend_name() == "sqlite" and url.database
    return Path(named) if named else None


def recorded_uri(recorded: str | None, spec: TrackingSpec, name: str) -> str:
    """The store that the sweep `name` was logged to.

    Args:
        recorded: its recorded address, without a secret; None if none was recorded.
        spec: of the sweep, without a secret.
        name: of the sweep.

    Raises:
        SweepError: its address had a secret, and MLFLOW_TRACKING_URI does not hold it.
    """
    if recorded is None:
        return tracking_uri(spec)
    return full_url(recorded, "MLFLOW_TRACKING_URI", f"sweep {name}: its tracking store")


def open_experiment(uri: str, name: str) -> tuple[MlflowClient, str]:
    """A client and the experiment's id; store and experiment are created if they are missing.

    Raises:
        SweepError: the store cannot be opened.
    """
    database = sqlite_file(uri)
    location = None
    try:
        if database is not None:
            folder = database.resolve().parent
            folder.mkdir(parents=True, exist_ok=True)
            location = (folder / "artifacts" / name).as_uri()
        check_reachable(uri)
        with exclusive(database):
            if database is not None and not database.exists():
                make_database(database)
            client = MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(name)
            if found is not None:
                return client, str(found.experiment_id)
            return client, str(client.create_experiment(name, artifact_location=location))
    except Exception as error:  # MLflow lets errors of its database and HTTP layers through
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SweepError(
            f"tracking.uri: {without_password(uri)}: cannot be opened "
            f"({without_password(reason)}); correct it, or remove it to log to mlruns/mlflow.db"
        ) from None


@contextmanager
def exclusive(database: Path | None) -> Iterator[None]:
    """Lock out other sweeps while an SQLite store is created: two of them would damage it."""
    if database is None:
        yield
        return
    with FileLock(f"{database}.lock", timeout=120):
        yield


def make_database(path: Path) -> None:
    """Create an SQLite store atomically: MLflow cannot repair one whose creation was interrupted."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    MlflowClient(tracking_uri=sqlite_uri(part)).search_experiments(max_results=1)
    part.replace(path)


@dataclass(frozen=True)
class StoredRun:
    """A run in the store."""

    run_id: str
    running: bool
    paused: bool = False
    study: str | None = None
    """Where the study is, without a secret; of a sweep's parent run."""


def runs_of(client: MlflowClient, experiment_id: str, sweep_id: str) -> dict[str, StoredRun]:
    """Tag `sweep.trial`, or the empty string for the parent -> run of the sweep `sweep_id`.

    Raises:
        MlflowException: the store does not answer.
    """
    found: dict[str, StoredRun] = {}
    token: str | None = None
    while token is None or token:
        page = client.search_runs(
            [experiment_id], f"tags.`sweep.id` = '{sweep_id}'", page_token=token
        )
        for run in page:
            tags, status = run.data.tags, run.info.status
            found[tags.get("sweep.trial", "")] = StoredRun(
                run_id=run.info.run_id,
                running=status == "RUNNING",
                paused=status == "SCHEDULED",
                study=tags.get(STUDY_TAG),
            )
        token = page.token or ""
    return found


def run_with_tags(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> str | None:
    """Id of the run of a trial or sweep with the ids in `tags`; None if it does not exist."""
    keys = [key for key in ("sweep.id", "sweep.trial") if key in tags]
    if not keys:
        return None
    condition = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in keys)
    found = client.search_runs([experiment_id], condition)
    # a parent has the id of its sweep, too
    exact = [run for run in found if ("sweep.trial" in run.data.tags) == ("sweep.trial" in tags)]
    return str(exact[0].info.run_id) if exact else None


def find_run(uri: str, run_id: str) -> dict[str, str]:
    """Tags of a run.

    Raises:
        SweepError: the store has no such run.
    """
    try:
        return dict(MlflowClient(tracking_uri=uri).get_run(run_id).data.tags)
    except MlflowException:
        raise SweepError(
            f"{run_id}: neither a sweep in mlruns/sweeps nor a run of {without_password(uri)}; "
            "`make ui` shows the runs"
        ) from None


def find_trial_run(uri: str, parent_run_id: str, key: str) -> str | None:
    """Id of the run whose tag `sweep.trial` is `key`; None if it does not exist."""
    client = MlflowClient(tracking_uri=uri)
    try:
        parent = client.get_run(parent_run_id)
        runs = client.search_runs(
            [parent.info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent_run_id}' and tags.`sweep.trial` = '{key}'",
            max_results=1,
        )
    except MlflowException:
        return None
    return runs[0].info.run_id if runs else None


REACH_SECONDS = 10
"""Seconds to wait for a server to answer."""


def check_reachable(uri: str) -> None:
    """Check that a server at `uri` answers; MLflow itself would retry for minutes. Files need no check.

    Raises:
        Exception: of the library that could not reach it.
    """
    if uri.startswith(("http://", "https://")):
        requests.head(uri, timeout=REACH_SECONDS)
    elif uri.startswith("postgresql"):
        options = {"connect_timeout": REACH_SECONDS}
        engine = sqlalchemy.create_engine(make_url(uri), poolclass=NullPool, connect_args=options)
        engine.connect().close()
