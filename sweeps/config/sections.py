"""The sections of a sweep's YAML beside the search space: objective, sampler, budget, resources, storage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from fsdet.errors import shown
from fsdet.reading import expand_user
from sweeps.config.names import Name
from sweeps.config.parameter import Part
from sweeps.secrets import holds_secret

AUTO = "auto"
"""As `resources.gpus`: find the share of a card by measuring a trial."""
COSTS = ("trial/step_seconds", "trial/memory_bytes")
"""Metrics of a complete trial, known at its end, of which less is better."""
NOT_OFFERED = {
    "pbt": "pbt changes the settings of a running trial, so that its best is a schedule that no single job "
    "with one configuration could run again; use asha",
    "hyperband": "asha finds its first rung itself, which the brackets of hyperband hedge; use asha",
    "median": "asha reaches the same settings with less compute than the median rule; use asha",
}
"""Name of a scheduler that others offer -> why it is missing here, and what to use."""


Mode: TypeAlias = Literal["max", "min"]


class Objective(Part):
    """What is optimised."""

    metric: Literal["val/nAP50", "val/nAP", "trial/step_seconds", "trial/memory_bytes"] = (
        "val/nAP50"
    )
    """A metric of every evaluation. Losses cannot be compared: the searched weights change them.
    As second objective also a cost: wall time of an optimiser step, or peak memory."""
    mode: Mode = "max"
    """Direction; always min for a cost."""

    @model_validator(mode="before")
    @classmethod
    def _less_is_better(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("metric") in COSTS:
            return {"mode": "min", **values}
        return values

    @model_validator(mode="after")
    def _check(self) -> Objective:
        if self.metric in COSTS and self.mode != "min":
            raise ValueError(f"{self.metric} is a cost, so mode must be min; drop mode")
        return self

    @property
    def name(self) -> str:
        """The metric without its split: the last evaluation may be on another split."""
        return self.metric.rpartition("/")[2]

    @property
    def sign(self) -> int:
        """1 if more is better, otherwise -1."""
        return sign_of(self.mode)

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The mode as Optuna calls it."""
        return "maximize" if self.sign > 0 else "minimize"


def sign_of(mode: Mode) -> int:
    """Factor that turns a value into one of which more is better."""
    return 1 if mode == "max" else -1


class SamplerSpec(Part):
    """How the next configuration is chosen."""

    name: Literal["random", "tpe", "gp", "qmc", "cmaes", "grid", "nsgaii", "bisection"] = "random"
    """`random` draws evenly and around the baselines, and with `asha` found most for its compute on recorded
    curves; `tpe` learns and suits any space; `gp` needs few trials in spaces of up to about ten settings;
    `cmaes` is for numbers and many trials; `qmc` spreads evenly; `grid` tries every configuration; `nsgaii`
    optimises two objectives; `bisection` finds, for each combination of choices, the largest value of each range
    that does not explode, the other ranges as in the baseline."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the suggestions."""
    startup_trials: int = Field(default=6, ge=1, le=100_000)
    """Trials, baselines included, before the sampler learns from results; size of a generation
    of `nsgaii`."""
    worst: float | None = Field(default=None, allow_inf_nan=False)
    """Of `bisection`: a trial whose objective is worse has lost its training, which counts as an explosion."""

    @property
    def reports_complete(self) -> bool:
        """Whether exploded trials are reported as COMPLETE: this sampler does not see PRUNED ones."""
        return self.name in ("gp", "cmaes", "nsgaii")


class SchedulerSpec(Part):
    """How compute is divided among trials. Times are in epochs."""

    name: Literal["asha", "none"] = "asha"
    """`asha`: trials pause at rungs, and the best of each rung continue from their checkpoints; `none`
    trains every trial to its end."""
    grace: int | None = Field(default=None, ge=1)
    """First rung: epochs that every trial gets. None finds it: the lowest one whose ranking lasts and whose
    evaluation is worth its time."""
    reduction: float = Field(default=4.0, ge=1.1, le=1000)
    """At each rung the best 1/reduction continue; rungs lie this factor apart."""

    def ladders(self, epochs: int) -> list[tuple[int, ...]]:
        """Possible rungs of trials with at most `epochs`, by their first one; only one if `grace` is given."""
        if self.name == "none" or (self.grace or 1) >= epochs:
            return []
        ladder = self._ladder(self.grace or 1, epochs)
        if self.grace is not None:
            return [ladder]
        low = sum(rung <= epochs / self.reduction for rung in ladder)
        return [ladder[first:] for first in range(max(1, low))]

    def _ladder(self, grace: int, epochs: int) -> tuple[int, ...]:
        found: list[int] = []
        rung = float(grace)
        while round(rung) < epochs:
            if not found or round(rung) > found[-1]:
                found.append(round(rung))
            rung *= self.reduction
        return tuple(found)

    @field_validator("name", mode="before")
    @classmethod
    def _no_others(cls, name: Any) -> Any:
        if isinstance(name, str) and name in NOT_OFFERED:
            raise ValueError(NOT_OFFERED[name])
        return name


class PriorSpec(Part):
    """How configurations are drawn around the baselines."""

    width: float = Field(default=0.25, ge=1e-6, le=1)
    """Standard deviation, as a fraction of each range on its scale."""


class Budget(Part):
    """When to stop before all trials are done: at the first limit that is reached. None sets no limit.

    Within hours, gpu_hours and trainings, the baselines and the best trial are still trained to their end.
    """

    hours: float | None = Field(default=None, gt=0, le=1e6)
    """Wall time of the sweep."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Wall time of all trials together, times the GPUs of one."""
    trainings: float | None = Field(default=None, gt=0)
    """Epochs of all trials together, in complete trainings."""
    target: float | None = None
    """Value of the objective that is good enough."""


class FailureLimit(Part):
    """The share of failed trials at which the sweep stops. Exploded trials have not failed."""

    max_fraction: float = Field(default=0.5, gt=0, le=1)
    """Stop when more than this fraction of the trials that ended or paused has failed."""
    after: int = Field(default=5, ge=1)
    """Trials that ended or paused before the limit applies."""


MOST_SEEDS = 1000


class ConfirmSpec(Part):
    """What is run again after the search: on the test split, at fresh seeds."""

    top_k: int = Field(default=3, ge=1, le=1000)
    """Number of best completed trials, baselines excluded, that are confirmed beside every baseline."""
    seeds: int = Field(default=5, json_schema_extra={"minimum": 3, "maximum": MOST_SEEDS})
    """Runs of each configuration, at least 3. With 3 candidates and one baseline, a gain of 2
    standard deviations over seeds is found in 21 to 35 % of cases by 3 seeds, in 56 to 84 % by 5, in
    88 to 99 % by 8."""

    @field_validator("seeds")
    @classmethod
    def _comparable(cls, seeds: int) -> int:
        if seeds < 3:
            raise ValueError(
                f"two configurations are compared over at least 3 seeds, but got {seeds}; "
                "ask for 5 or more"
            )
        if seeds > MOST_SEEDS:
            raise ValueError(f"must be at most {MOST_SEEDS}, but got {seeds}; ask for 5 to 10")
        return seeds


LEAST_SHARE = 0.01
"""Smallest share of a CPU core or a GPU; Ray does not count finer than 0.0001."""


class Resources(Part):
    """What one trial requires, and how many run at once."""

    cpus: float = Field(default=1, ge=LEAST_SHARE, le=1e6)
    """CPU cores per trial; several trials can share one."""
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    """GPUs per trial; fractions share a card. `auto` lets 1, 2, 4, 8 … trials train side by side for some seconds
    before the sweep and keeps the number that takes most steps; 0 on a machine without a card."""
    mps: bool = False
    """Trials that share a card run under CUDA's Multi-Process Service, which is started for the sweep; `gpus: auto`
    finds out whether it gains."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Largest number of trials at once; None for as many as the machine has room for."""

    @field_validator("gpus", mode="before")
    @classmethod
    def _number_or_auto(cls, gpus: Any) -> Any:
        number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
        if gpus != "auto" and not (number and gpus >= 0):
            raise ValueError(f"must be auto or a number of at least 0, but got {shown(gpus)}")
        if number and 0 < gpus < LEAST_SHARE:
            raise ValueError(f"must be 0 or at least {LEAST_SHARE:g}, but got {gpus:g}; raise it")
        if number and gpus > 1 and gpus % 1:
            raise ValueError(f"above 1 must be a whole number, but got {gpus:g}; round it")
        return gpus

    @model_validator(mode="after")
    def _mps_needs_a_shared_card(self) -> Resources:
        if self.mps and self.gpus != "auto" and not 0 < self.gpus < 1:
            raise ValueError(
                f"mps is for trials that share a card, but gpus is {self.gpus:g}; set gpus to auto or a fraction, or "
                "remove mps"
            )
        return self

    @property
    def gpu_share(self) -> float:
        """`gpus` as a number; 0 while `auto` has not been measured."""
        return 0.0 if self.gpus == "auto" else self.gpus


STUDY_VARIABLE = "OPTUNA_STORAGE"
"""Optuna's own variable for the URL of its storage."""
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class TrackingSpec(Part):
    """Where MLflow stores the runs."""

    uri: str | None = None
    """Tracking store; None for MLFLOW_TRACKING_URI, or mlruns/mlflow.db if that is not set."""
    experiment: Name = "sweeps"
    """Experiment that the runs go to."""


class StorageSpec(Part):
    """Where the sweep's files and its study are."""

    path: str | None = None
    """Folder that all machines share, or a URL of fsspec (s3://…, gs://…, file://…); None for
    mlruns/sweeps of the working directory. Credentials for a URL come from the environment."""
    study: str | None = None
    """URL of Optuna's storage (postgresql://…); None for OPTUNA_STORAGE, or a file in the sweep's folder
    if that is not set. Give a password by the variable: others can read a YAML."""

    @field_validator("path")
    @classmethod
    def _open(cls, path: str | None) -> str | None:
        if path is None:
            return None
        if not path.strip():
            raise ValueError("must name a folder or a URL; remove it for mlruns/sweeps")
        if not is_url(path):
            return str(expand_user(path).absolute())
        if holds_secret(path):
            raise ValueError(
                "must hold no password or token, since every trial receives it; give credentials to "
                "every node by the environment, see docs/cluster.md"
            )
        return path.rstrip("/")

    @field_validator("study")
    @classmethod
    def _database(cls, study: str | None) -> str | None:
        if study is None:
            return None
        # imported late: a worker reads this module, too, and SQLAlchemy is a fifth of what it imports before torch
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            database = make_url(study)
        except (ArgumentError, ValueError):
            raise ValueError(
                "must be a URL of a database, as in postgresql://user@host/name; correct it"
            ) from None
        if database.drivername.startswith("sqlite") and database.database:
            absolute = str(Path(database.database).absolute())
            return database.set(database=absolute).render_as_string(hide_password=False)
        return study


def is_url(path: str) -> bool:
    """Whether a storage path is one that fsspec opens."""
    return URL.match(path) is not None
