"""Runs a search method against a problem in simulated time, with any number of workers.

A worker trains one trial from report to report. The simulated clock counts training times: one is the time in
which a configuration trains to its end, without evaluations. Compute is the same summed over workers.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmarks.simulation.tables import ALL_PRICE, EPOCHS, FEW_PRICE, Array, Curve, Problem


@dataclass
class Leg:
    """A stretch of one trial on one worker: it reports at each of `reports`, then is handed back."""

    trial: int
    point: Array
    done: int
    """Epochs that it has trained before."""
    reports: tuple[int, ...]
    """Epochs at which it is evaluated, ascending."""
    few: bool = False
    """Whether evaluations before the last epoch are over few episodes."""
    stops: bool = False
    """Whether an explosion ends it."""


class Method(Protocol):
    """A search method, driven by the clock."""

    def next(self) -> Leg | None:
        """The next stretch to train; None to wait for a running one, or at the end."""

    def report(self, leg: Leg, epoch: int, value: float) -> bool:
        """A value was measured; returns whether the trial continues. Called for the last report, too."""

    def explode(self, leg: Leg, epoch: int) -> None:
        """The trial exploded behind this epoch and has ended."""


@dataclass
class Run:
    """What happened."""

    compute: list[float] = field(default_factory=list)
    """Compute spent at each completed training, in complete trainings with their evaluation."""
    time: list[float] = field(default_factory=list)
    """Simulated time of the same."""
    quality: list[float] = field(default_factory=list)
    """True quality of the incumbent then: of all completed trainings that with the best measured value."""
    total: float = 0.0
    exploded: float = 0.0
    """Compute in trials that explode sooner or later."""
    trials: set[int] = field(default_factory=set)
    _best: float = -np.inf

    def complete(self, value: float, quality: float, time: float) -> None:
        """A training reached its last epoch."""
        if value > self._best:
            self._best = value
            self.compute.append(self.total / (1 + ALL_PRICE))
            self.time.append(time)
            self.quality.append(quality)


def simulate(method: Method, problem: Problem, budget: float, workers: int = 1) -> Run:
    """Run `method` until it has spent its budget or has nothing more to do.

    Args:
        method: new.
        problem: gives curves.
        budget: in complete trainings, each with its evaluation.
        workers: trainings at once.
    """
    run, order = Run(), itertools.count()
    running: list[tuple[float, int, Leg, Curve, int]] = []
    now, free, limit = 0.0, workers, budget * (1 + ALL_PRICE)

    def start(leg: Leg, curve: Curve, position: int) -> None:
        before = leg.reports[position - 1] if position else leg.done
        epoch = leg.reports[position]
        curve.train(epoch, leg.stops)
        end = min(epoch, curve.explodes) if leg.stops else epoch
        price = (end - before) / EPOCHS
        if end == epoch:
            price += FEW_PRICE if leg.few and epoch < EPOCHS else ALL_PRICE
        heapq.heappush(running, (now + price, next(order), leg, curve, position))
        run.total += price
        run.exploded += price * bool(np.isfinite(curve.explodes))

    while True:
        while free and run.total < limit and (leg := method.next()) is not None:
            run.trials.add(leg.trial)
            start(leg, problem.curve(leg.point), 0)
            free -= 1
        if not running:
            return run
        now, _, leg, curve, position = heapq.heappop(running)
        epoch = leg.reports[position]
        if leg.stops and curve.explodes < epoch:
            method.explode(leg, int(curve.explodes))
            free += 1
            continue
        few = leg.few and epoch < EPOCHS
        value = float((curve.few if few else curve.every)[epoch - 1])
        if epoch == EPOCHS:
            run.complete(value, curve.quality, now)
        continues = method.report(leg, epoch, value)
        if continues and position + 1 < len(leg.reports) and run.total < limit:
            start(leg, curve, position + 1)
        else:
            free += 1
