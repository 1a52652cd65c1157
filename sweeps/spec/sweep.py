"""`SweepSpec`: what a sweep's YAML may say.

The names under `space`, `fixed` and `baselines` are those of `fsdet.config.TrainConfig` and no
others. This module holds the shape and the rules that need one value; `sweeps.spec.check` holds the
whole against the trainer, `sweeps.spec.file` reads it from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from pydantic import Field, PrivateAttr, field_validator, model_validator

from fsdet.config import TrainConfig
from fsdet.config.parsing import build_config
from sweeps.secrets import without_password
from sweeps.spec.conditions import Space
from sweeps.spec.parameter import Parameter, Part, Value
from sweeps.spec.places import StorageSpec, TrackingSpec
from sweeps.spec.space import read_value, to_distribution

OWNED = {
    "checkpoint_dir": "every trial gets a folder of its own; remove the line",
    "device": "set resources: {gpus: 1} to train on a GPU, {gpus: 0} to train on the CPU",
    "novel_split": "a sweep selects on val; test is for what it has selected; remove the line",
    "final_split": "a sweep selects on val; test is for what it has selected; remove the line",
    "best_metric": "it is the metric of the objective; remove the line",
    "best_mode": "it is the mode of the objective; remove the line",
    "stop_on_explosion": "an exploded trial must end; remove the line",
}
"""Settings that a sweep gives to its trials itself, with what to do instead."""

COSTS = ("trial/step_seconds", "trial/memory_bytes")
"""Metrics of a whole trial, known at its end, of which less is better."""
PBT = (
    "pbt changes the settings of a running trial, so that its best is a schedule that no single job "
    "with one configuration could run again; use asha or hyperband"
)


class Objective(Part):
    """What is optimised."""

    metric: Literal["val/nAP50", "val/nAP", "trial/step_seconds", "trial/memory_bytes"] = (
        "val/nAP50"
    )
    """A metric of every evaluation. Losses cannot be compared: the searched weights change them.
    As second objective also a cost: wall time of an optimiser step, or peak memory."""
    mode: Literal["max", "min"] = "max"
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


class SamplerSpec(Part):
    """Who suggests the next configuration."""

    name: Literal["tpe", "gp", "random", "qmc", "cmaes", "grid", "nsgaii"] = "tpe"
    """`tpe` fits any space; `gp` is thrifty in spaces of up to some ten settings; `cmaes` is for
    numbers and many trials; `random` and `qmc` (spread evenly) do not learn; `grid` tries every
    configuration; `nsgaii` weighs two objectives."""
    seed: int = Field(default=0, ge=0)
    """Seed of the suggestions."""
    startup_trials: int = Field(default=6, ge=1)
    """Trials, baselines included, before the sampler trusts what it has seen; size of a generation
    of `nsgaii`."""

    @property
    def tells_complete(self) -> bool:
        """Whether exploded trials must be told COMPLETE: this sampler does not see PRUNED ones."""
        return self.name in ("gp", "cmaes", "nsgaii")


class SchedulerSpec(Part):
    """Who stops trials that are merely worse. Times are in epochs."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    """`asha`; `hyperband`, asha that lets some trials begin at a later rung; `median`, which stops
    what is worse than half of its peers; `none` to run every trial to its end."""
    grace: int = Field(default=1, ge=1)
    """Epochs that every trial gets."""
    reduction: float = Field(default=3.0, gt=1)
    """At each rung the best 1/reduction go on; rungs lie this factor apart. Not used by `median`."""

    @field_validator("name", mode="before")
    @classmethod
    def _no_pbt(cls, name: Any) -> Any:
        if name == "pbt":
            raise ValueError(PBT)
        return name


class Budget(Part):
    """When to stop before all trials are done; whatever comes first. None sets no limit."""

    hours: float | None = Field(default=None, gt=0)
    """Wall time of the sweep."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Wall time of all trials together, times the GPUs of one."""
    target: float | None = None
    """Value of the objective that is good enough."""


class FailureLimit(Part):
    """When so many trials fail that the sweep stops. Exploded trials have not failed."""

    max_fraction: float = Field(default=0.5, gt=0, le=1)
    """Stop when more than this part of the ended trials has failed."""
    after: int = Field(default=5, ge=1)
    """Ended trials before this is looked at."""


class ConfirmSpec(Part):
    """What is run again when the search has ended: on the test split, at fresh seeds."""

    top_k: int = Field(default=3, ge=1)
    """Best completed trials that are confirmed beside every baseline; they are none themselves."""
    seeds: int = Field(default=5, json_schema_extra={"minimum": 3})
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
        return seeds


class Resources(Part):
    """What one trial takes, and how many run at once."""

    cpus: float = Field(default=1, gt=0)
    """CPU cores a trial."""
    gpus: Annotated[float, Field(ge=0)] | Literal["auto"] = 0.0
    """GPUs a trial; fractions share a card. `auto` measures one trial before the sweep and lets as
    many share a card as fit; 0 on a machine without one."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at once; None for as many as the machine carries."""

    @field_validator("gpus", mode="before")
    @classmethod
    def _number_or_auto(cls, gpus: Any) -> Any:
        number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
        if gpus != "auto" and not (number and gpus >= 0):
            raise ValueError(f"must be auto or a number of at least 0, but got {gpus!r}")
        return gpus

    @property
    def gpu_share(self) -> float:
        """`gpus` as a number; 0 while `auto` is not found out."""
        return 0.0 if self.gpus == "auto" else self.gpus


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
    second_objective: Objective | None = None
    """What is weighed against it, for the sampler nsgaii."""
    trials: int = Field(default=16, ge=1)
    """Number of trials, baselines included; may be left out for the sampler grid."""
    budget: Budget = Budget()
    """When to stop before all trials are done."""
    failures: FailureLimit = FailureLimit()
    """When so many trials fail that the sweep stops."""
    stall_minutes: float | None = Field(default=None, gt=0)
    """A trial that reports nothing for so long has failed; None sets no limit."""
    warm_start: str | None = None
    """Name of an earlier sweep, whose trials within this space the sampler is told first."""
    sampler: SamplerSpec = SamplerSpec()
    """Who suggests the next configuration."""
    scheduler: SchedulerSpec = SchedulerSpec()
    """Who stops trials that are merely worse."""
    confirm: ConfirmSpec | None = None
    """How the winner is chosen among the best and the baselines; null takes the best of the search."""
    ablate: bool = False
    """Whether each setting of the winner is then set back to the best baseline's, one at a time."""
    resources: Resources = Resources()
    """What one trial takes."""
    tracking: TrackingSpec = TrackingSpec()
    """Where the runs are logged."""
    storage: StorageSpec = StorageSpec()
    """Where files and study are."""

    _source: str = PrivateAttr(default="the sweep")

    @property
    def source(self) -> str:
        """File that this was read from, for messages."""
        return self._source

    @property
    def settings(self) -> dict[str, Any]:
        """What every trial shares: `fixed`, and what follows from `resources` and `objective`."""
        # saved every epoch, so that a trial that was stopped goes on where it was
        threads = {"threads": max(1, int(self.resources.cpus)), "save_interval": 1}
        device = "cuda" if self.resources.gpu_share else "cpu"
        device = "auto" if self.resources.gpus == "auto" else device
        return {
            **threads,
            **self.fixed,
            **self._best(),
            "device": device,
        }

    def _best(self) -> dict[str, Any]:
        """How a trial chooses its best epoch."""
        if self.objective.metric in COSTS:  # known at the end of a trial only
            return {}
        name = self.objective.metric.rpartition("/")[2]
        return {"best_metric": name, "best_mode": self.objective.mode}

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """One, or two."""
        second = self.second_objective
        return (self.objective,) if second is None else (self.objective, second)

    @property
    def conditions(self) -> Space:
        """The space with its conditions and ties."""
        return Space(self.space, self.settings)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The settings of a new trial: searched where they apply, and tied.

        Args:
            trial: from `study.ask()`; its `params` hold what was searched.
        """
        return self.conditions.suggest(trial)

    def accepts(self, parameters: dict[str, Any]) -> bool:
        """Whether a trial with these `params` could be suggested in this space."""
        return self.conditions.accepts(parameters)

    def largest(self, key: str) -> Any:
        """The largest value that setting `key` can have in a trial."""
        return max(self.conditions.possible(key))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Searched setting, tied ones left out -> Optuna distribution."""
        return {key: to_distribution(key, p) for key, p in self.conditions.searched.items()}

    def baseline_parameters(self) -> dict[str, dict[str, Any]]:
        """Name -> searched settings of each baseline that apply to it, as the trainer reads them."""
        return {
            name: {key: read_value(key, values[key]) for key in self.space if key in values}
            for name, values in self.baselines.items()
        }

    def config(self, parameters: dict[str, Any], checkpoint_dir: Path | None = None) -> TrainConfig:
        """The trainer's config with the searched settings at `parameters`; tied ones follow.

        Raises:
            fsdet.errors.ConfigError: a value that the trainer does not accept.
        """
        where = {} if checkpoint_dir is None else {"checkpoint_dir": checkpoint_dir}
        return build_config(
            {**self.settings, **self.conditions.complete(parameters), **where}, self.source
        )

    @property
    def public(self) -> SweepSpec:
        """The same sweep without the secrets of its URLs, fit to be written and sent."""

        def shown(url: str | None) -> str | None:
            return None if url is None else without_password(url)

        tracking = self.tracking.model_copy(update={"uri": shown(self.tracking.uri)})
        storage = self.storage.model_copy(update={"study": shown(self.storage.study)})
        copy = self.model_copy(update={"tracking": tracking, "storage": storage})
        return copy.with_source(self.source)

    @property
    def for_confirmation(self) -> SweepSpec:
        """The sweep as the jobs of its confirmation run.

        Validation classes choose the best epoch, whose last evaluation is on the test classes; there is no
        budget.
        """
        metric = self.objective.metric.replace("val/", "test/")
        changed = self.model_copy(
            update={
                "fixed": {**self.fixed, "final_split": "test"},
                "objective": self.objective.model_copy(update={"metric": metric}),
                "budget": Budget(),
            }
        )
        return changed.with_source(self.source)

    def with_source(self, source: str) -> SweepSpec:
        """The same sweep, known to come from `source`."""
        copy = self.model_copy()
        copy._source = source
        return copy
