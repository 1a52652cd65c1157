"""The study as samplers see it: trials that are paused, running, pruned, exploded and completed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import small_spec
from optuna.trial import TrialState
from session_parts import Driver, exploded, report_of

from sweeps.config import SweepSpec
from sweeps.search.promotion import Idle
from sweeps.search.sampler_view import sampler_view
from sweeps.study.store import JournalStore
from sweeps.study.study import CONSTRAINT

FILE = Path("study.journal")
PRUNED, COMPLETE, RUNNING = TrialState.PRUNED, TrialState.COMPLETE, TrialState.RUNNING


def halving(**changes: Any) -> SweepSpec:
    """Rungs at epochs 1 and 3 of 9, the best third of each continues."""
    values = {
        "trials": 7,
        "fixed": {"epochs": 9, "n_episodes": 3},
        "scheduler": {"name": "asha", "grace": 1, "reduction": 3},
    }
    return small_spec(**{**values, **changes})


def session_of(sampler: str) -> Driver:
    """Trial 0 is paused at epoch 3, 1 at epoch 1; 2 exploded, 3 completed, 4 failed, 5 runs."""
    session = Driver(halving(sampler={"name": sampler}), JournalStore(FILE))
    for _ in range(3):
        session.start()
    session.pause(0, 1, 0.9)
    session.pause(1, 1, 0.2)
    session.report(2, report_of(1, 0.1))
    session.end(2, exploded(2))
    assert session.start().number == 0
    session.pause(0, 3, 0.8)
    ends = {3: report_of(9, 0.6, "final"), 4: report_of(1, None, "failed")}
    for number in (3, 4, 5):
        assert session.start().number == number
        session.report(number, report_of(1, 0.1))
        if number in ends:
            session.end(number, ends[number])
    return session


def as_told(study: optuna.Study) -> list[tuple[TrialState, float | None, float | None]]:
    """State, value and constraint of each trial."""
    return [
        (t.state, t.value if t.state is COMPLETE else None, t.constraints.get(CONSTRAINT))
        for t in study.trials
    ]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_paused_trials_are_pruned_in_the_eyes_of_most_samplers(sampler):
    session = session_of(sampler)
    seen = as_told(sampler_view(session.study, sampler))
    assert seen == [
        *((PRUNED, None, 0.0), (PRUNED, None, 0.0), (PRUNED, None, 0.7)),
        *((COMPLETE, 0.6, -2.0), (TrialState.FAIL, None, None), (RUNNING, None, None)),
    ]
    view = sampler_view(session.study, sampler).trials
    assert view[0].intermediate_values == {1: 0.9, 3: 0.8}
    assert as_told(session.study)[:2] == [(RUNNING, None, None)] * 2


def test_paused_trials_are_complete_in_the_eyes_of_gp_at_their_highest_rung():
    session = session_of("gp")
    seen = as_told(sampler_view(session.study, "gp"))
    assert seen[:4] == [
        *((COMPLETE, 0.8, 0.0), (COMPLETE, 0.2, 0.0), (COMPLETE, 0.1, 0.7), (COMPLETE, 0.6, -2.0)),
    ]
    assert seen[5] == (RUNNING, None, None)


def test_pruned_trials_are_complete_in_the_eyes_of_gp_only():
    session = Driver(halving(trials=3, sampler={"name": "gp"}), JournalStore(FILE))
    for number, value in enumerate((0.2, 0.9, 0.1)):
        session.start()
        session.pause(number, 1, value)
    assert session.start().number == 1
    session.end(1, report_of(9, 0.95, "final"))
    assert session.next() is Idle.DONE
    session.trials.prune_paused()
    assert as_told(sampler_view(session.study, "gp"))[0] == (COMPLETE, 0.2, 0.0)
    assert as_told(sampler_view(session.study, "tpe"))[0] == (PRUNED, None, 0.0)


def test_trials_are_listed_by_the_state_that_is_seen():
    view = sampler_view(session_of("tpe").study, "tpe")
    numbers = [t.number for t in view.get_trials(states=(PRUNED,))]
    assert numbers == [0, 1, 2]
    assert [t.number for t in view.get_trials(states=(RUNNING,))] == [5]


def test_what_is_asked_of_the_view_is_written_to_the_study():
    session = session_of("tpe")
    asked = sampler_view(session.study, "tpe").ask()
    value = asked.suggest_float("lr", 0.01, 10)
    assert session.study.trials[-1].params == {"lr": value}
    assert Driver(session.spec, JournalStore(FILE)).study.trials[-1].params == {"lr": value}


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
