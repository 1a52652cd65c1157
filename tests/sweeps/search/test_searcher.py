"""What the study holds after each end of a trial, and after a driver that was killed in between. No Ray."""

from __future__ import annotations

import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import small_spec
from optuna.trial import TrialState
from session_parts import Driver, exploded, report_of

from fsdet.command import ExitCode
from sweeps.config import SweepSpec
from sweeps.search.outcomes import LEAST_VIOLATION, constraint_of
from sweeps.session.resume import unfinished
from sweeps.states import Outcome, State
from sweeps.study.records import to_records
from sweeps.study.store import JournalStore, repair
from sweeps.study.study import read_trials

FILE = Path("study.journal")


def driver(spec: SweepSpec | None = None, **changes: Any) -> Driver:
    """A session on the file of the test."""
    return Driver(spec or small_spec(**changes), JournalStore(FILE))


def test_exploded_is_pruned_with_its_values_for_tpe():
    session = driver()
    session.start()
    session.report(0, report_of(1, 0.4))
    session.end(0, exploded(2))
    trial = session.trial(0)
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.4}
    assert trial.constraints == {"explosion": 0.7}


def test_ties_are_resolved_once_and_the_request_is_complete():
    space = {
        "lr": {"low": 0.01, "high": 10},
        "fusion_lr_mult": {"low": 1, "high": 4},
        "head_lr_mult": {"tie": "fusion_lr_mult", "times": 2},
    }
    request = driver(space=space).start()
    assert set(request.parameters) == set(space)
    assert request.parameters["head_lr_mult"] == 2 * request.parameters["fusion_lr_mult"]
    assert {key: getattr(request.config, key) for key in space} == request.parameters
    assert request.config.epochs == 3
    assert request.config.checkpoint_dir == Path.cwd() / "trials" / "0000"


def test_trial_that_was_to_run_alone_does_so_after_its_driver_was_killed():
    first = driver()
    request = first.start()
    assert request.retried == ""
    first.report(0, report_of(1, 0.4))
    first.trials.on_retry(replace(request, retried="out of memory: MemoryError"))
    second = driver(first.spec)
    again = second.start()
    assert (again.number, again.retried) == (0, "out of memory: MemoryError")
    assert [r.retried for r in second.told.retries] == ["out of memory: MemoryError"]
    second.end(0, report_of(3, 0.5, "final"))
    (trial,) = read_trials(FILE)
    assert (trial.state, trial.retried) == (State.COMPLETED, "out of memory: MemoryError")
    assert second.start().retried == ""


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_exploded_is_complete_with_its_last_value_for_samplers_that_see_no_pruned(
    sampler,
):
    session = driver(sampler={"name": sampler}, trials=3)
    for _ in range(3):
        session.start()
    session.end(2, report_of(1, 0.3, "final"))
    session.report(0, report_of(1, 0.4))
    session.end(0, exploded(2))
    session.end(1, exploded(1))
    found = [(t.state, t.value, t.constraints["explosion"]) for t in session.study.trials]
    assert found == [
        (TrialState.COMPLETE, 0.4, 0.7),
        (TrialState.COMPLETE, 0.3, 0.7),  # never measured: the worst so far
        (TrialState.COMPLETE, 0.3, -2.0),
    ]
    records = to_records(session.study.trials)
    assert [t.state for t in records] == [State.INFEASIBLE, State.INFEASIBLE, State.COMPLETED]


def test_two_objectives_are_told_and_their_curve_kept():
    second = {"metric": "trial/memory_bytes", "mode": "min"}
    session = driver(sampler={"name": "nsgaii"}, second_objective=second, trials=2)
    for _ in range(2):
        session.start()
    session.report(0, report_of(1, 0.4))
    cost = {"costs": {"trial/memory_bytes": 3e9}}
    session.end(0, report_of(2, 0.5, "final", **cost))
    session.end(1, exploded(1, **cost))
    assert session.trial(0).values == [0.5, 3e9]
    assert session.trial(1).values == [0.5, 3e9]
    assert session.trial(0).user_attrs["curve"] == {"1": 0.4, "2": 0.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_reaches_the_study(value):
    session = driver()
    session.start()
    session.report(0, report_of(1, value, best=None))
    session.end(0, report_of(2, value, "final", best=None))
    assert session.trial(0).state is TrialState.FAIL
    assert session.trial(0).intermediate_values == {}
    assert session.told.ends[0].outcome.reason == "ended without a value of the objective"


def test_running_trials_go_on_first_under_their_numbers_and_settings():
    first = driver(trials=5, baselines={"b": {"lr": 1.0}, "c": {"lr": 2.0}})
    suggested = [first.start() for _ in range(3)]
    assert [request.baseline for request in suggested] == ["b", "c", None]
    first.report(0, report_of(1, 0.4))
    first.end(1, report_of(1, 0.5, "final"))
    # killed here; in the next session
    second = driver(first.spec)
    assert second.suggestions == 2
    assert [t.number for t in unfinished(second.study)] == [0, 2]
    assert [second.start() for _ in range(2)] == [suggested[0], suggested[2]]
    new = second.start()
    assert new.number == 3
    assert new.parameters not in [s.parameters for s in suggested]


def test_repeated_report_is_recorded_once():
    first = driver()
    first.start()
    first.report(0, report_of(1, 0.4))
    first.report(0, report_of(2, 0.5))
    second = driver(first.spec)
    second.start()
    second.report(0, report_of(2, 0.45))
    second.end(0, report_of(3, 0.6, "final"))
    assert second.trial(0).intermediate_values == {1: 0.4, 2: 0.5, 3: 0.6}
    assert second.trial(0).value == 0.6


def test_outcome_that_was_written_but_not_told_is_told(monkeypatch):
    first = driver()
    first.start()
    first.report(0, report_of(1, 0.4))

    class KilledError(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(first.study, "tell", killed)
        with pytest.raises(KilledError):
            first.end(0, report_of(2, 0.5, "final"))
    assert first.trial(0).state is TrialState.RUNNING
    second = driver(first.spec)
    assert unfinished(second.study) == []
    assert second.trial(0).state is TrialState.COMPLETE
    assert second.trial(0).value == 0.5


def test_interrupted_trial_stays_open_and_says_so():
    session = driver()
    session.start()
    session.report(0, report_of(1, 0.4))
    assert session.trials.close("Ctrl-C") == 1
    assert session.trial(0).state is TrialState.RUNNING
    record = read_trials(FILE)[0]
    assert (record.state, record.reason, record.value) == (State.INTERRUPTED, "Ctrl-C", 0.4)
    (end,) = session.told.ends
    assert (end.number, end.outcome) == (0, Outcome(State.INTERRUPTED, "Ctrl-C"))


def test_line_that_was_cut_off_and_a_lock_left_behind_are_repaired():
    session = driver()
    session.start()
    with FILE.open("ab") as file:
        file.write(b'{"op_code": 8, "work')
    Path(f"{FILE}.lock").symlink_to(FILE)
    repair(FILE)
    assert driver(session.spec).start().number == 0
    assert not Path(f"{FILE}.lock").is_symlink()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_study_that_is_gone_stops_the_sweep(how):
    session = driver()
    session.start()
    before = FILE.read_bytes()
    FILE.unlink()
    if how == "replaced":
        FILE.write_text("another")
    session.report(0, report_of(1, 0.4))
    stop = session.stopping.reason
    assert stop is not None
    assert stop.exit_code is ExitCode.STUDY_LOST
    assert "the study cannot be written" in stop.text
    assert FILE.read_bytes() == (before if how == "deleted" else b"another")
    assert session.trials.close() == 1


def test_full_disk_stops_the_sweep_and_the_study_can_be_resumed():
    session = driver()
    session.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE.stat().st_size + 20, hard))
    try:
        session.report(0, report_of(1, 0.4))
        session.trials.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert session.stopping.reason is not None
    assert "cannot be written (File too large)" in session.stopping.reason.text
    repair(FILE)
    assert driver(session.spec).start().number == 0


@pytest.mark.parametrize(
    ("state", "violation", "expected"),
    [
        (State.INFEASIBLE, 0.7, 0.7),
        (State.INFEASIBLE, -2.0, LEAST_VIOLATION),
        (State.COMPLETED, 0.3, 0.0),
        (State.COMPLETED, -2.0, -2.0),
        (State.PRUNED, float("nan"), 0.0),
    ],
)
def test_sign_of_the_constraint_is_the_verdict(state, violation, expected):
    assert constraint_of(Outcome(state), violation) == expected
