"""Requests to run a trial, as a driver would send them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps.config import SweepSpec
from sweeps.trial.messages import TrialRequest
from sweeps.trial.trial import TrialContext


def context_for(spec: SweepSpec, folder: Path, url: str | None = None) -> TrialContext:
    """What the trials of `spec` share; `folder` and `url` are those of all trials."""
    return TrialContext(objective=spec.objective, folder=folder, sweep_id="x", url=url)


def request_for(
    spec: SweepSpec, parameters: dict[str, Any], number: int = 0, **changes: Any
) -> TrialRequest:
    """The request for trial `number` of `spec` with these searched settings."""
    values: dict[str, Any] = {
        "number": number,
        "folder": f"{number:04d}",
        "run_key": str(number),
        "parameters": parameters,
        "config": spec.config(parameters),
    }
    return TrialRequest(**{**values, **changes})
