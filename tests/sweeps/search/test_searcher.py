"""What the study holds after each end, and after a driver that did not live to tell it. No Ray."""

from __future__ import annotations

import math
import resource
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import small_spec
from optuna.trial import TrialState

from sweeps.config import SweepSpec
from sweeps.search.sampler import build_sampler
from sweeps.search.searcher import StudySearcher
from sweeps.search.stopping import EXIT_STUDY_LOST, Stops
from sweeps.session.resume import ended, finish_telling, left_to_run, unfinished
from sweeps.states import Outcome, State
from sweeps.study.store import JournalStore, mend
from sweeps.study.study import create_study, read_trials, to_records, warm_up

FILE = Path("study.journal")


class Session:
    """One driver: a study and a searcher on the file of the test."""

    def __init__(self, spec: SweepSpec) -> None:
        self.spec = spec
        self.study = create_study(JournalStore(FILE), spec, build_sampler(spec))
        finish_telling(self.study, spec)
        before = len(to_records(self.study.get_trials()))
        self.study.sampler = build_sampler(spec, before)
        self.stops = Stops(spec)
        self.ends: list[tuple[int, Outcome]] = []
        self.searcher = StudySearcher(
            self.study,
            spec,
            self.stops,
            JournalStore(FILE),
            [t.number for t in unfinished(self.study)],
            lambda number, outcome: self.ends.append((number, outcome)),
        )

    def suggest(self, trial_id: str) -> dict[str, Any]:
        found = self.searcher.suggest(trial_id)
        assert found is not None
        return found

    def trial(self, number: int) -> optuna.trial.FrozenTrial:
        return self.study.trials[number]


def report(epoch: int, value: float | None, phase: str = "running", **more: Any) -> dict[str, Any]:
    told = {} if value is None else {"objective": value, "best": value, "best_epoch": epoch}
    return {"epoch": epoch, "phase": phase, "violation": -2.0, **told, **more}


def exploded(epoch: int, violation: float = 0.7) -> dict[str, Any]:
    return report(epoch, None, "exploded", reason="bang") | {"violation": violation}


def test_exploded_is_pruned_with_its_values_for_tpe() -> None:
    session = Session(small_spec())
    session.suggest("a")
    session.searcher.on_trial_result("a", report(1, 0.4))
    session.searcher.on_trial_complete("a", exploded(2))
    trial = session.trial(0)
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.4}
    assert trial.constraints == {"explosion": 0.7}


def test_trial_that_was_to_run_alone_does_so_after_its_driver_was_killed() -> None:
    first = Session(small_spec())
    assert first.suggest("a")["alone"] is None
    first.searcher.on_trial_result("a", report(1, 0.4))
    first.searcher.retried("a", "out of memory: MemoryError")
    second = Session(first.spec)
    again = second.suggest("b")
    assert (again["number"], again["alone"]) == (0, "out of memory: MemoryError")
    second.searcher.on_trial_complete("b", report(3, 0.5, "final"))
    (trial,) = read_trials(FILE)
    assert (trial.state, trial.retried) == (State.COMPLETED, "out of memory: MemoryError")
    assert second.suggest("c")["alone"] is None


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_exploded_is_complete_with_its_last_value_for_samplers_that_see_no_pruned(
    sampler: str,
) -> None:
    session = Session(small_spec(sampler={"name": sampler}))
    for trial_id in "abc":
        session.suggest(trial_id)
    session.searcher.on_trial_complete("c", report(1, 0.3, "final"))
    session.searcher.on_trial_result("a", report(1, 0.4))
    session.searcher.on_trial_complete("a", exploded(2))
    session.searcher.on_trial_complete("b", exploded(1))
    found = [(t.state, t.value, t.constraints["explosion"]) for t in session.study.trials]
    assert found == [
        (TrialState.COMPLETE, 0.4, 0.7),
        (TrialState.COMPLETE, 0.3, 0.7),  # never measured: the worst so far
        (TrialState.COMPLETE, 0.3, -2.0),
    ]
    records = to_records(session.study.trials)
    assert [t.state for t in records] == [State.INFEASIBLE, State.INFEASIBLE, State.COMPLETED]


def test_two_objectives_are_told_and_their_curve_kept() -> None:
    second = {"metric": "trial/memory_bytes", "mode": "min"}
    session = Session(small_spec(sampler={"name": "nsgaii"}, second_objective=second))
    for trial_id in "abc":
        session.suggest(trial_id)
    session.searcher.on_trial_result("a", report(1, 0.4))
    cost = {"costs/trial/memory_bytes": 3e9}
    session.searcher.on_trial_complete("a", report(2, 0.5, "final", **cost))
    session.searcher.on_trial_complete("b", exploded(1) | cost)
    session.searcher.on_trial_complete("c", report(1, 0.2, "running", **cost))
    assert session.trial(0).values == [0.5, 3e9]
    assert session.trial(1).values == [0.5, 3e9]
    assert session.trial(2).state is TrialState.PRUNED
    assert session.trial(0).user_attrs["curve"] == {"1": 0.4, "2": 0.5}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_reaches_the_study(value: float) -> None:
    session = Session(small_spec())
    session.suggest("a")
    session.searcher.on_trial_result("a", report(1, value))
    session.searcher.on_trial_complete("a", report(2, value, "final"))
    assert session.trial(0).state is TrialState.FAIL
    assert session.trial(0).intermediate_values == {}
    assert session.ends[0][1].reason == "ended without a value of the objective"


def test_running_trials_go_on_first_under_their_numbers_and_settings() -> None:
    first = Session(small_spec(trials=5, baselines={"b": {"lr": 1.0}, "c": {"lr": 2.0}}))
    suggested = [first.suggest(name) for name in ("x", "y", "z")]
    first.searcher.on_trial_result("x", report(1, 0.4))
    first.searcher.on_trial_complete("y", report(1, 0.5, "final"))
    # killed here; in the next session
    second = Session(first.spec)
    assert left_to_run(second.study, second.spec) == 4
    assert [t.number for t in ended(second.study)] == [1]
    again = [second.suggest(name) for name in "pq"]
    assert again == [suggested[0], suggested[2]]
    new = second.suggest("r")
    assert new["number"] == 3
    assert new["parameters"] not in [s["parameters"] for s in suggested]


def test_repeated_report_is_recorded_once() -> None:
    first = Session(small_spec())
    first.suggest("x")
    first.searcher.on_trial_result("x", report(1, 0.4))
    first.searcher.on_trial_result("x", report(2, 0.5))
    second = Session(first.spec)
    second.suggest("y")
    second.searcher.on_trial_result("y", report(2, 0.45))
    second.searcher.on_trial_complete("y", report(3, 0.6, "final"))
    assert second.trial(0).intermediate_values == {1: 0.4, 2: 0.5, 3: 0.6}
    assert second.trial(0).value == 0.6


def test_outcome_that_was_written_but_not_told_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Session(small_spec())
    first.suggest("x")
    first.searcher.on_trial_result("x", report(1, 0.4))

    class KilledError(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(first.study, "tell", killed)
        with pytest.raises(KilledError):
            first.searcher.on_trial_complete("x", report(2, 0.5, "final"))
    assert first.trial(0).state is TrialState.RUNNING
    second = Session(first.spec)
    assert unfinished(second.study) == []
    assert second.trial(0).state is TrialState.COMPLETE
    assert second.trial(0).value == 0.5


def test_interrupted_trial_stays_open_and_says_so() -> None:
    session = Session(small_spec())
    session.suggest("x")
    session.searcher.on_trial_result("x", report(1, 0.4))
    assert session.searcher.close("Ctrl-C") == 1
    assert session.trial(0).state is TrialState.RUNNING
    record = read_trials(FILE)[0]
    assert (record.state, record.reason, record.value) == (State.INTERRUPTED, "Ctrl-C", 0.4)
    assert session.ends == [(0, Outcome(State.INTERRUPTED, "Ctrl-C"))]


def test_killed_driver_s_trial_reads_as_interrupted() -> None:
    Session(small_spec()).suggest("x")
    assert read_trials(FILE)[0].state is State.INTERRUPTED


def test_baselines_that_a_killed_driver_left_out_are_added_once() -> None:
    create_study(
        JournalStore(FILE),
        small_spec(baselines={"b": {"lr": 1.0}}),
        optuna.samplers.RandomSampler(),
    )
    both = small_spec(baselines={"b": {"lr": 1.0}, "c": {"lr": 2.0}})
    study = create_study(JournalStore(FILE), both, optuna.samplers.RandomSampler())
    assert [t.user_attrs["baseline"] for t in study.trials] == ["b", "c"]


def test_line_that_was_cut_off_and_a_lock_left_behind_are_mended() -> None:
    session = Session(small_spec())
    session.suggest("x")
    with FILE.open("ab") as file:
        file.write(b'{"op_code": 8, "work')
    Path(f"{FILE}.lock").symlink_to(FILE)
    mend(FILE)
    second = Session(session.spec)
    assert second.suggest("y")["number"] == 0
    assert not Path(f"{FILE}.lock").is_symlink()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_study_that_is_gone_stops_the_sweep(how: str) -> None:
    session = Session(small_spec())
    session.suggest("x")
    before = FILE.read_bytes()
    FILE.unlink()
    if how == "replaced":
        FILE.write_text("another")
    session.searcher.on_trial_result("x", report(1, 0.4))
    assert session.stops.stop is not None
    assert session.stops.stop.exit_code == EXIT_STUDY_LOST
    assert "the study cannot be written" in session.stops.stop.reason
    assert FILE.read_bytes() == (before if how == "deleted" else b"another")
    assert session.searcher.close() == 1


def test_full_disk_stops_the_sweep_and_the_study_can_be_gone_on_with() -> None:
    session = Session(small_spec())
    session.suggest("x")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE.stat().st_size + 20, hard))
    try:
        session.searcher.on_trial_result("x", report(1, 0.4))
        session.searcher.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert session.stops.stop is not None
    assert "cannot be written (File too large)" in session.stops.stop.reason
    mend(FILE)
    again = Session(session.spec).suggest("y")
    assert again["number"] == 0


def test_warm_start_takes_what_was_learnt_within_the_space_and_counts_nothing() -> None:
    wide = small_spec(baselines={str(lr): {"lr": lr} for lr in (0.5, 1.0, 5.0, 9.0)}, trials=4)
    first = Session(wide)
    for name in "abcd":
        first.suggest(name)
    first.searcher.on_trial_complete("a", report(1, 0.5, "final"))
    first.searcher.on_trial_complete("b", exploded(1))
    first.searcher.on_trial_complete("c", report(1, 0.1, "failed"))
    first.searcher.on_trial_complete("d", report(1, 0.9, "final"))
    narrow = small_spec(space={"lr": {"low": 0.1, "high": 2}}, trials=3)
    study = create_study(JournalStore(Path("new")), narrow, optuna.samplers.RandomSampler())
    assert warm_up(study, narrow, "wide", JournalStore(FILE)) == 2
    assert warm_up(study, narrow, "wide", JournalStore(FILE)) == 2
    assert [(t.params["lr"], t.state) for t in study.trials] == [
        (0.5, TrialState.COMPLETE),
        (1.0, TrialState.PRUNED),
    ]
    assert to_records(study.trials) == []
    assert left_to_run(study, narrow) == 3
