"""`StudySearcher`: Ray Tune asks it for configurations, it asks and tells an Optuna study.

What the study is told of each end of a trial:

| end         | state    | value                        | constraint |
|-------------|----------|------------------------------|------------|
| completed   | COMPLETE | best value of the trial      | <= 0       |
| pruned      | PRUNED   | with its intermediate ones   | <= 0       |
| infeasible  | PRUNED   | with its intermediate ones   | > 0        |
|             | COMPLETE | last finite one (see below)  | > 0        |
| failed      | FAIL     | none                         | none       |
| interrupted | RUNNING  | goes on when resumed         | none       |

TPE learns to keep away from an exploding corner when it is told PRUNED; FAIL it would not see at
all. Samplers that do not see PRUNED either are told COMPLETE, with the last finite value, or the
worst of all trials if there was none yet. What is not finite reaches neither sampler nor
scheduler. State, reason and metrics stand in the user attributes.

With two objectives Optuna takes no intermediate values; they stand in a user attribute.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sweeps.search.scheduler import BASELINE, EPOCH, OBJECTIVE
from sweeps.search.stops import EXIT_STUDY_LOST, Stop, Stops
from sweeps.spec import SweepSpec
from sweeps.states import Outcome, State, outcome_of
from sweeps.study.journal import together
from sweeps.study.store import LOST, StudyStore, reason_of
from sweeps.study.study import CONSTRAINT, CURVE, RETRIED, curve_of
from sweeps.trial.trial import ALONE

log = logging.getLogger(__name__)
T = TypeVar("T")

LEAST_VIOLATION = 1e-3
"""Constraint of a trial that exploded below the limit of the norm, a dead or diverged one."""

TOLD = {
    State.COMPLETED: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.INFEASIBLE: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}
"""State of a trial -> what Optuna is told."""

EndListener = Callable[[int, Outcome], None]
"""Called with a trial's number and outcome as soon as it is known."""


class StudySearcher(Searcher):  # type: ignore[misc]
    """A Ray Tune searcher around `study`.

    Args:
        study: with the baselines enqueued.
        spec: the sweep.
        stops: asked to stop the sweep when the study cannot be written any more.
        store: where the study lies.
        again: trials that an earlier session left unfinished; handed out first.
        on_end: hears of the end of every trial.
        explain: why the worker of a trial died, as far as it is known.
    """

    def __init__(
        self,
        study: optuna.Study,
        spec: SweepSpec,
        stops: Stops,
        store: StudyStore,
        again: Sequence[int] = (),
        on_end: EndListener | None = None,
        explain: Callable[[int], str] = lambda _: "",
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode=spec.objective.mode)
        self._study = study
        self._spec = spec
        self._stops = stops
        self._store = store
        store.check()
        self._again = list(again)
        self._on_end = on_end
        self._explain = explain
        self._open: dict[str, optuna.Trial] = {}
        self._curves: dict[int, dict[int, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Only what a searcher is made of by Ray: it pickles one copy, which nobody reads."""
        return {"_metric": self._metric, "_mode": self._mode}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next configuration: `number`, `baseline`, `parameters`, `alone`; None while stopping."""
        return self._write(lambda: self._suggest(trial_id))

    def _suggest(self, trial_id: str) -> dict[str, Any]:
        trial, curve = self._reopen(self._again.pop(0)) if self._again else (self._study.ask(), {})
        with together(self._study):
            self._spec.suggest(trial)
        self._open[trial_id] = trial
        self._curves[trial.number] = curve
        return {
            "number": trial.number,
            BASELINE: trial.user_attrs.get("baseline"),
            "parameters": dict(trial.params),
            ALONE: trial.user_attrs.get(RETRIED),
        }

    def _reopen(self, number: int) -> tuple[optuna.Trial, dict[int, float]]:
        """The trial `number` as an earlier session left it, and what it had reported."""
        frozen = self._study.get_trials(deepcopy=False)[number]
        trial = optuna.Trial(self._study, frozen._trial_id)
        trial.set_user_attr("state", str(State.RUNNING))
        trial.set_user_attr("reason", "")
        return trial, curve_of(frozen)

    def retried(self, trial_id: str, why: str) -> None:
        """A trial ran out of memory and starts again, alone; so it does in a later session."""
        trial = self._open[trial_id]
        self._write(lambda: trial.set_user_attr(RETRIED, why))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record the value of a report; Ray calls this unless the report stopped the trial."""
        trial = self._open[trial_id]
        self._write(lambda: self._record(trial, result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how the trial ended. `result` is its last report."""
        trial = self._open.get(trial_id)
        if trial is None:  # told before: Ray may report the end of a failing trial twice
            return
        why = self._explain(trial.number) if error else ""

        def write() -> None:
            if result:
                self._record(trial, result)
            self._tell(trial, outcome_of(result, error, why), result or {})
            del self._open[trial_id]

        self._write(write)

    def close(self, reason: str = "the sweep ended before the trial") -> int:
        """Mark all trials that are still open as interrupted; returns their number."""
        opened = list(self._open.values())
        self._open.clear()
        outcome = Outcome(State.INTERRUPTED, reason)
        for trial in opened:
            seconds = self._stops.ended(trial.number, outcome, None)
            self._write(partial(self._note, trial, outcome, seconds))
            if self._on_end is not None:
                self._on_end(trial.number, outcome)
        return len(opened)

    def _write(self, change: Callable[[], T]) -> T | None:
        """Make a change; where the study cannot be written, stop the sweep cleanly."""
        try:
            self._store.check()
            return change()
        except LOST as error:
            place, reason = self._store.place, reason_of(error)
            stop = f"{place}: the study cannot be written ({reason}); mend that, then resume"
            log.debug(stop, exc_info=True)
            self._stops.request(Stop(stop, EXIT_STUDY_LOST))
        return None

    def _record(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        """Intermediate value by epoch, and what the best one was.

        A report is recorded once, though Ray hands the last one over twice and a trial that goes
        on from a checkpoint repeats itself.
        """
        value, epoch = result.get(OBJECTIVE), int(result.get(EPOCH, 0))
        curve = self._curves[trial.number]
        if value is None or not math.isfinite(value) or epoch in curve:
            return
        curve[epoch] = float(value)
        before, names = trial.user_attrs, ("best", "best_epoch", "standard_error")
        with together(self._study):
            if any(before.get(name) != result.get(name) for name in names):
                for name in names:
                    trial.set_user_attr(name, result.get(name))
            if len(self._spec.objectives) == 1:
                trial.report(float(value), epoch)
            else:
                trial.set_user_attr(CURVE, {str(at): value for at, value in curve.items()})

    def _tell(self, trial: optuna.Trial, outcome: Outcome, result: dict[str, Any]) -> None:
        best = trial.user_attrs.get("best")
        costs = _part(result, "costs/")
        if outcome.state is State.COMPLETED and best is None:
            outcome = Outcome(State.FAILED, "ended without a value of the objective")
        seconds = self._stops.ended(trial.number, outcome, best)
        with together(self._study):
            # a driver that was killed just here has set it already
            if outcome.state is not State.FAILED and CONSTRAINT not in trial.constraints:
                trial.set_constraint(CONSTRAINT, constraint_of(outcome, result))
            trial.set_user_attr("metrics", _part(result, "best_metrics/"))
            trial.set_user_attr("costs", costs)
            self._study.set_user_attr("seconds", self._stops.seconds)
            self._note(trial, outcome, seconds)
        tell(self._study, self._spec, trial.number, outcome.state)
        log.debug("trial %d: %s %s", trial.number, outcome.state, outcome.reason)
        if self._on_end is not None:
            self._on_end(trial.number, outcome)

    def _note(self, trial: optuna.Trial, outcome: Outcome, seconds: float) -> None:
        """Write the outcome down; the state last, since it says that all the rest is there."""
        trial.set_user_attr("seconds", trial.user_attrs.get("seconds", 0.0) + seconds)
        trial.set_user_attr("reason", outcome.reason)
        trial.set_user_attr("state", str(outcome.state))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk after every change."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk after every change."""


def tell(study: optuna.Study, spec: SweepSpec, number: int, state: State) -> None:
    """Close trial `number`, whose outcome stands in its attributes."""
    trial = study.get_trials(deepcopy=False)[number]
    told = TOLD[state]
    if state is State.INFEASIBLE and spec.sampler.tells_complete:
        told = TrialState.COMPLETE
    values = None if told is not TrialState.COMPLETE else _values(study, spec, trial, state)
    study.tell(number, values, state=told)


def _values(
    study: optuna.Study, spec: SweepSpec, trial: optuna.trial.FrozenTrial, state: State
) -> list[float]:
    """One value for each objective: the best of a completed trial, the last of an exploded one."""
    curve = curve_of(trial)
    best = trial.user_attrs.get("best")
    value = best if state is State.COMPLETED or not curve else curve[max(curve)]
    costs = trial.user_attrs.get("costs", {})
    measured = [value, *(costs.get(o.metric) for o in spec.objectives[1:])]
    return [_worst(study, i) if v is None else float(v) for i, v in enumerate(measured)]


def _worst(study: optuna.Study, index: int) -> float:
    """The worst value of an objective so far; 0 if there is none."""
    done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    values = [trial.values[index] for trial in done]
    lowest = study.directions[index] == optuna.study.StudyDirection.MAXIMIZE
    return (min if lowest else max)(values, default=0.0)


def _part(result: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in result.items() if k.startswith(prefix)}


def constraint_of(outcome: Outcome, result: dict[str, Any]) -> float:
    """log10(peak norm / limit), kept above 0 for an exploded trial and at most 0 for any other.

    The sign is the verdict, which is the trainer's: one spike above the limit is no explosion,
    and a trial that died silently never came near it.
    """
    violation = float(result.get("violation", 0.0))
    if not math.isfinite(violation):
        violation = 0.0
    if outcome.state is State.INFEASIBLE:
        return max(violation, LEAST_VIOLATION)
    return min(violation, 0.0)
