"""`SweepSpec`: what a sweep's YAML may say.

The names under `space`, `fixed` and `baselines` are those of `fsdet.config.TrainConfig` and no
others. This module defines the fields and the rules that need one value; `sweeps.config.check` checks the
complete sweep against the trainer, `sweeps.config.file` reads it from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from pydantic import Field, PrivateAttr, field_validator

from fsdet.config import TrainConfig
from fsdet.config.parsing import build_config
from sweeps.config.distribution import to_distribution
from sweeps.config.names import Name
from sweeps.config.parameter import Parameter, Part, Value, read_value
from sweeps.config.sections import (
    AUTO,
    COSTS,
    Budget,
    ConfirmSpec,
    FailureLimit,
    Objective,
    PriorSpec,
    Resources,
    SamplerSpec,
    SchedulerSpec,
    StorageSpec,
    TrackingSpec,
)
from sweeps.config.space import Space
from sweeps.secrets import without_password

OWNED = {
    "checkpoint_dir": "every trial gets a folder of its own; remove the line",
    "device": "set resources: {gpus: 1} to train on a GPU, {gpus: 0} to train on the CPU",
    "novel_split": "a sweep selects on val; test is for what it has selected; remove the line",
    "final_split": "a sweep selects on val; test is for what it has selected; remove the line",
    "best_metric": "it is the metric of the objective; remove the line",
    "best_mode": "it is the mode of the objective; remove the line",
    "stop_on_explosion": "an exploded trial must end; remove the line",
}
"""Settings that the sweep sets itself, with what to do instead."""


class SweepSpec(Part):
    """One sweep."""

    name: Name
    """Name of the sweep, of its folder and of its parent run."""
    space: dict[str, Parameter] = Field(min_length=1)
    """Searched settings."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Settings that are the same for every trial."""
    baselines: dict[str, dict[str, Value]] = Field(default_factory=dict, max_length=1000)
    """Configurations to try first and to compare with: a value for every searched setting."""
    objective: Objective = Objective()
    """What is optimised."""
    second_objective: Objective | None = None
    """The second objective, for the sampler nsgaii."""
    trials: int = Field(default=16, ge=1, le=10_000_000)
    """Number of trials, baselines included; may be left out for the sampler grid."""
    budget: Budget = Budget()
    """When to stop before all trials are done."""
    failures: FailureLimit = FailureLimit()
    """The share of failed trials at which the sweep stops."""
    stall_minutes: float | None = Field(default=None, ge=0.01, le=1e5)
    """Minutes without a report after which a trial has failed; None for no limit."""
    warm_start: Name | None = None
    """Name of an earlier sweep; the sampler starts with its trials that lie within this space."""
    sampler: SamplerSpec = SamplerSpec()
    """How the next configuration is chosen."""
    scheduler: SchedulerSpec = SchedulerSpec()
    """How compute is divided among trials."""
    prior: PriorSpec | None = PriorSpec()
    """Baselines are beliefs: some configurations are drawn around them; `off` draws around none."""
    confirm: ConfirmSpec | None = None
    """How the winner is chosen among the best and the baselines; null for the best of the search."""
    ablate: bool = False
    """Whether each setting of the winner is then set back to the best baseline's, one at a time."""
    resources: Resources = Resources()
    """What one trial requires."""
    tracking: TrackingSpec = TrackingSpec()
    """Where the runs are logged."""
    storage: StorageSpec = StorageSpec()
    """Where files and study are stored."""

    _source: str = PrivateAttr(default="the sweep")

    @field_validator("prior", mode="before")
    @classmethod
    def _off(cls, prior: Any) -> Any:
        return None if prior in ("off", False) else prior

    @property
    def source(self) -> str:
        """File that this was read from, for messages."""
        return self._source

    @property
    def settings(self) -> dict[str, Any]:
        """What every trial shares: `fixed`, and what follows from `resources` and `objective`."""
        # saved every epoch, so that a trial that was stopped can resume
        defaults = {"threads": max(1, int(self.resources.cpus)), "save_interval": 1}
        device = "cuda" if self.resources.gpu_share else "cpu"
        device = AUTO if self.resources.gpus == AUTO else device
        return {
            **defaults,
            **self._early_evaluations(),
            **self.fixed,
            **self._best_epoch(),
            "device": device,
        }

    def _early_evaluations(self) -> dict[str, Any]:
        """Evaluations at the rungs, over few episodes: a rank there needs no more."""
        if not self.rungs:
            return {}
        fewest = min(Space(self.space, self.fixed).possible("eval_episodes"))
        episodes = min(TrainConfig().early_eval_episodes, int(fewest))
        return {"early_eval_epochs": self.rungs, "early_eval_episodes": episodes}

    def _best_epoch(self) -> dict[str, Any]:
        """How a trial chooses its best epoch."""
        if self.objective.metric in COSTS:  # known at the end of a trial only
            return {}
        return {"best_metric": self.objective.name, "best_mode": self.objective.mode}

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objective, and the second one if there is one."""
        second = self.second_objective
        return (self.objective,) if second is None else (self.objective, second)

    @property
    def search_space(self) -> Space:
        """The space with its conditions and ties."""
        return Space(self.space, self.settings)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The settings of a new trial: searched where they apply, and tied.

        Args:
            trial: from `study.ask()`; its `params` hold what was searched.
        """
        return self.search_space.suggest(trial)

    def accepts(self, parameters: dict[str, Any]) -> bool:
        """Whether a trial with these `params` could be suggested in this space."""
        return self.search_space.accepts(parameters)

    @property
    def max_epochs(self) -> int:
        """Epochs of the longest trial that the space allows."""
        return int(max(Space(self.space, self.fixed).possible("epochs")))

    @property
    def ladders(self) -> list[tuple[int, ...]]:
        """Possible rungs of the sweep, see `SchedulerSpec.ladders`."""
        return self.scheduler.ladders(self.max_epochs)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a trial may pause, ascending; empty if none does."""
        return tuple(sorted({rung for ladder in self.ladders for rung in ladder}))

    def epochs_of(self, parameters: dict[str, Any]) -> int:
        """Epochs of a complete trial with these searched settings."""
        if "epochs" not in self.space:
            return self.max_epochs
        space = self.search_space
        return int(space.complete(parameters).get("epochs", space.constant("epochs")))

    def largest(self, key: str) -> Any:
        """The largest value that setting `key` can have in a trial."""
        return max(self.search_space.possible(key))

    def distributions(self) -> dict[str, BaseDistribution]:
        """Searched setting, tied ones left out -> Optuna distribution."""
        return {key: to_distribution(key, p) for key, p in self.search_space.searched.items()}

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
            {**self.settings, **self.search_space.complete(parameters), **where}, self.source
        )

    @property
    def public(self) -> SweepSpec:
        """The same sweep without the secrets of its URLs, to be stored."""

        def redacted(url: str | None) -> str | None:
            return None if url is None else without_password(url)

        tracking = self.tracking.model_copy(update={"uri": redacted(self.tracking.uri)})
        storage = self.storage.model_copy(update={"study": redacted(self.storage.study)})
        copy = self.model_copy(update={"tracking": tracking, "storage": storage})
        return copy.with_source(self.source)

    @property
    def for_confirmation(self) -> SweepSpec:
        """The sweep as its confirmation runs it.

        Validation classes choose the best epoch, whose last evaluation is on the test classes. Nothing is
        searched, pruned or limited by a budget.
        """
        metric = self.objective.metric.replace("val/", "test/")
        changed = self.model_copy(
            update={
                "fixed": {**self.fixed, "final_split": "test"},
                "objective": self.objective.model_copy(update={"metric": metric}),
                "second_objective": None,
                "sampler": SamplerSpec(name="random"),
                "scheduler": SchedulerSpec(name="none"),
                "warm_start": None,
                "budget": Budget(),
            }
        )
        return changed.with_source(self.source)

    def with_source(self, source: str) -> SweepSpec:
        """The same sweep with another `source`."""
        copy = self.model_copy()
        copy._source = source
        return copy
