"""`StudySearcher`: asks an Optuna study for trials and records in it how they end.

`sweeps.search.promotion` decides whether a paused trial or a new one is next, `sweeps.search.outcomes` how each end is
told to Optuna. State, reason and metrics of a trial are user attributes. With two objectives Optuna accepts no
intermediate values; they are stored as a user attribute.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial

from fsdet.command import ExitCode
from sweeps.config import SweepSpec
from sweeps.search.mixture import Mixture, count_successes
from sweeps.search.outcomes import CONSTRAINED, constraint_of, tell
from sweeps.search.promotion import (
    Idle,
    Progress,
    Train,
    decide,
    has_reached,
    next_stop,
    rank,
    standing,
)
from sweeps.search.requests import build_request
from sweeps.search.rungs import Rungs, find_rungs
from sweeps.search.sampler_view import sampler_view
from sweeps.search.stopping import StoppingCriteria, StopReason
from sweeps.states import ENDED, Outcome, State
from sweeps.study.internals import frozen_trial, running_trial
from sweeps.study.records import (
    CURVE,
    LEGS,
    RETRIED,
    SOURCE,
    UNTIL,
    WARM_START,
    Preset,
    curve_of,
    to_record,
)
from sweeps.study.store import LOST, StudyStore, batched, reason_of
from sweeps.study.study import CONSTRAINT, add_preset
from sweeps.trial.messages import BestValue, TrialEnd, TrialReport, TrialRequest
from sweeps.trial.trial import TrialContext
from sweeps.trial.worker import EVALUATION_EPOCHS

log = logging.getLogger(__name__)
T = TypeVar("T")


class StudySearcher:
    """Hands out the trials of a study and records their reports and ends.

    Args:
        study: new, or of the sweep to resume.
        spec: the sweep.
        context: of its trials.
        store: of the study.
        stopping: asked to stop the sweep when the study cannot be written any more.
        unfinished: numbers of trials to resume; handed out first.
        presets: trials with given settings; handed out next, before any suggestion.
        suggestions: further trials to suggest.
    """

    def __init__(
        self,
        study: optuna.Study,
        spec: SweepSpec,
        context: TrialContext,
        store: StudyStore,
        stopping: StoppingCriteria,
        unfinished: Sequence[int] = (),
        presets: Sequence[Preset] = (),
        suggestions: int = 0,
    ) -> None:
        self._study = study
        shown = (*spec.rungs, spec.max_epochs)
        self._ladders = spec.ladders
        self._view = sampler_view(study, shown, complete=spec.sampler.name == "gp")
        self._spec = spec
        self._context = context
        self._store = store
        self._stopping = stopping
        self._unfinished = list(unfinished)
        self._presets = list(presets)
        self._suggestions = suggestions
        self._open: dict[int, optuna.Trial] = {}
        self._curves: dict[int, dict[int, float]] = {}
        trials = own_trials(study)
        self._progress = {t.number: progress_of(t, spec) for t in trials}
        self._trained = sum(trial.epoch for trial in self._progress.values())
        self._sources = {t.number: t.user_attrs[SOURCE] for t in trials if SOURCE in t.user_attrs}
        store.check()

    def next_request(self) -> TrialRequest | Idle:
        """The next trial to run, new or paused.

        Returns:
            DONE also if the study is lost and the sweep stops.
        """
        return self._write(self._next_request) or Idle.DONE

    def _next_request(self) -> TrialRequest | Idle:
        if self._unfinished:
            trial = running_trial(self._study, self._unfinished.pop(0))
            # a driver may be killed before it records how far a new trial is to train
            return self._run(trial, None if UNTIL in trial.user_attrs else self._first_stop)
        if self._presets:
            number = add_preset(self._study, self._spec, self._presets.pop(0))
            return self._run(running_trial(self._study, number), self._first_stop)
        return self._continue()

    def _continue(self) -> TrialRequest | Idle:
        """The next trial as the search wants it."""
        trials = list(self._progress.values())
        decision = decide(
            trials,
            self.rungs().epochs,
            self._spec.scheduler.reduction,
            self._suggestions > 0,
            self._stopping.affordable(self._trained),
        )
        if isinstance(decision, Idle):
            return decision
        if decision.number is not None:
            return self._run(running_trial(self._study, decision.number), decision)
        self._suggestions -= 1
        return self._run(self._suggest(), decision)

    def _suggest(self) -> optuna.Trial:
        """A new trial from the sampler."""
        sampler = self._study.sampler
        if not isinstance(sampler, Mixture):
            return self._view.ask()
        sampler.successes = count_successes(*self._first_results())
        trial = self._view.ask()
        self._sources[trial.number] = sampler.source
        trial.set_user_attr(SOURCE, sampler.source)
        return trial

    def _first_results(self) -> tuple[dict[int, float], dict[int, str]]:
        """Value of each trial at the first rung, minus infinity if it exploded; and sources."""
        rung = self._ladders[0][0]
        trials = [t for t in self._progress.values() if has_reached(t, rung)]
        return {t.number: -rank(t, rung)[0] for t in trials}, self._sources

    def rungs(self) -> Rungs:
        """Where trials pause now."""
        return find_rungs(list(self._progress.values()), self._ladders)

    @property
    def _first_stop(self) -> Train:
        rungs = self.rungs().epochs
        return Train(None, rungs[0] if rungs else None)

    def _run(self, trial: optuna.Trial, leg: Train | None = None) -> TrialRequest:
        """The request to train a trial as far as `leg` says; None: as far as an earlier session wanted."""
        with batched(self._study):
            parameters = self._spec.suggest(trial)
            begun: dict[str, Any] = {"state": str(State.RUNNING), "reason": ""}
            if leg is not None:
                begun[UNTIL] = next_stop(self._spec.epochs_of(parameters), leg.until)
            _set_attributes(trial, begun)
        frozen = frozen_trial(self._study, trial.number)
        self._open[trial.number] = trial
        self._curves[trial.number] = curve_of(frozen)
        self._progress[trial.number] = progress_of(frozen, self._spec)
        return build_request(to_record(frozen), self._spec, self._context, parameters)

    def paused(self) -> list[tuple[TrialRequest, Outcome]]:
        """The trials that are paused, each pruned for its rank."""
        trials = list(self._progress.values())
        frozen = self._study.get_trials(deepcopy=False)
        return [
            (
                build_request(to_record(frozen[trial.number]), self._spec, self._context),
                Outcome(State.PRUNED, standing(trials, trial)),
            )
            for trial in trials
            if trial.state is State.PAUSED
        ]

    def on_retry(self, request: TrialRequest) -> None:
        """Record that a trial ran out of memory and is restarted alone, in later sessions too."""
        trial = self._open[request.number]
        self._write(lambda: trial.set_user_attr(RETRIED, request.retried))

    def on_report(self, request: TrialRequest, report: TrialReport) -> None:
        """Record the objective by epoch, and the best epoch so far.

        A trial that resumes from a checkpoint repeats a report; it is recorded once.
        """
        trial, curve = self._open[request.number], self._curves[request.number]
        value = report.objective
        if value is None or not math.isfinite(value) or report.epoch in curve:
            return
        curve[report.epoch] = value
        progress = self._progress[request.number]
        self._trained += report.epoch - progress.epoch
        progress.values[report.epoch] = self._spec.objective.sign * value
        self._write(lambda: self._record(trial, value, report))

    def _record(self, trial: optuna.Trial, value: float, report: TrialReport) -> None:
        # a hundred trials report more often than a disk can be waited for
        with batched(self._study, durable=False):
            self._record_best(trial, report.best)
            if len(self._spec.objectives) == 1:
                trial.report(value, report.epoch)
            else:
                curve = self._curves[trial.number]
                trial.set_user_attr(CURVE, {str(epoch): at for epoch, at in curve.items()})

    def _record_best(self, trial: optuna.Trial, best: BestValue | None) -> None:
        if best is None:
            return
        found = {
            "best": best.value,
            "best_epoch": best.epoch,
            "standard_error": best.standard_error,
        }
        _set_attributes(trial, found)

    def on_end(self, end: TrialEnd) -> None:
        """Record how a trial ended, and report it to Optuna; one that is paused or interrupted stays open there."""
        trial = self._open.pop(end.number, None) or running_trial(self._study, end.number)
        self._curves.pop(end.number, None)
        progress = self._progress[end.number]
        progress.state = end.outcome.state
        if end.report is not None:
            progress.price = end.report.costs.get(EVALUATION_EPOCHS)
        self._write(lambda: self._record_end(trial, end))

    def _record_end(self, trial: optuna.Trial, end: TrialEnd) -> None:
        state = end.outcome.state
        violation = 0.0 if end.report is None else end.report.violation
        with batched(self._study, durable=state not in ENDED):  # what is told next is durable
            # set already if an earlier driver was killed at this point
            if state in CONSTRAINED and CONSTRAINT not in trial.constraints:
                trial.set_constraint(CONSTRAINT, constraint_of(end.outcome, violation))
            self._study.set_user_attr("seconds", self._stopping.seconds)
            self._record_outcome(trial, end)
        if state in ENDED:
            tell(self._study, self._spec, trial.number, state)
        log.debug("trial %d: %s %s", trial.number, end.outcome.state, end.outcome.reason)

    def _record_outcome(self, trial: optuna.Trial, end: TrialEnd) -> None:
        """Write the outcome; the state last, since it marks the record as complete."""
        if end.report is not None and end.outcome.state is not State.INTERRUPTED:
            best = end.report.best
            trial.set_user_attr("metrics", best.metrics if best else {})
            trial.set_user_attr("costs", end.report.costs)
        trial.set_user_attr("seconds", trial.user_attrs.get("seconds", 0.0) + end.seconds)
        if end.seconds:
            now = time.time()
            legs = trial.user_attrs.get(LEGS, [])
            trial.set_user_attr(LEGS, [*legs, [round(now - end.seconds, 2), round(now, 2)]])
        trial.set_user_attr("reason", end.outcome.reason)
        trial.set_user_attr("state", str(end.outcome.state))

    def _write(self, change: Callable[[], T]) -> T | None:
        """Apply `change`; if the study cannot be written, stop the sweep cleanly and return None."""
        try:
            self._store.check()
            return change()
        except LOST as error:
            place, reason = self._store.place, reason_of(error)
            text = f"{place}: the study cannot be written ({reason}); correct that, then resume"
            log.debug(text, exc_info=True)
            self._stopping.request(StopReason(text, ExitCode.STUDY_LOST))
        return None


def _set_attributes(trial: optuna.Trial, values: dict[str, Any]) -> None:
    """Write the attributes that differ; one that is missing counts as None."""
    known = trial.user_attrs
    for name, value in values.items():
        if known.get(name) != value:
            trial.set_user_attr(name, value)


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of this sweep, without those of a warm start."""
    return [t for t in study.get_trials(deepcopy=False) if WARM_START not in t.user_attrs]


def progress_of(trial: FrozenTrial, spec: SweepSpec) -> Progress:
    """How far a trial of the study has come."""
    record = to_record(trial)
    return Progress(
        number=trial.number,
        epochs=spec.epochs_of(record.parameters),
        baseline=record.baseline is not None,
        state=record.state,
        until=record.until,
        price=record.costs.get(EVALUATION_EPOCHS),
        values={epoch: spec.objective.sign * v for epoch, v in curve_of(trial).items()},
    )
