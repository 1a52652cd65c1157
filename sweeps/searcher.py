"""`StudySearcher`: Ray Tune asks it for configurations, it asks and tells an Optuna study.

What the study is told of each end of a trial:

| end         | state    | value                     | constraint |
|-------------|----------|---------------------------|------------|
| completed   | COMPLETE | best value of the trial   | <= 0       |
| pruned      | PRUNED   | with its intermediate ones| <= 0       |
| infeasible  | PRUNED   | with its intermediate ones| > 0        |
| failed      | FAIL     | none                      | none       |
| interrupted | FAIL     | none                      | none       |

TPE learns to keep away from an exploding corner when it is told PRUNED; FAIL it would not see at
all. What is not finite reaches neither sampler nor scheduler. State, reason and metrics stand in
the user attributes.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from ray.tune.search import Searcher

from sweeps.scheduler import BASELINE, EPOCH, OBJECTIVE
from sweeps.states import Outcome, State, outcome_of
from sweeps.study import CONSTRAINT

log = logging.getLogger(__name__)

LEAST_VIOLATION = 1e-3
"""Constraint of a trial that exploded below the limit of the norm, a dead or diverged one."""

TOLD = {
    State.COMPLETED: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    State.INFEASIBLE: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
    State.INTERRUPTED: TrialState.FAIL,
}
"""State of a trial -> what Optuna is told."""

EndListener = Callable[[int, Outcome], None]
"""Called with a trial's number and outcome as soon as it is known."""


class StudySearcher(Searcher):  # type: ignore[misc]
    """A Ray Tune searcher around `study`.

    Args:
        study: with the baselines enqueued.
        space: searched setting -> distribution.
        mode: `max` or `min`.
        on_end: hears of the end of every trial.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: dict[str, BaseDistribution],
        mode: str,
        on_end: EndListener | None = None,
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode=mode)
        self._study = study
        self._space = space
        self._on_end = on_end
        self._sign = 1 if mode == "max" else -1
        self._open: dict[str, optuna.Trial] = {}
        self._epochs: defaultdict[int, set[int]] = defaultdict(set)

    def __getstate__(self) -> dict[str, Any]:
        """Only what a searcher is made of by Ray: it pickles one copy, which nobody reads."""
        return {"_metric": self._metric, "_mode": self._mode}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next configuration: `number`, `baseline` and `parameters`."""
        trial = self._study.ask(self._space)
        self._open[trial_id] = trial
        return {
            "number": trial.number,
            BASELINE: trial.user_attrs.get("baseline"),
            "parameters": dict(trial.params),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record the value of a report; Ray calls this unless the report stopped the trial."""
        self._record(self._open[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how the trial ended. `result` is its last report."""
        trial = self._open.pop(trial_id, None)
        if trial is None:  # told before: Ray may report the end of a failing trial twice
            return
        if result:
            self._record(trial, result)
        self._tell(trial, outcome_of(result, error), result or {})

    def close(self) -> int:
        """Tell the study that all trials still open were interrupted; returns their number."""
        opened = list(self._open.values())
        self._open.clear()
        for trial in opened:
            self._tell(trial, Outcome(State.INTERRUPTED, "the sweep ended before the trial"), {})
        return len(opened)

    def _record(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        """Intermediate value by epoch, and what the best one was.

        A report is recorded once, though Ray hands the last one over twice and a trial that goes
        on from a checkpoint repeats itself.
        """
        value, epoch = result.get(OBJECTIVE), int(result.get(EPOCH, 0))
        if value is None or not math.isfinite(value):
            return
        if epoch in self._epochs[trial.number]:
            return
        self._epochs[trial.number].add(epoch)
        trial.report(float(value), epoch)
        before = trial.user_attrs.get("best")
        if before is None or self._sign * value > self._sign * before:
            for name in ("best", "best_epoch", "standard_error"):
                trial.set_user_attr(name, result.get(name))

    def _tell(self, trial: optuna.Trial, outcome: Outcome, result: dict[str, Any]) -> None:
        best = trial.user_attrs.get("best")
        if outcome.state is State.COMPLETED and best is None:
            outcome = Outcome(State.FAILED, "ended without a value of the objective")
        if outcome.state in (State.COMPLETED, State.PRUNED, State.INFEASIBLE):
            trial.set_constraint(CONSTRAINT, constraint_of(outcome, result))
        trial.set_user_attr("state", str(outcome.state))
        trial.set_user_attr("reason", outcome.reason)
        metrics = {
            k.removeprefix("metrics/"): v for k, v in result.items() if k.startswith("metrics/")
        }
        trial.set_user_attr("metrics", metrics)
        value = best if outcome.state is State.COMPLETED else None
        self._study.tell(trial, value, state=TOLD[outcome.state])
        log.debug("trial %d: %s %s", trial.number, outcome.state, outcome.reason)
        if self._on_end is not None:
            self._on_end(trial.number, outcome)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk after every change."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk after every change."""


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
