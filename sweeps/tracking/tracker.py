"""`Tracker`: writes runs from a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.states import Outcome, State
from sweeps.tracking.client import Metric, Param, RunTag
from sweeps.tracking.store import StoredRun, open_experiment, runs_of
from sweeps.tracking.values import (
    VALUE_LENGTH,
    batches,
    evaluation_metrics,
    step_metrics,
    to_params,
)

log = logging.getLogger(__name__)

METRICS_PER_CALL, PARAMS_PER_CALL = 800, 100
"""Limits of MLflow's `log_batch`, which takes 1000 things of all kinds, and 100 tags."""
LATEST = 1.0
"""Seconds after which a value is in the store: what comes meanwhile is written with it."""
ATTEMPTS = 5
"""Times that a write is tried while the store is locked."""
STATUS = {
    State.COMPLETED: "FINISHED",
    State.PRUNED: "FINISHED",
    State.INFEASIBLE: "FINISHED",
    State.FAILED: "FAILED",
    State.INTERRUPTED: "KILLED",
}
"""State of a trial -> status of its run; the tag `state` tells the first three apart."""


@dataclass(eq=False)
class OpenRun:
    """What the writer knows of a run."""

    run_id: str
    goes_on: bool = False
    """Whether an earlier session has written to it."""
    last_step: int = 0
    """Step of the newest value of the history."""
    last_evaluation: int = -1
    """Step of the newest evaluation."""
    broken: int = 0
    """Gradient norms that were not finite."""
    stored: dict[str, int] = field(default_factory=dict)
    """Metric -> its last step in the store; of a run that goes on."""
    params: list[Param] = field(default_factory=list)
    """To be written."""
    metrics: list[Metric] = field(default_factory=list)
    """To be written."""


class Tracker:
    """Writes runs of one experiment, in the order of the calls, from a thread of its own.

    Every method but `close`, `flush` and `stored_runs` returns at once. A call of the store costs much
    the same whether it takes one value or hundreds, so that values are gathered for `LATEST` seconds.

    Raises:
        SweepError: at construction, if the store cannot be opened.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self._client, self._experiment_id = open_experiment(uri, experiment)
        self._runs: dict[str, OpenRun] = {}
        self._late: list[OpenRun] = []
        """Runs with something to be written."""
        self._due = 0.0
        self._failures = 0
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="tracking", daemon=True)
        self._thread.start()

    @property
    def public_uri(self) -> str:
        """The store, for a file that anyone may read."""
        return without_password(self.uri)

    def stored_runs(self, sweep_id: str) -> dict[str, StoredRun]:
        """Trial's number, or the empty string for the parent -> run, of an earlier session.

        Raises:
            SweepError: the store does not answer.
        """
        try:
            return runs_of(self._client, self._experiment_id, sweep_id)
        except Exception as error:  # MLflow lets errors of its database and HTTP layers through
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SweepError(
                f"tracking.uri: {self.public_uri}: cannot be searched for the runs of this sweep "
                f"({without_password(reason)}); mend the store, then run this again"
            ) from None

    def start(
        self,
        key: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, Any],
        parent: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Begin a run, or go on with one.

        Args:
            key: by which later calls name it.
            name: shown in the UI.
            parameters: of the run.
            tags: of the run.
            parent: key of the run that this one belongs to.
            run_id: of the run to go on with.
        """
        started = now()
        texts = {k: str(v)[:VALUE_LENGTH] for k, v in tags.items() if v is not None}

        def write() -> None:
            above = {} if parent is None else {"mlflow.parentRunId": self._runs[parent].run_id}
            if run_id is None:
                run = self._client.create_run(
                    self._experiment_id, start_time=started, tags=texts | above, run_name=name
                )
                self._runs[key] = OpenRun(run.info.run_id)
                known: set[str] = set()
            else:
                known = self._reopen(key, run_id, texts | above)
            params = [param for param in to_params(parameters) if param.key not in known]
            self._gather(self._runs[key], params=params)

        self._queue.put(write)

    def _reopen(self, key: str, run_id: str, tags: Mapping[str, str]) -> set[str]:
        """Go on with a run; returns the names of the parameters that it has."""
        stored = self._client.get_run(run_id).data
        self._client.update_run(run_id, status="RUNNING")
        self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])
        if "reason" in stored.tags:
            self._client.delete_tag(run_id, "reason")
        broken = int(stored.metrics.get("grad/nonfinite", 0))
        self._runs[key] = OpenRun(run_id, goes_on=True, broken=broken)
        return set(stored.params)

    def adopt(self, key: str, run_id: str) -> None:
        """Let `key` name a run of an earlier session, as it is."""

        def write() -> None:
            self._runs[key] = OpenRun(run_id, goes_on=True)

        self._queue.put(write)

    def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run."""

        def write() -> None:
            written = [RunTag(k, v[:VALUE_LENGTH]) for k, v in tags.items()]
            self._client.log_batch(self._runs[key].run_id, tags=written)

        self._queue.put(write)

    def log(self, key: str, report: Mapping[str, Any]) -> None:
        """Write the metrics of a report and every step since the last one.

        What was written before, by a worker that was lost or in an earlier session, is left out.
        A value that is not finite is left out too, since no store and no chart can hold it;
        `grad/nonfinite` counts such norms.
        """
        when = now()

        def write() -> None:
            run, step = self._runs[key], int(report["step"])
            metrics = evaluation_metrics(report, when) if step > run.last_evaluation else []
            history, broken = step_metrics(report.get("history") or {}, run.last_step, when)
            metrics = self._without_stored(run, history + metrics)
            if broken and (metrics or not run.goes_on):
                run.broken += broken
                metrics.append(Metric("grad/nonfinite", run.broken, when, step))
            self._gather(run, metrics)
            run.last_step = max(run.last_step, step)
            run.last_evaluation = max(run.last_evaluation, step if report.get("metrics") else -1)

        self._queue.put(write)

    def _gather(
        self, run: OpenRun, metrics: Iterable[Metric] = (), params: Iterable[Param] = ()
    ) -> None:
        """Keep what is to be written with the next call."""
        run.metrics += metrics
        run.params += params
        if not self._late:
            self._due = time.monotonic() + LATEST
        if run not in self._late:
            self._late.append(run)

    def _send(self, run: OpenRun, tags: Iterable[RunTag] = ()) -> None:
        """Write what was gathered for a run, and `tags`."""
        metrics = batches(run.metrics, METRICS_PER_CALL)
        params = batches(run.params, PARAMS_PER_CALL)
        for some, few, tag in zip_longest(metrics, params, [list(tags)], fillvalue=()):
            self._client.log_batch(run.run_id, metrics=some, params=few, tags=tag)
        self._forget(run)

    def _forget(self, run: OpenRun) -> None:
        run.metrics, run.params = [], []
        self._late = [late for late in self._late if late is not run]

    def _send_late(self) -> None:
        """Write all that was gathered; what cannot be written is given up."""
        for run in self._late:
            try:
                self._attempt(partial(self._send, run))
            finally:
                self._forget(run)

    def _without_stored(self, run: OpenRun, metrics: list[Metric]) -> list[Metric]:
        if not run.goes_on:
            return metrics
        for key in {metric.key for metric in metrics} - set(run.stored):
            history = self._client.get_metric_history(run.run_id, key)
            run.stored[key] = max((metric.step for metric in history), default=-1)
        return [metric for metric in metrics if metric.step > run.stored[metric.key]]

    def end(
        self,
        key: str,
        outcome: Outcome,
        files: Iterable[Path] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Close a run with its state, the reason and those of its files that exist."""
        when = now()
        last = [Metric(k, v, when, 0) for k, v in (metrics or {}).items()]
        texts = {"state": str(outcome.state), "reason": without_password(outcome.reason)}
        tags = [RunTag(k, v[:VALUE_LENGTH]) for k, v in texts.items() if v]

        def write() -> None:
            run_id = self._runs[key].run_id
            self._gather(self._runs[key], last)
            last.clear()  # this may be called again
            self._send(self._runs[key], tags)
            try:
                for file in files:
                    if file.is_file():
                        self._client.log_artifact(run_id, str(file))
            finally:  # a run must not stay open because a file could not be copied
                self._client.set_terminated(run_id, STATUS[outcome.state], when)

        self._queue.put(write)

    def run_id(self, key: str) -> str | None:
        """MLflow's id of a run; None while it is not written."""
        run = self._runs.get(key)
        return None if run is None else run.run_id

    def flush(self, seconds: float = 30) -> None:
        """Wait until what is queued is written, but not for longer than `seconds`."""
        done = threading.Event()

        def write() -> None:
            try:
                self._send_late()
            finally:
                done.set()

        self._queue.put(write)
        done.wait(seconds)

    def close(self, seconds: float | None = None) -> None:
        """Write what is queued, then stop; give up after `seconds`, if that is not None."""
        self._queue.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning(
                "tracking: %s: does not answer; MLflow lacks the last writes, `--resume` adds them",
                without_password(self.uri),
            )
        elif self._failures > 1:
            log.warning("tracking: %d writes failed in all", self._failures)

    def _write(self) -> None:
        while (write := self._next()) is not None:
            try:
                self._attempt(write)
            except Exception as error:  # whatever it is, the sweep goes on
                self._failures += 1
                if self._failures == 1:
                    log.warning(
                        "tracking: %s: could not write (%s); the sweep goes on, but MLflow "
                        "will lack some of it",
                        without_password(self.uri),
                        without_password(f"{type(error).__name__}: {error}"),
                    )

    def _next(self) -> Callable[[], None] | None:
        """What is to be done next; None once all is."""
        left = self._due - time.monotonic() if self._late else None
        if left is not None and left <= 0:
            return self._send_late
        try:
            write = self._queue.get(timeout=left)
        except queue.Empty:
            return self._send_late
        if write is None and self._late:
            self._queue.put(None)
            return self._send_late
        return write

    def _attempt(self, write: Callable[[], None]) -> None:
        """Call `write` until another process has let go of an SQLite store. Repeating is harmless."""
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


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
