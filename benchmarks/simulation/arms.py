"""The search methods that are compared, each driven as its own software would be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, TPESampler

from benchmarks.simulation.clock import Leg, Method
from benchmarks.simulation.product import Product
from benchmarks.simulation.tables import EPOCHS, Problem

RAY_RUNGS = (1, 4, 16)
"""With the defaults of Ray's ASHAScheduler: grace period 1, reduction factor 4."""


class RandomSearch:
    """Random configurations, each to its last epoch."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._chance = np.random.default_rng(seed)
        self._dimensions, self._count = problem.dimensions, 0

    def next(self) -> Leg:
        self._count += 1
        return Leg(self._count, self._chance.random(self._dimensions), 0, (EPOCHS,))

    def report(self, leg: Leg, epoch: int, value: float) -> bool:  # noqa: ARG002
        return False

    def explode(self, leg: Leg, epoch: int) -> None:
        """Never: it does not notice."""


class Unpruned:
    """An Optuna sampler, every trial to its last epoch."""

    def __init__(self, problem: Problem, sampler: BaseSampler) -> None:
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._keys = keys_of(problem)
        self._open: dict[int, optuna.Trial] = {}

    def next(self) -> Leg:
        trial = self._study.ask()
        self._open[trial.number] = trial
        point = np.array([trial.suggest_float(key, 0, 1) for key in self._keys])
        return Leg(trial.number, point, 0, (EPOCHS,))

    def report(self, leg: Leg, epoch: int, value: float) -> bool:  # noqa: ARG002
        self._study.tell(self._open.pop(leg.trial), value)
        return False

    def explode(self, leg: Leg, epoch: int) -> None:
        """Never: it does not notice."""


class RaysOwn:
    """Ray Tune's OptunaSearch with its ASHAScheduler, as `tune.Tuner` calls them.

    The trainer does not notice an explosion and reports what it measures.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self._keys = keys_of(problem)
        space = {key: tune.uniform(0, 1) for key in self._keys}
        self._search = OptunaSearch(space, metric="value", mode="max", seed=seed)
        self._scheduler = ASHAScheduler(metric="value", mode="max", max_t=EPOCHS)
        self._trials: dict[int, Any] = {}

    def next(self) -> Leg | None:
        number = len(self._trials)
        trial = SimpleNamespace(trial_id=f"{number:05d}")
        found = self._search.suggest(trial.trial_id)
        if found is None:
            return None
        self._trials[number] = trial
        self._scheduler.on_trial_add(None, trial)
        return Leg(number, np.array([found[key] for key in self._keys]), 0, RAY_RUNGS)

    def report(self, leg: Leg, epoch: int, value: float) -> bool:
        trial = self._trials[leg.trial]
        result = {"value": value, "training_iteration": epoch}
        if self._scheduler.on_trial_result(None, trial, result) == "CONTINUE":
            self._search.on_trial_result(trial.trial_id, result)
            return True
        self._scheduler.on_trial_complete(None, trial, result)
        self._search.on_trial_complete(trial.trial_id, result)
        return False

    def explode(self, leg: Leg, epoch: int) -> None:
        """Never: it does not notice."""


class SyneTune:
    """Syne Tune's ASHA with conformalised quantile regression, as its `Tuner` calls them.

    Runs where `syne-tune` is installed, which is not a dependency of the project.
    """

    rungs = RAY_RUNGS

    def __init__(self, problem: Problem, seed: int) -> None:
        from syne_tune.config_space import uniform
        from syne_tune.optimizer.baselines import ASHACQR

        self._keys = keys_of(problem)
        self._scheduler = ASHACQR(
            {key: uniform(0, 1) for key in self._keys},
            metric="value",
            time_attr="epoch",
            max_t=EPOCHS,
            do_minimize=False,
            random_seed=seed,
            grace_period=self.rungs[0],
            reduction_factor=4,
        )
        self._trials: list[Any] = []

    def next(self) -> Leg | None:
        from syne_tune.backend.trial_status import Trial

        found = self._scheduler.suggest()
        if found is None:
            return None
        trial = Trial(len(self._trials), found.config, creation_time=datetime.now())
        self._trials.append(trial)
        self._scheduler.on_trial_add(trial)
        point = np.array([found.config[key] for key in self._keys])
        return Leg(trial.trial_id, point, 0, self.rungs)

    def report(self, leg: Leg, epoch: int, value: float) -> bool:
        trial, result = self._trials[leg.trial], {"value": value, "epoch": epoch}
        if epoch < EPOCHS:
            return bool(self._scheduler.on_trial_result(trial, result) == "CONTINUE")
        self._scheduler.on_trial_complete(trial, result)
        return False

    def explode(self, leg: Leg, epoch: int) -> None:
        """Never: it does not notice."""


class Stopping:
    """How this project searched before trials could pause.

    TPE over all settings together, told of stopped trials as pruned ones; Ray's ASHA stops them; evaluations are over
    all episodes, at every fourth of a training.
    """

    rungs = (4, 8, 16)
    reports = (4, 8, 12, 16)

    def __init__(self, problem: Problem, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler

        sampler = TPESampler(seed=seed, n_startup_trials=6, multivariate=True, constant_liar=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._keys = keys_of(problem)
        self._scheduler = ASHAScheduler(
            metric="value", mode="max", max_t=EPOCHS, grace_period=4, reduction_factor=2
        )
        self._open: dict[int, tuple[optuna.Trial, Any]] = {}

    def next(self) -> Leg:
        trial = self._study.ask()
        ray_trial = SimpleNamespace(trial_id=str(trial.number))
        self._scheduler.on_trial_add(None, ray_trial)
        self._open[trial.number] = trial, ray_trial
        point = np.array([trial.suggest_float(key, 0, 1) for key in self._keys])
        return Leg(trial.number, point, 0, self.reports, stops=True)

    def report(self, leg: Leg, epoch: int, value: float) -> bool:
        trial, ray_trial = self._open[leg.trial]
        if np.isfinite(value):
            trial.report(value, epoch)
            result = {"value": value, "training_iteration": epoch}
            if self._scheduler.on_trial_result(None, ray_trial, result) == "CONTINUE":
                return True
        elif epoch < EPOCHS:
            return True
        if epoch == EPOCHS:
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return False

    def explode(self, leg: Leg, epoch: int) -> None:  # noqa: ARG002
        trial, _ = self._open[leg.trial]
        trial.set_constraint("explosion", 1.0)
        self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def keys_of(problem: Problem) -> list[str]:
    """Names of the settings."""
    return [f"x{number}" for number in range(problem.dimensions)]


def ours(problem: Problem, seed: int, budget: float) -> Method:
    """The product as its defaults are, without baselines: no other method knows of any."""
    return Product(problem, seed, budget)


ARMS: dict[str, Callable[[Problem, int, float], Method]] = {
    "random": lambda problem, seed, _: RandomSearch(problem, seed),
    "reference": lambda problem, seed, _: RaysOwn(problem, seed),
    "null": lambda problem, seed, _: RaysOwn(problem, seed + 500),
    "tpe": lambda problem, seed, _: Unpruned(problem, TPESampler(seed=seed)),
    "gp": lambda problem, seed, _: Unpruned(problem, GPSampler(seed=seed)),
    "syne_tune": lambda problem, seed, _: SyneTune(problem, seed),
    "stopping": lambda problem, seed, _: Stopping(problem, seed),
    "ours": ours,
    "ours_tpe": lambda problem, seed, budget: Product(problem, seed, budget, sampler="tpe"),
    "ours_prior": lambda problem, seed, budget: Product(problem, seed, budget, baselines=True),
}
"""Name -> method for a problem, a seed and a budget in complete trainings."""
