"""`OpenRun`: one run of the store while it is written, with its buffered values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.states import Outcome, State
from sweeps.tracking.client import MlflowClient
from sweeps.tracking.thinning import kept
from sweeps.tracking.writer import RunWriter, Value
from sweeps.trial.messages import TrialReport

METRICS_PER_CALL, PARAMS_PER_CALL = 800, 100
"""Sizes of a call of MLflow's `log_batch`, which accepts 1000 items in total, and 100 tags."""
STATUS = {
    State.COMPLETED: "FINISHED",
    State.PAUSED: "SCHEDULED",
    State.PRUNED: "KILLED",
    State.INFEASIBLE: "FAILED",
    State.FAILED: "FAILED",
    State.INTERRUPTED: "KILLED",
}
"""State of a trial -> status of its run, of which MLflow has fewer; the tag `state` tells them apart."""


@dataclass(eq=False, slots=True)
class OpenRun:
    """A run that is being written. Only the tracker's thread uses it."""

    client: MlflowClient
    writer: RunWriter
    run_id: str
    resumed: bool = False
    """Whether an earlier session has written to it."""
    last_step: int = 0
    """Step of the newest value of the history."""
    last_evaluation: int = -1
    """Step of the newest evaluation."""
    nonfinite: int = 0
    """Gradient norms that were not finite."""
    known_params: frozenset[str] = frozenset()
    """Names of the parameters that a resumed run already has."""
    stored: dict[str, int] = field(default_factory=dict)
    """Metric -> its last step in the store; of a resumed run."""
    params: dict[str, str] = field(default_factory=dict)
    """To be sent."""
    metrics: list[Value] = field(default_factory=list)
    """To be sent."""

    @classmethod
    def resume(
        cls, client: MlflowClient, writer: RunWriter, run_id: str, tags: Mapping[str, str]
    ) -> OpenRun:
        """Continue a run of an earlier session."""
        writer.commit()  # what this session has written to it: values that are there are not written again
        stored = client.get_run(run_id).data
        if "reason" in stored.tags:
            client.delete_tag(run_id, "reason")
        writer.set_status(run_id, "RUNNING")
        writer.log(run_id, tags=cut(tags))
        nonfinite = int(stored.metrics.get("grad/nonfinite", 0))
        known = frozenset(stored.params)
        return cls(client, writer, run_id, resumed=True, nonfinite=nonfinite, known_params=known)

    def reopen(self, tags: Mapping[str, str]) -> None:
        """Continue the run after a pause."""
        self.writer.set_status(self.run_id, "RUNNING")
        self.writer.log(self.run_id, tags=cut({**tags, "reason": ""}))

    def add_params(self, parameters: Mapping[str, Any]) -> None:
        """Buffer the parameters that the run does not have."""
        params = to_params(parameters)
        self.params |= {key: text for key, text in params.items() if key not in self.known_params}

    def add_metrics(self, metrics: Mapping[str, float], when: int, step: int = 0) -> None:
        """Buffer metrics that no report holds; values that are not finite are left out."""
        finite = ((key, float(value)) for key, value in metrics.items() if math.isfinite(value))
        self.metrics += [Value(key, value, when, step) for key, value in finite]

    def add_report(self, report: TrialReport, when: int) -> None:
        """Buffer the metrics of a report and every step since the last one.

        Values that were written before, by a lost worker or in an earlier session, are left out. So are
        non-finite values, which stores and charts do not support; `grad/nonfinite` counts such norms.
        """
        step = report.step
        metrics = evaluation_metrics(report, when) if step > self.last_evaluation else []
        history, nonfinite = step_metrics(report.history, self.last_step, when)
        metrics = self._without_stored(history + metrics)
        if nonfinite and (metrics or not self.resumed):
            self.nonfinite += nonfinite
            metrics.append(Value("grad/nonfinite", float(self.nonfinite), when, step))
        self.metrics += metrics
        self.last_step = max(self.last_step, step)
        self.last_evaluation = max(self.last_evaluation, step if report.metrics else -1)

    def _without_stored(self, metrics: list[Value]) -> list[Value]:
        if not self.resumed:
            return metrics
        for key in {metric.key for metric in metrics} - set(self.stored):
            history = self.client.get_metric_history(self.run_id, key)
            self.stored[key] = max((metric.step for metric in history), default=-1)
        return [metric for metric in metrics if metric.step > self.stored[metric.key]]

    def send(self, tags: Mapping[str, str] | None = None) -> None:
        """Write the buffered values, and `tags`; values that were written are not sent again."""
        tags = tags or {}
        while self.metrics or self.params or tags:
            some = self.metrics[:METRICS_PER_CALL]
            params = list(self.params.items())
            self.writer.log(self.run_id, some, dict(params[:PARAMS_PER_CALL]), tags)
            del self.metrics[: len(some)]
            self.params = dict(params[PARAMS_PER_CALL:])
            tags = {}

    def close(self, outcome: Outcome, files: Iterable[Path], when: int) -> None:
        """Write files and status."""
        try:
            for file in files:
                if file.is_file():
                    self.writer.commit()  # MLflow must find the run
                    self.client.log_artifact(self.run_id, str(file))
        finally:  # a run must not stay open because a file could not be copied
            self.writer.set_status(self.run_id, STATUS[outcome.state], when)


VALUE_LENGTH = 5000
"""Characters to which tags and parameters are truncated; MLflow's own limit is 6000 or more."""


def to_params(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as texts; None is written as `null`, as in the YAML."""
    texts = {key: "null" if value is None else str(value) for key, value in parameters.items()}
    return cut(texts)


def cut(texts: Mapping[str, str]) -> dict[str, str]:
    """Texts truncated to a length that every store accepts."""
    return {key: text[:VALUE_LENGTH] for key, text in texts.items()}


def evaluation_metrics(report: TrialReport, when: int) -> list[Value]:
    """The metrics of one report, at its step."""
    values: dict[str, float] = {**report.metrics, **report.costs, "epoch": report.epoch}
    if report.best is not None and report.best.value is not None:
        values |= {"objective": report.best.value, "objective/epoch": report.best.epoch}
    if report.peak_norm is not None:
        values["grad/peak_norm"] = report.peak_norm
    return [Value(k, float(v), when, report.step) for k, v in values.items() if math.isfinite(v)]


def step_metrics(
    history: Mapping[str, np.ndarray], last: int, when: int
) -> tuple[list[Value], int]:
    """The finite values of the steps after `last`, and the number of non-finite gradient norms.

    Long series are thinned; see `sweeps.tracking.thinning`.

    Args:
        history: (steps,) float64 per metric, with the optimiser step under `step`.
        last: last step that was written.
        when: milliseconds since the epoch.
    """
    steps = history.get("step", np.empty(0))
    new = steps > last
    steps = steps[new]
    metrics = []
    for key, values in history.items():
        if key != "step":
            some = kept(steps, values[new]) & np.isfinite(values[new])
            pairs = zip(steps[some], values[new][some], strict=True)
            metrics += [Value(key, float(value), when, int(step)) for step, value in pairs]
    norms = history["grad/norm"][new] if "grad/norm" in history else steps
    return metrics, int(np.count_nonzero(~np.isfinite(norms)))
