"""Asynchronous successive halving with pauses: which trial trains next, and how far.

The rule is ASHA as Li et al. describe it ("A System for Massively Parallel Hyperparameter Tuning", 2020): a trial
that reaches a rung pauses and frees its worker. The next free worker gets, from the highest rung down, the best
paused trial among the first 1/reduction of all that reached that rung; if there is none, a new trial. Ray's
scheduler of the same name never pauses: it stops a trial for good as soon as it reports, when its rivals may not
have begun.

Trials that exploded count as reached and rank last, so that more of them mean more promotions among the others.

At the end, when all trials have begun and none may be promoted, the finalists train to their last epoch: every
baseline, since the comparison needs it whole, and the best paused trial if no other was completed. What is still
paused then is pruned.

`decide` is a pure function of the trials, which a resumed sweep reads from its study.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sweeps.states import ENDED, State


@dataclass(slots=True)
class Progress:
    """How far a trial has come."""

    number: int
    epochs: int
    """Of the complete trial."""
    baseline: bool = False
    state: State = State.RUNNING
    until: int | None = None
    """Epoch at which it pauses next; None if it runs to its end."""
    price: float | None = None
    """Of its last evaluation before the end, in epochs of training; None if it is not known."""
    values: dict[int, float] = field(default_factory=dict)
    """Epoch -> objective, more is better."""

    @property
    def epoch(self) -> int:
        """Last epoch with a value; 0 before the first."""
        return max(self.values, default=0)

    @property
    def value(self) -> float:
        """Value at `epoch`."""
        return self.values.get(self.epoch, -math.inf)


@dataclass(frozen=True)
class Train:
    """Train a trial."""

    number: int | None
    """Of a paused trial; None for a new one."""
    until: int | None
    """Epoch at which it pauses; None to run to its end."""


class Idle(Enum):
    """Why no trial is trained."""

    WAIT = "running trials decide what is next"
    DONE = "every trial has ended or is to be pruned"


Decision = Train | Idle


def decide(
    trials: Sequence[Progress],
    rungs: Sequence[int],
    reduction: float,
    may_begin: bool,
    budget: float | None = None,
) -> Decision:
    """What the next free worker does.

    Args:
        trials: all that have begun.
        rungs: epochs at which trials pause, ascending.
        reduction: at each rung the best 1/reduction go on.
        may_begin: whether there are further trials.
        budget: epochs that all trials together may take; None for no limit.
    """
    chosen = search(trials, rungs, reduction, may_begin)
    if chosen is None or (budget is not None and committed(trials, chosen) > budget):
        return finish(trials)
    return chosen


def search(
    trials: Sequence[Progress], rungs: Sequence[int], reduction: float, may_begin: bool
) -> Train | None:
    """The trial to promote or to begin; None if there is none."""
    for rung, following in reversed(list(zip(rungs, (*rungs, None)[1:], strict=True))):
        best = promotable(trials, rung, reduction)
        if best is not None:
            return Train(best.number, next_stop(best.epochs, following))
    return Train(None, rungs[0] if rungs else None) if may_begin else None


def committed(trials: Sequence[Progress], chosen: Train) -> int:
    """Epochs that are spent once `chosen`, what runs now, and the finalists have trained."""
    longest = max((t.epochs for t in trials), default=0)
    total = 0
    completes = False
    for trial in trials:
        running = trial.state not in (*ENDED, State.PAUSED)
        until, goes_on = trial.until, running
        if trial.number == chosen.number:
            until, goes_on = chosen.until, True
        ends = trial.baseline and trial.state not in ENDED
        total += (
            (trial.epochs if ends or until is None else until) if goes_on or ends else trial.epoch
        )
        completes |= not trial.baseline and (
            trial.state is State.COMPLETED or (goes_on and until is None)
        )
    if chosen.number is None:
        total += longest if chosen.until is None else chosen.until
        completes |= chosen.until is None
    return total if completes else total + longest - reached_by_finalist(trials, chosen)


def reached_by_finalist(trials: Sequence[Progress], chosen: Train) -> int:
    """Epochs behind it of the trial that will be finished as the best: a running one may explode before it pauses."""
    others = [t for t in trials if not t.baseline and t.number != chosen.number]
    paused = [t.epoch for t in others if t.state is State.PAUSED]
    running = [t.until or 0 for t in others if t.state not in (*ENDED, State.PAUSED)]
    return max(paused or [*running, chosen.until or 0])


def next_stop(epochs: int, rung: int | None) -> int | None:
    """`rung`, or None for a trial that ends before it."""
    return None if rung is None or rung >= epochs else rung


def promotable(trials: Iterable[Progress], rung: int, reduction: float) -> Progress | None:
    """The best trial that is paused at `rung` and belongs to the best 1/reduction there."""
    reached = sorted((t for t in trials if has_reached(t, rung)), key=lambda t: rank(t, rung))
    first = reached[: int(len(reached) / reduction)]
    return next((t for t in first if t.state is State.PAUSED and t.epoch == rung), None)


def has_reached(trial: Progress, rung: int) -> bool:
    """Whether a trial counts at a rung: it has a value there, or exploded on the way."""
    return rung in trial.values or (
        trial.state is State.INFEASIBLE and trial.until is not None and trial.until >= rung
    )


def rank(trial: Progress, rung: int) -> tuple[float, int]:
    """Sort key at a rung: the best value first, of equals the earlier trial; an exploded one last."""
    exploded = trial.state is State.INFEASIBLE
    return (math.inf if exploded else -trial.values[rung], trial.number)


def finish(trials: Sequence[Progress]) -> Decision:
    """What is left to do when no further trial begins and none may be promoted."""
    paused = [t for t in trials if t.state is State.PAUSED]
    for trial in paused:
        if trial.baseline:
            return Train(trial.number, None)
    if any(t.state not in (*ENDED, State.PAUSED) for t in trials):
        return Idle.WAIT
    if paused and not any(t.state is State.COMPLETED and not t.baseline for t in trials):
        return Train(max(paused, key=lambda t: (t.epoch, t.value, -t.number)).number, None)
    return Idle.DONE


def standing(trials: Iterable[Progress], trial: Progress) -> str:
    """Why a trial that is still paused at the end was not promoted."""
    rung = trial.epoch
    reached = sorted((t for t in trials if has_reached(t, rung)), key=lambda t: rank(t, rung))
    place = 1 + [t.number for t in reached].index(trial.number)
    return f"rank {place} of {len(reached)} at epoch {rung}"
