"""The study as samplers see it: every trial at the same rung, whatever became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import small_spec
from optuna.trial import TrialState
from session_parts import Driver, exploded, report_of

from sweeps.config import SweepSpec
from sweeps.search import sampler_view as view_module
from sweeps.search.promotion import Idle
from sweeps.search.sampler_view import sampler_view
from sweeps.study.store import JournalStore
from sweeps.study.study import CONSTRAINT

FILE = Path("study.journal")
FAIL, PRUNED, COMPLETE, RUNNING = (
    *(TrialState.FAIL, TrialState.PRUNED),
    *(TrialState.COMPLETE, TrialState.RUNNING),
)
SHOWN = (1, 3, 9)
"""The rungs of the trials here, and their last epoch."""
Seen = tuple[TrialState, float | None, float | None]
"""State; value, of a pruned one the intermediate one; constraint."""


def halving(**changes: Any) -> SweepSpec:
    """Rungs at epochs 1 and 3 of 9, the best third of each continues."""
    values = {
        "trials": 7,
        "fixed": {"epochs": 9, "n_episodes": 3},
        "scheduler": {"name": "asha", "grace": 1, "reduction": 3},
    }
    return small_spec(**{**values, **changes})


def session_of(sampler: str) -> Driver:
    """Trial 0 is paused at epoch 3, 1 at epoch 1; 2 exploded, 3 completed, 4 failed, 5 runs and has a value, 6 none."""
    session = Driver(halving(sampler={"name": sampler}), JournalStore(FILE))
    for _ in range(3):
        session.start()
    session.pause(0, 1, 0.9)
    session.pause(1, 1, 0.2)
    session.report(2, report_of(1, 0.1))
    session.end(2, exploded(2))
    assert session.start().number == 0
    session.pause(0, 3, 0.8)
    for number in (3, 4, 5, 6):
        assert session.start().number == number
        if number < 6:
            session.report(number, report_of(1, 0.1 * number))
    session.end(3, report_of(9, 0.6, "final"))
    session.end(4, report_of(1, None, "failed"))
    return session


def seen(study: optuna.Study, sampler: str, shown: tuple[int, ...] = SHOWN) -> list[Seen]:
    """Each trial as this sampler sees it."""
    return [as_told(t) for t in sampler_view(study, shown, complete=sampler == "gp").trials]


def as_told(trial: optuna.trial.FrozenTrial) -> Seen:
    value = trial.value if trial.state is COMPLETE else None
    if trial.state is PRUNED:
        value = trial.intermediate_values[max(trial.intermediate_values)]
    return trial.state, value, trial.constraints.get(CONSTRAINT)


def rounded(trials: list[Seen]) -> list[Seen]:
    return [(s, None if v is None else round(v, 6), c) for s, v, c in trials]


def test_tpe_sees_the_first_rung_until_a_higher_one_has_enough_values():
    found = seen(session_of("tpe").study, "tpe")
    assert rounded(found) == [
        *((PRUNED, 0.9, 0.0), (PRUNED, 0.2, 0.0)),
        (PRUNED, 0.1, 0.7),  # exploded: as it is
        (PRUNED, 0.3, -2.0),  # completed: its value at that rung
        *((FAIL, None, None), (PRUNED, 0.5, 0.0), (RUNNING, None, None)),
    ]


def test_gp_sees_complete_trials():
    found = seen(session_of("gp").study, "gp")
    assert rounded(found) == [
        *((COMPLETE, 0.9, 0.0), (COMPLETE, 0.2, 0.0), (COMPLETE, 0.1, 0.7)),
        *((COMPLETE, 0.3, -2.0), (FAIL, None, None)),
        *((COMPLETE, 0.5, 0.0), (RUNNING, None, None)),
    ]


def test_the_highest_rung_with_enough_values_is_seen(monkeypatch):
    session = session_of("tpe")
    monkeypatch.setattr(view_module, "ENOUGH", 2)
    found = rounded(seen(session.study, "tpe"))
    assert found[0] == (PRUNED, 0.8, 0.0)
    assert found[1][0] is FAIL  # paused before it: left out
    assert found[3] == (PRUNED, 0.6, -2.0)  # it has no value there, but one at its end
    assert found[5][0] is RUNNING


def test_pruned_trials_stay_in_view():
    session = Driver(halving(trials=3), JournalStore(FILE))
    for number, value in enumerate((0.2, 0.9, 0.1)):
        session.start()
        session.pause(number, 1, value)
    assert session.start().number == 1
    session.end(1, report_of(9, 0.95, "final"))
    assert session.next() is Idle.DONE
    session.trials.prune_paused()
    assert seen(session.study, "tpe")[0] == (PRUNED, 0.2, 0.0)
    assert seen(session.study, "gp")[0] == (COMPLETE, 0.2, 0.0)


def test_the_study_itself_does_not_change():
    session = session_of("tpe")
    before = [(t.state, t.intermediate_values, t.constraints) for t in session.study.trials]
    seen(session.study, "tpe")
    assert [(t.state, t.intermediate_values, t.constraints) for t in session.study.trials] == before
    assert before[0] == (RUNNING, {1: 0.9, 3: 0.8}, {})


def test_trials_are_listed_by_the_state_that_is_seen():
    view = sampler_view(session_of("tpe").study, SHOWN, complete=False)
    assert [t.number for t in view.get_trials(states=(PRUNED,))] == [0, 1, 2, 3, 5]
    assert [t.number for t in view.get_trials(states=(RUNNING,))] == [6]


def test_what_is_asked_of_the_view_is_written_to_the_study():
    session = session_of("tpe")
    asked = sampler_view(session.study, SHOWN, complete=False).ask()
    value = asked.suggest_float("lr", 0.01, 10)
    assert session.study.trials[-1].params == {"lr": value}
    assert Driver(session.spec, JournalStore(FILE)).study.trials[-1].params == {"lr": value}


def test_without_rungs_samplers_see_the_study():
    session = session_of("tpe")
    assert sampler_view(session.study, (9,), complete=False) is session.study


SPACE = {"lr": {"low": 0.1, "high": 2}, "dfl_weight": {"low": 0.1, "high": 3}}
GRID = {"lr": {"choices": [0.5, 1.0, 2.0]}, "dfl_weight": {"choices": [1.0, 2.0, 3.0]}}


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "qmc", "random", "grid"])
def test_every_sampler_suggests_while_trials_are_paused(name):
    spec = halving(
        space=GRID if name == "grid" else SPACE,
        sampler={"name": name, "startup_trials": 2},
        trials=9,
    )
    session = Driver(spec, JournalStore(FILE))
    found = []
    while len(found) < 9:
        request = session.start()
        value = request.parameters["lr"] / 10
        if request.number == len(found):
            found.append(request.parameters)
        if request.until is None:
            session.end(request.number, report_of(9, value, "final"))
        else:
            session.pause(request.number, request.until, value)
    if name == "grid":
        assert len({str(parameters) for parameters in found}) == 9
