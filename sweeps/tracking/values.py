"""Reports and settings as MLflow's metrics and parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sweeps.tracking.client import Metric, Param, RunTag
from sweeps.trial.messages import TrialReport

VALUE_LENGTH = 5000
"""Longest text kept of a tag or a parameter, characters; MLflow's own limit is 6000 or more."""


def batches(items: list[Any], size: int) -> Iterable[list[Any]]:
    """`items` in pieces of at most `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))


def to_params(parameters: Mapping[str, Any]) -> list[Param]:
    """MLflow parameters; None stands as `null`, as in the YAML."""
    return [
        Param(key, "null" if value is None else str(value)[:VALUE_LENGTH])
        for key, value in parameters.items()
    ]


def to_tags(tags: Mapping[str, str]) -> list[RunTag]:
    """MLflow tags, cut to the length that every store takes."""
    return [RunTag(key, text[:VALUE_LENGTH]) for key, text in tags.items()]


def evaluation_metrics(report: TrialReport, when: int) -> list[Metric]:
    """The metrics of one report, at its step."""
    values: dict[str, float] = {**report.metrics, **report.costs, "epoch": report.epoch}
    if report.best is not None and report.best.value is not None:
        values |= {"objective": report.best.value, "objective/epoch": report.best.epoch}
    if report.peak_norm is not None:
        values["grad/peak_norm"] = report.peak_norm
    return [Metric(k, float(v), when, report.step) for k, v in values.items() if math.isfinite(v)]


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
