"""Optuna's trials as plain records: what the rest of the product reads of a study."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from fsdet.errors import cut
from sweeps.config import Objective
from sweeps.errors import SweepError
from sweeps.states import State
from sweeps.storage.folder import CURE_OF_DAMAGE
from sweeps.study.store import reason_of

WARM_START = "warm_start"
"""Attribute of a trial that was copied from the sweep of that name."""
RETRIED = "retried"
"""Attribute of a trial that ran out of memory and was tried again, alone: the reason; tag of its run."""
UNTIL = "until"
"""Attribute with the epoch at which a trial pauses next; missing or None if it runs to its end."""
SOURCE = "source"
"""Attribute: which part of a `sweeps.search.mixture.Mixture` drew the trial."""
PRESET = "preset"
"""Attribute of a trial with given settings: the rest of its `Preset`."""
LEGS = "legs"
"""Attribute with the times at which the trial was trained; see `TrialRecord.legs`."""
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What Optuna raises when it reads a study that it did not write so."""
CURVE = "curve"
"""Attribute with the values by epoch where Optuna accepts no intermediate values: with two objectives."""


@dataclass(frozen=True)
class Preset:
    """A trial whose settings are given, not suggested: a baseline, or a configuration at a seed to confirm."""

    parameters: dict[str, Any]
    """Searched settings."""
    baseline: str | None = None
    """Name of the baseline, if it is one."""
    key: str = ""
    """Name of its folder and of its run; empty for the trial's number."""
    title: str = ""
    """Shown beside its number."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings that are not searched but differ between trials, such as the seed."""
    tags: dict[str, Any] = field(default_factory=dict)
    """Further tags of its run."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the study stores it."""

    number: int
    state: State
    parameters: dict[str, Any]
    value: float | None = None
    """The objective at the best epoch; None if it was never measured."""
    standard_error: float | None = None
    """Of `value`, over the episodes of the evaluation."""
    best_epoch: int | None = None
    """Epoch at which `value` was measured."""
    baseline: str | None = None
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """All metrics of the evaluation that `value` comes from."""
    costs: dict[str, float] = field(default_factory=dict)
    """Seconds of a step and bytes of memory."""
    seconds: float = 0.0
    """Wall time, all sessions together."""
    legs: tuple[tuple[float, float], ...] = ()
    """Begin and end, in seconds since the epoch, of each stretch that it was trained without a pause."""
    retried: str = ""
    """Why it was retried alone; empty if it was not."""
    preset: Preset | None = None
    """Its given settings; None if they were suggested."""
    until: int | None = None
    """Epoch at which it pauses next, or is paused; None if it runs to its end."""

    @property
    def title(self) -> str:
        """Shown beside its number: a baseline's name, or a candidate and its seed."""
        return (self.preset.title if self.preset else "") or self.baseline or ""

    @property
    def label(self) -> str:
        """Number and title."""
        return f"{self.number} ({self.title})" if self.title else str(self.number)

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return (self.preset.key if self.preset else "") or folder_of(self.number)

    @property
    def run_key(self) -> str:
        """Tag `sweep.trial` of its run in the tracker."""
        return (self.preset.key if self.preset else "") or str(self.number)


def folder_of(number: int) -> str:
    """Name of the folder of a trial of the search."""
    return f"{number:04d}"


def damage(error: Exception) -> str:
    """What to do about a study that cannot be read."""
    return f"the study is damaged ({cut(reason_of(error))}); {CURE_OF_DAMAGE}"


def to_records(trials: Iterable[FrozenTrial], alive: bool = True) -> list[TrialRecord]:
    """Optuna's trials as records, without those that never began or were copied by a warm start.

    Args:
        trials: of one study.
        alive: whether a driver runs the sweep; if not, its running trials are interrupted.

    Raises:
        SweepError: the study is damaged.
    """
    own = [t for t in trials if t.state != TrialState.WAITING and WARM_START not in t.user_attrs]
    try:
        return [to_record(trial, alive) for trial in own]
    except DAMAGED as error:
        raise SweepError(damage(error)) from None


def to_record(trial: FrozenTrial, alive: bool = True) -> TrialRecord:
    """One Optuna trial as a record; see `to_records`."""
    attrs = trial.user_attrs
    state = State(attrs.get("state", State.RUNNING))
    if state is State.RUNNING and not alive:
        state = State.INTERRUPTED
    return TrialRecord(
        number=trial.number,
        state=state,
        parameters=dict(trial.params),
        value=attrs.get("best"),
        standard_error=attrs.get("standard_error"),
        best_epoch=attrs.get("best_epoch"),
        baseline=attrs.get("baseline"),
        reason=attrs.get("reason", ""),
        metrics=attrs.get("metrics", {}),
        costs=attrs.get("costs", {}),
        seconds=attrs.get("seconds", 0.0),
        legs=tuple((begin, end) for begin, end in attrs.get(LEGS, [])),
        retried=attrs.get(RETRIED, ""),
        preset=_preset(trial),
        until=attrs.get(UNTIL),
    )


def _preset(trial: FrozenTrial) -> Preset | None:
    attrs = trial.user_attrs
    if PRESET not in attrs and attrs.get("baseline") is None:
        return None
    return Preset(dict(trial.params), attrs.get("baseline"), **attrs.get(PRESET, {}))


def curve_of(trial: FrozenTrial) -> dict[int, float]:
    """Epoch -> value of the objective, by which trials are ranked at rungs."""
    if trial.intermediate_values:
        return dict(trial.intermediate_values)
    return {int(epoch): value for epoch, value in trial.user_attrs.get(CURVE, {}).items()}


def ranked(trials: Iterable[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """The completed trials, best value first, of equals the earlier first."""
    done = [t for t in trials if t.state is State.COMPLETED and t.value is not None]
    return sorted(done, key=lambda t: (-objective.sign * (t.value or 0.0), t.number))


def best_of(trials: Iterable[TrialRecord], objective: Objective) -> TrialRecord | None:
    """The completed trial with the best value, the earlier of equals; None if none completed."""
    return next(iter(ranked(trials, objective)), None)


def noise_of_difference(a: TrialRecord, b: TrialRecord) -> float | None:
    """Two standard errors of the difference of two values; None where a standard error is unknown.

    The evaluation episodes are the same for all trials, so that this is an upper bound.
    """
    if a.standard_error is None or b.standard_error is None:
        return None
    return 2 * math.hypot(a.standard_error, b.standard_error)
