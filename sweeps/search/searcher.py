"""`StudySearcher`: asks an Optuna study for trials and records in it how they end.

How each end of a trial is reported to Optuna:

| end         | state    | value                        | constraint |
|-------------|----------|------------------------------|------------|
| completed   | COMPLETE | best value of the trial      | <= 0       |
| paused      | RUNNING  | with its intermediate ones   | none       |
| pruned      | PRUNED   | with its intermediate ones   | <= 0       |
| infeasible  | PRUNED   | with its intermediate ones   | > 0        |
|             | COMPLETE | last finite one (see below)  | > 0        |
| failed      | FAIL     | none                         | none       |
| interrupted | RUNNING  | resumes with the sweep       | none       |

TPE learns to avoid an exploding region from PRUNED trials; it ignores FAIL. For samplers that ignore
PRUNED too, an exploded trial is COMPLETE, with its last finite value, or the worst of all trials if it has
none. Non-finite values do not reach it. State, reason and metrics are user attributes. While trials pause,
samplers see the study through `sweeps.search.sampler_view`.

With two objectives Optuna accepts no intermediate values; they are stored as a user attribute.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsdet.command import ExitCode
from sweeps.config import SweepSpec
from sweeps.search.mixture import Mixture, count_successes
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
from sweeps.search.rungs import Rungs, find_rungs
from sweeps.search.sampler_view import sampler_view
from sweeps.search.stopping import StoppingCriteria, StopReason
from sweeps.states import ENDED, Outcome, State
from sweeps.study.internals import running_trial
from sweeps.study.store import LOST, StudyStore, batched, reason_of
from sweeps.study.study import (
    CONSTRAINT,
    CURVE,
    RETRIED,
    SOURCE,
    UNTIL,
    WARM_START,
    Preset,
    TrialRecord,
    add_preset,
    curve_of,
    to_record,
)
from sweeps.trial.messages import BestValue, TrialEnd, TrialReport, TrialRequest
from sweeps.trial.trial import TrialContext
from sweeps.trial.worker import EVALUATION_EPOCHS

log = logging.getLogger(__name__)
T = TypeVar("T")

LEAST_VIOLATION = 1e-3
"""Constraint of a trial that exploded though its norm stayed below the limit."""

OPTUNA_STATES = {
    State.COMPLETED: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.INFEASIBLE: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}
"""State of a trial -> state that is reported to Optuna."""


CONSTRAINED = (State.COMPLETED, State.PRUNED, State.INFEASIBLE)
"""States of a trial with a constraint."""


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
        budget = self._spec.budget.trainings
        decision = decide(
            trials,
            self.rungs().epochs,
            self._spec.scheduler.reduction,
            self._suggestions > 0,
            None if budget is None else budget * self._spec.max_epochs,
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
        frozen = self._study.get_trials(deepcopy=False)[trial.number]
        self._open[trial.number] = running_trial(self._study, trial.number)
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
        self._progress[request.number].values[report.epoch] = self._spec.objective.sign * value
        self._write(lambda: self._record(trial, value, report))

    def _record(self, trial: optuna.Trial, value: float, report: TrialReport) -> None:
        with batched(self._study):
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
        progress = self._progress[end.number]
        progress.state = end.outcome.state
        if end.report is not None:
            progress.price = end.report.costs.get(EVALUATION_EPOCHS)
        self._write(lambda: self._record_end(trial, end))

    def _record_end(self, trial: optuna.Trial, end: TrialEnd) -> None:
        state = end.outcome.state
        violation = 0.0 if end.report is None else end.report.violation
        with batched(self._study):
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


def build_request(
    record: TrialRecord,
    spec: SweepSpec,
    context: TrialContext,
    parameters: dict[str, object] | None = None,
) -> TrialRequest:
    """The request to run a trial of the study.

    Args:
        record: of the trial.
        spec: of the sweep.
        context: of its trials.
        parameters: settings that were suggested for it, tied ones included; None for the record's.
    """
    if parameters is None:
        parameters = spec.search_space.complete(record.parameters)
    preset = record.preset or Preset({})
    settings = {**parameters, **preset.overrides}
    return TrialRequest(
        number=record.number,
        folder=record.folder,
        run_key=record.run_key,
        parameters=settings,
        config=spec.config(settings, context.run_dir(record.folder)),
        baseline=record.baseline,
        title=record.title,
        tags=preset.tags,
        retried=record.retried,
        until=record.until,
    )


def tell(study: optuna.Study, spec: SweepSpec, number: int, state: State) -> None:
    """Finish trial `number` in Optuna; its attributes hold the outcome."""
    trial = study.get_trials(deepcopy=False)[number]
    optuna_state = OPTUNA_STATES[state]
    if state is State.INFEASIBLE and spec.sampler.reports_complete:
        optuna_state = TrialState.COMPLETE
    values = _values(study, spec, trial, state) if optuna_state is TrialState.COMPLETE else None
    study.tell(number, values, state=optuna_state)


def _values(study: optuna.Study, spec: SweepSpec, trial: FrozenTrial, state: State) -> list[float]:
    """One value for each objective: the best of a completed trial, the last of an exploded one."""
    curve = curve_of(trial)
    best = trial.user_attrs.get("best")
    value = best if state is State.COMPLETED or not curve else curve[max(curve)]
    costs = trial.user_attrs.get("costs", {})
    measured = [value, *(costs.get(o.metric) for o in spec.objectives[1:])]
    return [_worst(study, i) if v is None else float(v) for i, v in enumerate(measured)]


def _worst(study: optuna.Study, index: int) -> float:
    """The worst value of an objective so far; 0 without any."""
    done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    values = [trial.values[index] for trial in done]
    lowest = study.directions[index] == optuna.study.StudyDirection.MAXIMIZE
    return (min if lowest else max)(values, default=0.0)


def constraint_of(outcome: Outcome, violation: float) -> float:
    """log10(peak norm / limit), clamped above 0 for an exploded trial and to at most 0 for any other.

    The sign is the trainer's verdict: a single spike above the limit is not an explosion, and vanishing
    gradients are one without ever coming near it.
    """
    violation = violation if math.isfinite(violation) else 0.0
    if outcome.state is State.INFEASIBLE:
        return max(violation, LEAST_VIOLATION)
    return min(violation, 0.0)
