"""Bisection: the largest value of each range at which a training is stable: it neither explodes nor is lost.

A *line* is one range at one combination of all choices, the other ranges as in the baseline. A trial lies on a line and
halves what is left of it: between the largest stable value and the smallest unstable one above it, on the scale of the
range. The widest line is halved next, so that all become equally narrow; lines with a running trial wait. A trial that
fails says nothing about its line, but takes a turn of it: the line waits until the others are half as wide.

A training can be lost without an explosion: a step of AdamW has the size of the learning rate, whatever the gradient.
The weights are then so large that scores saturate, and with them loss and gradient vanish. `sampler.worst` says which
objective is too bad for a training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweeps.config import SweepSpec
from sweeps.states import State
from sweeps.study.records import TrialRecord, to_record

Distributions = Mapping[str, BaseDistribution]
Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One range at one combination of choices."""

    key: str
    """The setting whose range it is."""
    choices: tuple[tuple[str, Any], ...]
    """Setting and value of every choice, in the order of the YAML."""


@dataclass(frozen=True)
class Bracket:
    """What is known of a line."""

    stable: float
    """The largest value below every unstable one that was tried; the baseline's before any."""
    unstable: float | None
    """The smallest unstable value; None without one."""
    end: float
    """Upper end of the range."""
    log: bool
    """Whether the range is on a logarithmic scale."""

    @property
    def next(self) -> float:
        """The value to try next: the end of the range, then the middle of what is left."""
        if self.unstable is None:
            return self.end
        if self.log:
            return math.sqrt(self.stable * self.unstable)
        return (self.stable + self.unstable) / 2

    @property
    def span(self) -> float:
        """What is left up to the end of the range, on the scale of the range."""
        return math.log(self.end / self.stable) if self.log else self.end - self.stable

    @property
    def width(self) -> float:
        """What is left, on the scale of the range; 0 if its end is stable."""
        if self.unstable is None:
            return 0.0 if self.stable >= self.end else math.inf
        if self.log:
            return math.log(self.unstable / self.stable)
        return self.unstable - self.stable


def lines_of(distributions: Distributions) -> list[Line]:
    """All lines, those of the first value of the first choice first."""
    choices = {
        k: d.choices for k, d in distributions.items() if isinstance(d, CategoricalDistribution)
    }
    keys = [key for key in distributions if key not in choices]
    combinations = itertools.product(*choices.values())
    return [Line(k, tuple(zip(choices, one, strict=True))) for one in combinations for k in keys]


def find_bracket(
    line: Line,
    distribution: BaseDistribution,
    baseline: Parameters,
    trials: Iterable[tuple[Parameters, bool]],
) -> Bracket:
    """What trials say about a line.

    Args:
        line: of the space.
        distribution: of its range.
        baseline: values of the ranges.
        trials: settings of each that ended, and whether it was unstable.
    """
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    found = [(p[line.key], bad) for p, bad in trials if lies_on(line, p, baseline)]
    unstable = min((float(value) for value, bad in found if bad), default=None)
    low, start = float(distribution.low), float(baseline[line.key])
    if unstable is not None and unstable <= start:
        start = low
    below = [float(value) for value, bad in found if not bad]
    stable = max((v for v in below if unstable is None or v < unstable), default=start)
    return Bracket(max(stable, start), unstable, float(distribution.high), distribution.log)


def lies_on(line: Line, parameters: Parameters, baseline: Parameters) -> bool:
    """Whether a trial with these settings lies on a line."""
    given = dict(line.choices)
    return all(
        value == given[key] if key in given else key == line.key or value == baseline[key]
        for key, value in parameters.items()
    )


def is_unstable(trial: TrialRecord, spec: SweepSpec) -> bool | None:
    """Whether a trial exploded, or ended with an objective worse than `sampler.worst`; None if it says neither."""
    if trial.state is State.INFEASIBLE:
        return True
    if trial.state is not State.COMPLETED:
        return None
    worst, sign = spec.sampler.worst, spec.objective.sign
    return worst is not None and trial.value is not None and sign * trial.value < sign * worst


class Bisection(BaseSampler):
    """Suggests the next value of the widest line.

    Args:
        spec: of the sweep; its one baseline gives the values of the ranges.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._distributions = spec.distributions()
        self._baseline = ranges_of_baseline(spec)
        self._lines = lines_of(self._distributions)
        self._chosen: dict[int, dict[str, Any]] = {}

    def reseed_rng(self) -> None:
        """Nothing: nothing is random."""

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Nothing: settings are looked up one by one."""
        return {}

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Nothing, see above."""
        return {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Choose the line of a trial, and the value on it."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        self._chosen[trial.number] = self._choose(trials)

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        """The chosen value of one setting."""
        return self._chosen[trial.number][param_name]

    def _choose(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        ended = judged(map(to_record, trials), self._spec)
        running = [t.params for t in trials if t.state == TrialState.RUNNING]
        brackets = {
            line: find_bracket(line, self._distributions[line.key], self._baseline, ended)
            for line in self._lines
        }
        waiting = {
            line
            for line in self._lines
            if any(
                lies_on(line, parameters, self._baseline)
                and parameters.get(line.key) != self._baseline[line.key]
                for parameters in running
            )
        }
        free = [line for line in self._lines if line not in waiting] or self._lines
        failed = [t.params for t in trials if t.user_attrs.get("state") == State.FAILED]
        line = max(free, key=lambda one: urgency(brackets[one], self._count(one, failed)))
        value = brackets[line].next
        if isinstance(self._distributions[line.key], IntDistribution):
            value = round(value)
        return {**self._baseline, **dict(line.choices), line.key: value}

    def _count(self, line: Line, trials: Iterable[Parameters]) -> int:
        return sum(lies_on(line, parameters, self._baseline) for parameters in trials)


def urgency(bracket: Bracket, failures: int) -> float:
    """How much a line is in need of a trial: its width, halved for each trial that failed on it."""
    if math.isinf(bracket.width) and not failures:
        return math.inf
    left = bracket.width if math.isfinite(bracket.width) else bracket.span
    return math.ldexp(left, -failures)


def ranges_of_baseline(spec: SweepSpec) -> dict[str, Any]:
    """The baseline's value of every range."""
    (baseline,) = spec.baseline_parameters().values()
    return {key: baseline[key] for key, part in spec.space.items() if part.choices is None}


def judged(trials: Iterable[TrialRecord], spec: SweepSpec) -> list[tuple[Parameters, bool]]:
    """Settings of the trials that say something, and whether each was unstable."""
    found = [(trial.parameters, is_unstable(trial, spec)) for trial in trials]
    return [(parameters, bad) for parameters, bad in found if bad is not None]
