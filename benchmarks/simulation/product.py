"""The product's own searcher, driven by the simulated clock: a real study in memory, real requests and reports."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.simulation.clock import Leg
from benchmarks.simulation.tables import EPOCHS, FEW_PRICE, Problem
from sweeps.config import SweepSpec
from sweeps.search.sampler import build_sampler
from sweeps.search.searcher import StudySearcher
from sweeps.search.stopping import StoppingCriteria
from sweeps.states import Outcome, State
from sweeps.study.study import baselines_left, create_study
from sweeps.trial.messages import (
    BestValue,
    TrialEnd,
    TrialReport,
    TrialRequest,
    outcome_of,
)
from sweeps.trial.trial import TrialContext
from sweeps.trial.worker import EVALUATION_EPOCHS

SETTINGS = (
    "gradient_clip_norm",
    "dfl_weight",
    "backbone_lr_mult",
    "support_encoder_lr_mult",
    "fusion_lr_mult",
    "head_lr_mult",
    "lr",
    "cls_weight",
)
"""Settings of the trainer that stand for those of a problem, each searched from 0.01 to 1 on a log scale."""
LOW = 0.01


class Memory:
    """A study in memory."""

    def __init__(self) -> None:
        self._storage = InMemoryStorage()

    name, place = "sweep", "memory"

    def storage(self) -> BaseStorage:
        return self._storage

    def exists(self) -> bool:
        return True

    def repair(self) -> None:
        """Nothing can be damaged."""

    def check(self) -> None:
        """It can always be written."""

    def locked(self) -> AbstractContextManager[None]:
        return nullcontext()

    def beside(self, name: str) -> Memory:  # noqa: ARG002
        return Memory()

    def is_locked(self) -> bool:
        return True


class Product:
    """A sweep of the product."""

    def __init__(
        self,
        problem: Problem,
        seed: int,
        budget: float,
        sampler: str = "random",
        baselines: bool = False,
        **changes: Any,
    ) -> None:
        self._keys = SETTINGS[: problem.dimensions]
        given = {name: self._settings(point) for name, point in problem.baselines.items()}
        self._spec = SweepSpec(
            name="simulated",
            space={key: {"low": LOW, "high": 1.0, "log": True} for key in self._keys},
            fixed={"epochs": EPOCHS},
            baselines=given if baselines else {},
            trials=100_000,
            sampler={"name": sampler, "seed": seed},
            budget={"trainings": budget},
            **changes,
        )
        store = Memory()
        study = create_study(store, self._spec, build_sampler(self._spec))
        stopping = StoppingCriteria(self._spec)
        context = TrialContext(self._spec.objective, Path("trials"), "simulated")
        presets = baselines_left(study, self._spec)
        self.searcher = StudySearcher(
            study, self._spec, context, store, stopping, presets=presets, suggestions=100_000
        )
        self.study: optuna.Study = study
        self._rungs = (*self._spec.rungs, EPOCHS)
        self._open: dict[int, TrialRequest] = {}
        self._reached: dict[int, int] = {}

    def _settings(self, point: Any) -> dict[str, float]:
        return {k: float(LOW ** (1 - v)) for k, v in zip(self._keys, point, strict=True)}

    def next(self) -> Leg | None:
        request = self.searcher.next_request()
        if not isinstance(request, TrialRequest):
            return None
        self._open[request.number] = request
        done, until = self._reached.get(request.number, 0), request.until or EPOCHS
        point = 1 - np.log([request.parameters[key] for key in self._keys]) / np.log(LOW)
        reports = tuple(rung for rung in self._rungs if done < rung <= until)
        return Leg(request.number, point, done, reports, few=True, stops=True)

    def report(self, leg: Leg, epoch: int, value: float) -> bool:
        last = epoch == leg.reports[-1]
        phase = "running" if not last else "final" if epoch == EPOCHS else "paused"
        best = BestValue(value, epoch)
        costs = {EVALUATION_EPOCHS: FEW_PRICE * EPOCHS}
        report = TrialReport(phase, epoch, epoch, objective=value, best=best, costs=costs)
        self.searcher.on_report(self._open[leg.trial], report)
        self._reached[leg.trial] = epoch
        if last:
            self._end(leg.trial, outcome_of(report), report)
        return not last

    def explode(self, leg: Leg, epoch: int) -> None:
        report = TrialReport("exploded", epoch, epoch, violation=1.0)
        self._end(leg.trial, Outcome(State.INFEASIBLE), report)

    def _end(self, number: int, outcome: Outcome, report: TrialReport) -> None:
        self.searcher.on_end(TrialEnd(self._open[number], outcome, report.objective, 0.0, report))
        del self._open[number]
