"""Samplers: choose the next configuration.

Five are Optuna's own. Two need more than settings:

- CMA-ES does not support constraints. It uses only the ranks of the trials of a generation, so exploded
  trials, which are reported as completed, only need to rank last (Deb's rule).
- An exhausted grid must not stop a study that is used through ask and tell.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.config import SweepSpec
from sweeps.search.bisection import Bisection
from sweeps.search.mixture import Mixture

LEARNING = ("tpe", "gp")
"""Samplers that are mixed with even draws while trials pause."""


def build_sampler(spec: SweepSpec, trials_before: int = 0) -> BaseSampler:
    """The Optuna sampler of a sweep.

    Args:
        spec: the sweep, checked.
        trials_before: number of trials in the study. It shifts the seed, since a new sampler with the
            same seed would suggest the same configurations again.
    """
    build: dict[str, Callable[[SweepSpec, int], BaseSampler]] = {
        "tpe": _tpe,
        "gp": _gp,
        "random": lambda _, seed: RandomSampler(seed),
        "qmc": _qmc,
        "cmaes": _cmaes,
        "grid": lambda _, seed: Grid(seed),
        "nsgaii": _nsgaii,
        "bisection": _bisection,
    }
    seed = spec.sampler.seed + trials_before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = build[spec.sampler.name](spec, seed)
    return _mixed(spec, sampler, seed) if spec.rungs else sampler


def _mixed(spec: SweepSpec, sampler: BaseSampler, seed: int) -> BaseSampler:
    """The sampler mixed with draws around the baselines; one with a plan of its own stays as it is."""
    learns = spec.sampler.name in LEARNING
    if not learns and spec.sampler.name != "random":
        return sampler
    baselines = {} if spec.prior is None else spec.baseline_parameters()
    width = 0.0 if spec.prior is None else spec.prior.width
    return Mixture(sampler if learns else None, baselines, width, seed)


def _tpe(spec: SweepSpec, seed: int) -> BaseSampler:
    # multivariate: settings interact, a high multiplier explodes only with a high clip norm;
    # constant_liar: running trials count as bad, so that parallel trials do not get the same suggestion;
    # group: settings that apply together are modelled together
    return TPESampler(
        n_startup_trials=spec.sampler.startup_trials,
        multivariate=True,
        group=any(parameter.when for parameter in spec.space.values()),
        constant_liar=True,
        seed=seed,
    )


def _gp(spec: SweepSpec, seed: int) -> BaseSampler:
    # Optuna warns that greenlet is not installed, which would save 0.1 s per suggestion
    logging.getLogger("optuna._gp.batched_lbfgsb").setLevel(logging.ERROR)
    return GPSampler(seed=seed, n_startup_trials=spec.sampler.startup_trials)


def _qmc(spec: SweepSpec, seed: int) -> BaseSampler:
    # the study stores the position in the sequence; another seed would start a new one
    return QMCSampler(
        seed=spec.sampler.seed,
        scramble=True,
        independent_sampler=RandomSampler(seed),
        warn_independent_sampling=False,
    )


def _cmaes(spec: SweepSpec, seed: int) -> BaseSampler:
    return ConstrainedCmaEs(
        n_startup_trials=spec.sampler.startup_trials,
        independent_sampler=RandomSampler(seed),
        warn_independent_sampling=False,
        consider_pruned_trials=True,
        seed=seed,
    )


def _nsgaii(spec: SweepSpec, seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=spec.sampler.startup_trials, seed=seed)


def _bisection(spec: SweepSpec, _: int) -> BaseSampler:
    return Bisection(spec)


class ConstrainedCmaEs(CmaEsSampler):
    """CMA-ES that ranks exploded trials last, by their constraint violation.

    Overrides the private method `_get_trials`; see `sweeps.study.internals`.
    """

    def _get_trials(self, study: optuna.Study) -> list[FrozenTrial]:
        trials = super()._get_trials(study)
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        worst = max((sign * _value(t) for t in trials if _violation(t) <= 0), default=0.0)
        return [t if _violation(t) <= 0 else _with_value(t, sign, worst) for t in trials]

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Constraints have been set")
            super().after_trial(study, trial, state, values)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _violation(trial: FrozenTrial) -> float:
    return max(trial.constraints.values(), default=0.0)


def _with_value(trial: FrozenTrial, sign: int, worst: float) -> FrozenTrial:
    """A copy whose value is worse than `worst` by its violation."""
    ranked = copy.copy(trial)
    ranked.value = sign * (worst + _violation(trial))
    return ranked


class Grid(BruteForceSampler):
    """Every configuration of a finite space in random order, conditions included.

    A configuration that is running, or ended in any state, is not tried again.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Do nothing, where Optuna would stop the study: the session limits the number of trials."""
