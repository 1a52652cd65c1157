"""How the end of a trial is told to Optuna.

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
none. Non-finite values do not reach it. While trials pause, samplers see the study through
`sweeps.search.sampler_view`.
"""

from __future__ import annotations

import math

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeps.config import SweepSpec
from sweeps.states import Outcome, State
from sweeps.study.internals import frozen_trial
from sweeps.study.records import curve_of

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


def tell(study: optuna.Study, spec: SweepSpec, number: int, state: State) -> None:
    """Finish trial `number` in Optuna; its attributes hold the outcome."""
    trial = frozen_trial(study, number)
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
