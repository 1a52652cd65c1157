"""The only file that knows MLflow: a parent run per sweep, a nested run per trial.

One writer, in the driver: trials write nothing. Its calls are queued and made by one thread in
batches, so that a slow server never holds up a trial. What goes wrong while writing is told once,
as a warning, and never ends the sweep; a store that cannot be opened at the start does.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.errors import SweepError
from sweeps.spec import TrackingSpec
from sweeps.states import Outcome, State

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

log = logging.getLogger(__name__)
for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)

METRICS_PER_CALL, PARAMS_PER_CALL = 1000, 100
"""Limits of MLflow's `log_batch`."""
VALUE_LENGTH = 5000
"""Longest text kept of a tag or a parameter, characters; MLflow's own limit is 6000 or more."""
STATUS = {
    State.COMPLETED: "FINISHED",
    State.PRUNED: "FINISHED",
    State.INFEASIBLE: "FINISHED",
    State.FAILED: "FAILED",
    State.INTERRUPTED: "KILLED",
}
"""State of a trial -> status of its run; the tag `state` tells the first three apart."""


def tracking_uri(spec: TrackingSpec) -> str:
    """Store named in the YAML, else by MLFLOW_TRACKING_URI, else `mlruns/mlflow.db`, absolute."""
    uri = spec.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or f"sqlite:///{(Path.cwd() / 'mlruns' / 'mlflow.db').resolve()}"


def without_password(uri: str) -> str:
    """`uri` fit for a message."""
    return re.sub(r"//[^/@]*@", "//…@", uri)


def open_experiment(uri: str, name: str) -> tuple[MlflowClient, str]:
    """A client and the experiment's id; store and experiment are made where they are missing.

    Raises:
        SweepError: the store cannot be opened.
    """
    database = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None
    location = None
    if database is not None:
        folder = Path(database).resolve().parent
        folder.mkdir(parents=True, exist_ok=True)
        location = (folder / "artifacts" / name).as_uri()
    try:
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


class Tracker:
    """Writes runs of one experiment, in the order of the calls, from a thread of its own.

    Every method but `close` returns at once.

    Raises:
        SweepError: at construction, if the store cannot be opened.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self._client, self._experiment_id = open_experiment(uri, experiment)
        self._runs: dict[str, str] = {}
        self._last_step: dict[str, int] = {}
        self._broken: dict[str, int] = {}
        self._failures = 0
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="tracking", daemon=True)
        self._thread.start()

    def start(
        self,
        key: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, Any],
        parent: str | None = None,
    ) -> None:
        """Begin a run.

        Args:
            key: by which later calls name it.
            name: shown in the UI.
            parameters: of the run.
            tags: of the run.
            parent: key of the run that this one belongs to.
        """
        started = now()

        def write() -> None:
            all_tags = {k: str(v)[:VALUE_LENGTH] for k, v in tags.items() if v is not None}
            if parent is not None:
                all_tags["mlflow.parentRunId"] = self._runs[parent]
            run = self._client.create_run(
                self._experiment_id, start_time=started, tags=all_tags, run_name=name
            )
            self._runs[key] = run.info.run_id
            for part in batches(to_params(parameters), PARAMS_PER_CALL):
                self._client.log_batch(run.info.run_id, params=part)

        self._queue.put(write)

    def log(self, key: str, report: Mapping[str, Any]) -> None:
        """Write the metrics of a report and every step since the last one.

        Steps that were written before, by a worker that was lost, are left out. A value that is
        not finite is left out too, since no store and no chart can hold it; `grad/nonfinite`
        counts such norms.
        """
        when = now()

        def write() -> None:
            last = self._last_step.get(key, 0)
            metrics = evaluation_metrics(report, when)
            history, broken = step_metrics(report.get("history") or {}, last, when)
            if broken:
                self._broken[key] = self._broken.get(key, 0) + broken
                metrics.append(
                    Metric("grad/nonfinite", self._broken[key], when, int(report["step"]))
                )
            self._last_step[key] = max(last, int(report["step"]))
            for part in batches(history + metrics, METRICS_PER_CALL):
                self._client.log_batch(self._runs[key], metrics=part)

        self._queue.put(write)

    def end(
        self,
        key: str,
        outcome: Outcome,
        files: Iterable[Path] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Close a run with its state, the reason and those of its files that exist."""
        when = now()

        def write() -> None:
            run_id = self._runs[key]
            tags = {"state": str(outcome.state), "reason": outcome.reason}
            self._client.log_batch(
                run_id,
                metrics=[Metric(k, v, when, 0) for k, v in (metrics or {}).items()],
                tags=[RunTag(k, v[:VALUE_LENGTH]) for k, v in tags.items() if v],
            )
            try:
                for file in files:
                    if file.is_file():
                        self._client.log_artifact(run_id, str(file))
            finally:  # a run must not stay open because a file could not be copied
                self._client.set_terminated(run_id, STATUS[outcome.state], when)

        self._queue.put(write)

    def run_id(self, key: str) -> str | None:
        """MLflow's id of a run; None while it is not written."""
        return self._runs.get(key)

    def close(self) -> None:
        """Write what is queued, then stop."""
        self._queue.put(None)
        self._thread.join()
        if self._failures > 1:
            log.warning("tracking: %d writes failed in all", self._failures)

    def _write(self) -> None:
        while (write := self._queue.get()) is not None:
            try:
                write()
            except Exception as error:  # whatever it is, the sweep goes on
                self._failures += 1
                if self._failures == 1:
                    log.warning(
                        "tracking: %s: could not write (%s); the sweep goes on, but MLflow "
                        "will lack some of it",
                        without_password(self.uri),
                        without_password(f"{type(error).__name__}: {error}"),
                    )


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


def batches(items: list[Any], size: int) -> Iterable[list[Any]]:
    """`items` in pieces of at most `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))


def to_params(parameters: Mapping[str, Any]) -> list[Param]:
    """MLflow parameters; None stands as `null`, as in the YAML."""
    return [
        Param(key, "null" if value is None else str(value)[:VALUE_LENGTH])
        for key, value in parameters.items()
    ]


def evaluation_metrics(report: Mapping[str, Any], when: int) -> list[Metric]:
    """The metrics of one report, at its step."""
    values = {**report.get("metrics", {}), "epoch": report.get("epoch", 0)}
    if "peak_norm" in report:
        values["grad/peak_norm"] = report["peak_norm"]
    step = int(report["step"])
    return [Metric(k, float(v), when, step) for k, v in values.items() if math.isfinite(v)]


def step_metrics(
    history: Mapping[str, np.ndarray], last: int, when: int
) -> tuple[list[Metric], int]:
    """Every finite value of the steps after `last`, and how many gradient norms were not finite.

    Args:
        history: (steps,) float64 per metric, with the optimiser step under `step`.
        last: step written last.
        when: milliseconds since the epoch.
    """
    steps = history.get("step", np.empty(0))
    new = steps > last
    metrics = [
        Metric(key, float(value), when, int(step))
        for key, values in history.items()
        if key != "step"
        for step, value in zip(steps[new], values[new], strict=True)
        if math.isfinite(value)
    ]
    norms = history.get("grad/norm", steps)[new]
    return metrics, int(np.count_nonzero(~np.isfinite(norms)))


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


def find_trial_run(uri: str, parent_run_id: str, number: int) -> str | None:
    """Id of the run of trial `number`; None if it is not there."""
    client = MlflowClient(tracking_uri=uri)
    try:
        parent = client.get_run(parent_run_id)
        runs = client.search_runs(
            [parent.info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent_run_id}' and tags.`sweep.trial` = '{number}'",
            max_results=1,
        )
    except MlflowException:
        return None
    return runs[0].info.run_id if runs else None
