"""`Mixture`: draws some configurations evenly, some around the baselines, the others as the sampler suggests.

A sampler that learns from early rungs finds what is good early. Even draws keep the search from settling there; they
are at least a third of all, as in BOHB (Falkner et al. 2018). Baselines are beliefs about where the best configuration
lies, as in PriorBand (Mallik et al. 2023): some configurations are drawn around them. Each source gets its share in
proportion to the square of its success: the fraction of its trials that are among the best quarter at the first rung.
So a misleading baseline loses its share after a few trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

EVEN, LEARNT, AROUND = "even", "learnt", "around "
"""Sources of a configuration; the last is followed by the name of a baseline."""
EVEN_SHARE = 1 / 3
"""Smallest share of the even draws."""
BEST = 0.25
"""A trial is a success if it is among this fraction at the first rung."""


class Mixture(BaseSampler):
    """Samples each trial from one of several sources.

    Args:
        learnt: the sampler that learns; None draws evenly and around the baselines only.
        baselines: name -> searched settings; empty draws around none.
        width: standard deviation of draws around a baseline, as a fraction of each range.
        seed: of the choice of sources and of the draws.
    """

    def __init__(
        self,
        learnt: BaseSampler | None,
        baselines: Mapping[str, Mapping[str, Any]],
        width: float,
        seed: int,
    ) -> None:
        self._learnt = learnt
        self._chance = np.random.default_rng(seed)
        # not `seed` itself, with which the first draws of `learnt` would be the same
        self._even = RandomSampler(int(self._chance.integers(2**32)))
        self._baselines = baselines
        self._width = width
        self.successes: dict[str, tuple[int, int]] = {}
        """Source -> its successes and its trials."""
        self.source = EVEN
        """Of the latest trial."""

    def reseed_rng(self) -> None:
        """Reseed everything."""
        if self._learnt is not None:
            self._learnt.reseed_rng()
        self._even.reseed_rng()
        self._chance = np.random.default_rng()

    def shares(self) -> dict[str, float]:
        """Source -> probability of the next draw."""
        learnt = [] if self._learnt is None else [LEARNT]
        sources = [EVEN, *learnt, *(AROUND + name for name in self._baselines)]
        weights = {name: _weight(*self.successes.get(name, (0, 0))) for name in sources}
        even = max(EVEN_SHARE, weights[EVEN] / sum(weights.values()))
        others = sum(weights.values()) - weights[EVEN]
        return {
            name: even if name == EVEN else (1 - even) * weight / others
            for name, weight in weights.items()
        }

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Choose the source of a trial."""
        shares = self.shares()
        self.source = str(self._chance.choice(list(shares), p=list(shares.values())))
        if self._sampler is not None:
            self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Settings that the sampler draws together; those of other sources are drawn one by one."""
        return (
            {} if self._sampler is None else self._sampler.infer_relative_search_space(study, trial)
        )

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw settings together."""
        if self._sampler is None:
            return {}
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one setting."""
        baseline = self._baselines.get(self.source.removeprefix(AROUND), {})
        if self.source.startswith(AROUND) and param_name in baseline:
            return draw_around(baseline[param_name], param_distribution, self._width, self._chance)
        sampler = self._sampler or self._even
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the sampler, whatever the source was."""
        if self._learnt is not None:
            self._learnt.after_trial(study, trial, state, values)

    @property
    def _sampler(self) -> BaseSampler | None:
        """The sampler that learns, if it is the source of the latest trial."""
        return self._learnt if self.source == LEARNT else None


def _weight(successes: int, trials: int) -> float:
    """Squared success of a source, which counts as that of chance over four trials before its first."""
    return float(((successes + 4 * BEST) / (trials + 4)) ** 2)


def count_successes(
    values: Mapping[int, float], sources: Mapping[int, str]
) -> dict[str, tuple[int, int]]:
    """Source -> successes and trials.

    Args:
        values: trial -> value at the first rung, more is better; minus infinity if it exploded.
        sources: trial -> its source; others are baselines or copied trials, which only compete.
    """
    best = sorted(values, key=lambda number: -values[number])[: math.ceil(BEST * len(values))]
    found: dict[str, tuple[int, int]] = {}
    for number, source in sources.items():
        if number in values:
            successes, trials = found.get(source, (0, 0))
            success = number in best and values[number] > -math.inf
            found[source] = successes + success, trials + 1
    return found


def draw_around(
    value: Any, distribution: BaseDistribution, width: float, chance: np.random.Generator
) -> Any:
    """A value near `value`: of a normal distribution over the range, on its scale, cut off at its ends.

    A choice is kept with probability 1 - `width`, otherwise drawn evenly.
    """
    if isinstance(distribution, CategoricalDistribution):
        if chance.random() >= width:
            return value
        return distribution.choices[int(chance.integers(len(distribution.choices)))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    scale = np.log if distribution.log else float
    low, high = float(scale(distribution.low)), float(scale(distribution.high))
    drawn = math.inf
    while not low <= drawn <= high:
        drawn = chance.normal(float(scale(value)), width * (high - low))
    number = float(np.exp(drawn)) if distribution.log else drawn
    if distribution.step is not None:
        number = distribution.low + distribution.step * round(
            (number - distribution.low) / distribution.step
        )
    number = min(max(number, distribution.low), distribution.high)
    return round(number) if isinstance(distribution, IntDistribution) else number
