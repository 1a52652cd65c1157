"""What the study holds of trials that pause, are promoted and are cut off. Tests play the part of Ray Tune."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import small_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from session_parts import Driver, exploded, report_of

from sweeps.config import SweepSpec
from sweeps.search.promotion import Idle
from sweeps.session.resume import unfinished
from sweeps.states import Outcome, State
from sweeps.study.records import Preset
from sweeps.study.store import JournalStore
from sweeps.study.study import CONSTRAINT, add_preset, read_trials
from sweeps.trial.messages import TrialRequest

FILE = Path("study.journal")


def halving(**changes: Any) -> SweepSpec:
    """Rungs at epochs 1 and 3 of 9, the best third of each continues."""
    values = {
        "trials": 6,
        "fixed": {"epochs": 9, "n_episodes": 3},
        "scheduler": {"name": "asha", "grace": 1, "reduction": 3},
        "sampler": {"name": "random"},
    }
    return small_spec(**{**values, **changes})


def driver(spec: SweepSpec, file: Path = FILE) -> Driver:
    """A session on the file of the test."""
    return Driver(spec, JournalStore(file))


def three_paused(spec: SweepSpec) -> Driver:
    """Trial 1 is the best of three at the first rung."""
    session = driver(spec)
    for number, value in enumerate((0.3, 0.5, 0.4)):
        assert session.start().until == 1
        session.pause(number, 1, value)
    return session


def test_paused_trial_stays_open_in_the_study_with_a_state_of_its_own():
    session = three_paused(halving())
    trial = session.trial(1)
    assert trial.state is TrialState.RUNNING
    assert trial.intermediate_values == {1: 0.5}
    assert CONSTRAINT not in trial.constraints
    record = read_trials(FILE)[1]
    assert (record.state, record.reason, record.until) == (State.PAUSED, "at epoch 1", 1)
    assert (record.value, record.best_epoch) == (0.5, 1)
    assert [end.outcome for end in session.told.ends] == [Outcome(State.PAUSED, "at epoch 1")] * 3


def test_paused_trials_are_not_unfinished():
    session = three_paused(halving())
    session.start()
    again = driver(session.spec)
    assert [t.number for t in unfinished(again.study)] == [1]
    assert [t.state for t in read_trials(FILE)] == [State.PAUSED, State.INTERRUPTED, State.PAUSED]


def test_promoted_trial_is_the_same_one_and_trains_further():
    session = three_paused(halving())
    before, promoted = session.told.starts[1], session.start()
    assert (promoted.number, promoted.until) == (1, 3)
    assert (promoted.folder, promoted.run_key) == (before.folder, before.run_key)
    assert (promoted.config, promoted.parameters) == (before.config, before.parameters)
    record = read_trials(FILE)[1]
    assert (record.reason, record.until) == ("", 3)
    session.report(1, report_of(1, 0.5))  # repeated, as by every trial that resumes
    session.pause(1, 3, 0.6)
    assert session.trial(1).intermediate_values == {1: 0.5, 3: 0.6}
    assert session.start().number == 3


def test_time_of_the_sweep_is_known_before_a_trial_has_ended():
    session = three_paused(halving())
    assert 0 < session.study.user_attrs["seconds"] <= session.stopping.seconds


def test_time_of_all_legs_counts():
    session = three_paused(halving())
    session.start()
    session.pause(1, 3, 0.6)
    seconds = sum(end.seconds for end in session.told.ends if end.number == 1)
    assert read_trials(FILE)[1].seconds == pytest.approx(seconds)


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_trial_that_was_cut_off_on_its_second_leg_goes_on_to_the_same_epoch(how):
    session = three_paused(halving())
    promoted = session.start()
    session.report(1, report_of(2, 0.55))
    if how == "interrupted":
        session.trials.close("Ctrl-C")
    again = driver(session.spec)
    assert again.start() == promoted
    again.pause(1, 3, 0.6)
    assert again.trial(1).intermediate_values == {1: 0.5, 2: 0.55, 3: 0.6}
    assert again.start().number == 3


def test_trial_on_its_last_leg_goes_on_to_its_end():
    spec = halving(scheduler={"name": "asha", "grace": 3, "reduction": 3})
    session = driver(spec)
    for number, value in enumerate((0.3, 0.5, 0.4)):
        session.start()
        session.pause(number, 3, value)
    assert session.start().until is None
    assert driver(spec).start().until is None


@pytest.mark.parametrize("preset", [False, True])
def test_trial_that_was_cut_off_before_its_rung_was_recorded_pauses_there(preset):
    spec = halving(baselines={"b": {"lr": 1.0}})
    session = driver(spec)
    if preset:
        add_preset(session.study, spec, Preset({"lr": 1.0}, "b"))
    else:
        session.start()
        session.pause(0, 1, 0.5)
        session.study.ask()
    again = driver(spec).start()
    assert (again.number, again.until) == (0 if preset else 1, 1)


def test_exploded_trials_count_at_the_rung_in_later_sessions_too():
    spec = halving()
    session = driver(spec)
    for _ in range(3):
        session.start()
    session.end(0, exploded(1))
    session.end(1, exploded(1))
    session.pause(2, 1, 0.1)
    again = driver(spec).start()
    assert (again.number, again.until) == (2, 3)


def test_what_is_still_paused_at_the_end_is_pruned_with_its_rank():
    spec = halving(trials=3)
    session = three_paused(spec)
    session.start()
    session.pause(1, 3, 0.6)
    assert (session.start().until, session.next()) == (None, Idle.WAIT)
    session.end(1, report_of(9, 0.7, "final"))
    assert session.next() is Idle.DONE
    session.trials.prune_paused()
    first, best, third = read_trials(FILE)
    assert best.state is State.COMPLETED
    assert (first.state, first.reason) == (State.PRUNED, "rank 3 of 3 at epoch 1")
    assert (third.state, third.reason) == (State.PRUNED, "rank 2 of 3 at epoch 1")
    assert session.trial(0).state is TrialState.PRUNED
    assert session.trial(0).constraints == {CONSTRAINT: 0.0}
    assert first.value == 0.3
    assert [end.number for end in session.told.ends[-2:]] == [0, 2]
    assert driver(spec).next() is Idle.DONE


def test_baselines_are_finished_whatever_their_rank():
    spec = halving(trials=4, baselines={"bad": {"lr": 1.0}})
    session = driver(spec)
    for number, value in enumerate((0.1, 0.5, 0.4, 0.3)):
        session.start()
        session.pause(number, 1, value)
        if number == 2:
            session.start()
            session.pause(1, 3, 0.6)
    again = driver(spec)
    last = [again.start(), again.next()]
    assert [(r.number, r.until) for r in last if isinstance(r, TrialRequest)] == [(0, None)]
    again.end(0, report_of(9, 0.2, "final"))
    best = again.start()
    assert (best.number, best.until) == (1, None)


def test_trials_of_few_epochs_do_not_pause():
    spec = small_spec(
        space={"lr": {"low": 0.1, "high": 2}, "epochs": {"low": 2, "high": 9}},
        fixed={"n_episodes": 3},
        baselines={"short": {"lr": 1.0, "epochs": 2}, "long": {"lr": 1.0, "epochs": 9}},
        scheduler={"name": "asha", "grace": 2, "reduction": 3},
        trials=2,
    )
    session = driver(spec)
    assert spec.rungs == (2, 6)
    assert [session.start().until for _ in range(2)] == [None, 2]
    again = driver(spec)
    assert [again.start().until for _ in range(2)] == [None, 2]


VALUES = st.lists(st.sampled_from([0.1, 0.2, 0.3, None]), min_size=30, max_size=30)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=VALUES, picks=st.lists(st.integers(0, 1), min_size=60, max_size=60))
def test_decisions_do_not_depend_on_how_often_the_driver_was_killed(
    values, picks, tmp_path_factory
):
    """After every event, a session on a copy of the study decides as the one that goes on."""
    folder = tmp_path_factory.mktemp("study")
    spec = halving(baselines={"b": {"lr": 1.0}}, trials=7)
    session = driver(spec, folder / "a")
    running: list[TrialRequest] = []
    for event, (value, pick) in enumerate(zip(values * 2, picks, strict=True)):
        if len(running) < 2:
            copy = Path(shutil.copy(folder / "a", folder / f"copy{event}"))
            there = driver(spec, copy)
            resumed = [there.start() for _ in running]
            assert [r.number for r in resumed] == sorted(r.number for r in running)
            assert {r.number: r.until for r in resumed} == {r.number: r.until for r in running}
            here, other = session.next(), there.next()
            if not isinstance(here, TrialRequest):
                assert other is here
            else:
                assert isinstance(other, TrialRequest)
                assert (other.number, other.until) == (here.number, here.until)
                running.append(here)
                continue
            if not running:
                assert here is Idle.DONE
                return
        request = running.pop(pick % len(running))
        last = request.until or 9
        if value is None:
            session.end(request.number, exploded(last))
        elif request.until is None:
            session.end(request.number, report_of(last, value, "final"))
        else:
            session.pause(request.number, last, value)
    raise AssertionError("the sweep did not end")
