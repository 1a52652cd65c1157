"""Reports and settings as MLflow's metrics and parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sweeps.tracking.client import Metric, Param

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


def evaluation_metrics(report: Mapping[str, Any], when: int) -> list[Metric]:
    """The metrics of one report, at its step."""
    values = {**report.get("metrics", {}), **report.get("costs", {})}
    if "epoch" in report:
        values["epoch"] = report["epoch"]
    if report.get("best") is not None:
        values |= {"objective": report["best"], "objective/epoch": report["best_epoch"]}
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
