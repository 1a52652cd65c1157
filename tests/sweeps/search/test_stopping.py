"""When a sweep ends early, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import small_spec

from sweeps.search.stopping import EXIT_FAILURES, Stop, Stops, SweepStopped
from sweeps.states import Outcome, State
from sweeps.study.study import TrialRecord

FAILED, DONE = Outcome(State.FAILED, "no luck"), Outcome(State.COMPLETED)


def reason(stops: Stops) -> str:
    with pytest.raises(SweepStopped):
        stops.check()
    assert stops.stop is not None
    return stops.stop.reason


def test_no_limit_no_stop() -> None:
    stops = Stops(small_spec(), seconds=1e9)
    stops.ended(0, DONE, 1.0)
    stops.check()
    assert stops.stop is None


def test_hours_count_all_sessions() -> None:
    spec = small_spec(budget={"hours": 2})
    Stops(spec, seconds=7100).check()
    assert "its time is over (budget.hours 2)" in reason(Stops(spec, seconds=7201))


def test_gpu_hours_are_trial_hours_times_gpus() -> None:
    spec = small_spec(budget={"gpu_hours": 1}, resources={"gpus": 0.5})
    earlier = [TrialRecord(n, State.PRUNED, {}, seconds=3500) for n in range(2)]
    Stops(spec, earlier).check()
    earlier += [TrialRecord(2, State.FAILED, {}, seconds=300)]
    assert "budget.gpu_hours 1" in reason(Stops(spec, earlier))


@pytest.mark.parametrize(
    ("mode", "value", "stopped"),
    [("max", 0.61, True), ("max", 0.59, False), ("min", 0.59, True), ("min", 0.61, False)],
)
def test_target_is_reached_by_a_completed_trial(mode: str, value: float, stopped: bool) -> None:
    objective = {"metric": "val/nAP50", "mode": mode}
    stops = Stops(small_spec(objective=objective, budget={"target": 0.6}))
    stops.ended(0, Outcome(State.PRUNED), value)
    assert stops.stop is None
    stops.ended(1, DONE, value)
    assert (stops.stop is not None) == stopped
    if stopped:
        assert "the target is reached" in reason(stops)
        assert stops.stop.exit_code == 0


def test_target_of_an_earlier_session_counts() -> None:
    earlier = [TrialRecord(0, State.COMPLETED, {}, value=0.7)]
    assert "target" in reason(Stops(small_spec(budget={"target": 0.6}), earlier))


def outcomes(stops: Stops, *states: State) -> Stops:
    for number, state in enumerate(states):
        stops.ended(number, Outcome(state, "no luck"), None)
    return stops


def limited(**changes: Any) -> Stops:
    return Stops(small_spec(failures={"max_fraction": 0.5, "after": 4, **changes}))


def test_too_many_failures_stop_the_sweep_with_a_code_of_their_own() -> None:
    f, c = State.FAILED, State.COMPLETED
    assert outcomes(limited(), f, f, f).stop is None
    assert outcomes(limited(), f, c, f, c).stop is None
    stop = outcomes(limited(), f, c, f, f).stop
    assert stop is not None
    assert stop.exit_code == EXIT_FAILURES
    assert "3 of 4 trials failed" in stop.reason
    assert "no luck" in stop.reason


def test_explosions_and_interruptions_are_no_failures() -> None:
    assert outcomes(limited(), *[State.INFEASIBLE] * 9).stop is None
    assert outcomes(limited(), *[State.FAILED] * 3, *[State.INTERRUPTED] * 3).stop is None


def test_first_reason_counts() -> None:
    stops = Stops(small_spec())
    stops.request(Stop("a"))
    stops.request(Stop("b", 1))
    assert reason(stops) == "a"


@pytest.mark.parametrize(
    ("code", "state"), [(0, State.COMPLETED), (4, State.FAILED), (130, State.INTERRUPTED)]
)
def test_state_of_the_sweep_follows_its_exit_code(code: int, state: State) -> None:
    assert Stop("because", code).outcome == Outcome(state, "because")
