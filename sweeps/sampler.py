"""Samplers: who suggests the next configuration."""

from __future__ import annotations

import warnings

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from sweeps.spec import SamplerSpec


def build_sampler(spec: SamplerSpec, trials_before: int = 0) -> BaseSampler:
    """The Optuna sampler of a sweep.

    Args:
        spec: name and seed.
        trials_before: trials that the study holds already. They shift the seed, since a sampler
        that
            starts anew with the old seed would suggest the old configurations again.
    """
    seed = spec.seed + trials_before
    if spec.name == "random":
        return RandomSampler(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # multivariate: the settings act together, a high multiplier explodes only beside a high
        # clip norm; constant_liar: trials that still run count as bad, so that two at once do not
        # meet
        return TPESampler(
            n_startup_trials=spec.startup_trials, multivariate=True, constant_liar=True, seed=seed
        )
