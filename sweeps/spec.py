"""`SweepSpec`: what a sweep's YAML may say.

The names under `space`, `fixed` and `baselines` are those of `fsdet.config.TrainConfig` and no
others. This module holds the shape and the rules that need one value; `sweeps.check` holds the
whole against the trainer, `sweeps.spec_file` reads it from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution
from pydantic import Field, PrivateAttr

from fsdet.config import TrainConfig
from fsdet.config_file import build_config
from sweeps.space import Parameter, Part, Value, read_value, to_distribution

OWNED = {
    "checkpoint_dir": "every trial gets a folder of its own; remove the line",
    "device": "set resources: {gpus: 1} to train on a GPU, {gpus: 0} to train on the CPU",
    "novel_split": "a sweep selects on val; test is for what it has selected; remove the line",
    "stop_on_explosion": "an exploded trial must end; remove the line",
}
"""Settings that a sweep gives to its trials itself, with what to do instead."""

OBJECTIVES = ("val/nAP50", "val/nAP")
"""Metrics that every evaluation measures, so that trials can be compared at every epoch."""


class Objective(Part):
    """What is optimised."""

    metric: Literal["val/nAP50", "val/nAP"] = "val/nAP50"
    """A metric of every evaluation. Losses cannot be compared: the searched weights change them."""
    mode: Literal["max", "min"] = "max"
    """Direction."""


class SamplerSpec(Part):
    """Who suggests the next configuration."""

    name: Literal["tpe", "random"] = "tpe"
    """`tpe` learns from the trials so far; `random` does not."""
    seed: int = Field(default=0, ge=0)
    """Seed of the suggestions."""
    startup_trials: int = Field(default=6, ge=1)
    """Trials, baselines included, before `tpe` trusts what it has seen."""


class SchedulerSpec(Part):
    """Who stops trials that are merely worse. Times are in epochs."""

    name: Literal["asha", "none"] = "asha"
    """`asha`, or `none` to run every trial to its end."""
    grace: int = Field(default=1, ge=1)
    """Epochs that every trial gets."""
    reduction: float = Field(default=3.0, gt=1)
    """At each rung the best 1/reduction go on; rungs lie this factor apart."""


class Resources(Part):
    """What one trial takes, and how many run at once."""

    cpus: float = Field(default=1, gt=0)
    """CPU cores a trial."""
    gpus: float = Field(default=0, ge=0)
    """GPUs a trial; fractions share a card."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at once; None for as many as the machine carries."""


class TrackingSpec(Part):
    """Where MLflow keeps the runs."""

    uri: str | None = None
    """Tracking store; None takes MLFLOW_TRACKING_URI, else mlruns/mlflow.db."""
    experiment: str = Field(default="sweeps", min_length=1)
    """Experiment that the runs go to."""


class SweepSpec(Part):
    """One sweep."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Name of the sweep, of its folder and of its parent run."""
    space: dict[str, Parameter] = Field(min_length=1)
    """Searched settings."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Settings that are the same for every trial."""
    baselines: dict[str, dict[str, Value]] = Field(default_factory=dict)
    """Configurations to try first and to compare with: a value for every searched setting."""
    objective: Objective = Objective()
    """What is optimised."""
    trials: int = Field(default=16, ge=1)
    """Number of trials, baselines included."""
    sampler: SamplerSpec = SamplerSpec()
    """Who suggests the next configuration."""
    scheduler: SchedulerSpec = SchedulerSpec()
    """Who stops trials that are merely worse."""
    resources: Resources = Resources()
    """What one trial takes."""
    tracking: TrackingSpec = TrackingSpec()
    """Where the runs are logged."""

    _source: str = PrivateAttr(default="the sweep")

    @property
    def source(self) -> str:
        """File that this was read from, for messages."""
        return self._source

    @property
    def settings(self) -> dict[str, Any]:
        """What every trial shares: `fixed`, and what follows from `resources`."""
        threads = {"threads": max(1, int(self.resources.cpus))}
        device = {"device": "cuda" if self.resources.gpus else "cpu"}
        return {**threads, **self.fixed, **device}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Searched setting -> Optuna distribution."""
        return {key: to_distribution(key, parameter) for key, parameter in self.space.items()}

    def baseline_parameters(self) -> dict[str, dict[str, Any]]:
        """Name -> searched settings of each baseline, as the trainer reads them."""
        return {
            name: {key: read_value(key, values[key]) for key in self.space}
            for name, values in self.baselines.items()
        }

    def config(self, parameters: dict[str, Any], checkpoint_dir: Path | None = None) -> TrainConfig:
        """The trainer's config with the searched settings at `parameters`.

        Raises:
            fsdet.errors.ConfigError: a value that the trainer does not accept.
        """
        where = {} if checkpoint_dir is None else {"checkpoint_dir": checkpoint_dir}
        return build_config({**self.settings, **parameters, **where}, self.source)

    def with_source(self, source: str) -> SweepSpec:
        """The same sweep, known to come from `source`."""
        copy = self.model_copy()
        copy._source = source
        return copy
