"""When a sweep ends early, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import small_spec
from trial_requests import request_for

from fsdet.command import ExitCode
from sweeps.search.stopping import StoppingCriteria, StopReason, SweepStopped
from sweeps.states import Outcome, State
from sweeps.study.records import TrialRecord
from sweeps.trial.messages import TrialEnd

FAILED, DONE = Outcome(State.FAILED, "no luck"), Outcome(State.COMPLETED)


def end(number: int, outcome: Outcome, value: float | None) -> TrialEnd:
    request = request_for(small_spec(), {"lr": 1.0}, number)
    return TrialEnd(request, outcome, value, 1.0, None)


def reason(stopping: StoppingCriteria) -> str:
    with pytest.raises(SweepStopped):
        stopping.check()
    assert stopping.reason is not None
    return stopping.reason.text


def test_no_limit_no_stop():
    stopping = StoppingCriteria(small_spec(), seconds=1e9)
    stopping.on_end(end(0, DONE, 1.0))
    stopping.check()
    assert stopping.reason is None


def test_hours_count_all_sessions():
    spec = small_spec(budget={"hours": 2})
    StoppingCriteria(spec, seconds=7100).check()
    assert "its time is over (budget.hours 2)" in reason(StoppingCriteria(spec, seconds=7201))


def test_gpu_hours_are_trial_hours_times_gpus():
    spec = small_spec(budget={"gpu_hours": 1}, resources={"gpus": 0.5})
    earlier = [TrialRecord(n, State.PRUNED, {}, seconds=3500) for n in range(2)]
    StoppingCriteria(spec, earlier).check()
    earlier += [TrialRecord(2, State.FAILED, {}, seconds=300)]
    assert "budget.gpu_hours 1" in reason(StoppingCriteria(spec, earlier))


def test_gpu_hours_count_the_trials_that_run():
    spec = small_spec(budget={"gpu_hours": 1}, resources={"gpus": 0.5})
    stopping = StoppingCriteria(spec)
    stopping.check([3600, 3500])
    with pytest.raises(SweepStopped):
        stopping.check([3700, 3600])


def two_ended(seconds: float) -> list[TrialRecord]:
    return [TrialRecord(n, State.PRUNED, {}, seconds=seconds) for n in range(2)]


def test_affordable_without_a_limit_or_a_measurement():
    assert StoppingCriteria(small_spec(), two_ended(10)).affordable(4) is None
    hours = small_spec(budget={"hours": 2})
    assert StoppingCriteria(hours).affordable(0) is None
    trainings = small_spec(fixed={"epochs": 9}, budget={"trainings": 3, "hours": 2})
    assert StoppingCriteria(trainings).affordable(0) == 27


def test_affordable_hours_are_those_left_at_the_measured_time_of_an_epoch():
    spec = small_spec(fixed={"epochs": 9}, budget={"hours": 1})
    stopping = StoppingCriteria(spec, seconds=1600)  # 160 s an epoch, 2000 s left
    assert stopping.affordable(10) == pytest.approx(10 + 12.5, abs=0.1)
    stopping.check(
        [320, 640]
    )  # two workers, three of their epochs are done; the last trial may end alone
    assert stopping.affordable(10) == pytest.approx(13 + 12.5 - 9, abs=0.1)


def test_affordable_gpu_hours_count_all_trials():
    spec = small_spec(budget={"gpu_hours": 1}, resources={"gpus": 0.5})
    stopping = StoppingCriteria(spec, two_ended(100))
    stopping.check([40, 20])  # still to be counted when they end
    assert stopping.affordable(10) == pytest.approx(7200 / 20)  # 20 s an epoch


@pytest.mark.parametrize(
    ("mode", "value", "stopped"),
    [("max", 0.61, True), ("max", 0.59, False), ("min", 0.59, True), ("min", 0.61, False)],
)
def test_target_is_reached_by_a_completed_trial(mode, value, stopped):
    objective = {"metric": "val/nAP50", "mode": mode}
    stopping = StoppingCriteria(small_spec(objective=objective, budget={"target": 0.6}))
    stopping.on_end(end(0, Outcome(State.PRUNED), value))
    assert stopping.reason is None
    stopping.on_end(end(1, DONE, value))
    assert (stopping.reason is not None) == stopped
    if stopped:
        assert "the target is reached" in reason(stopping)
        assert stopping.reason.exit_code == 0


def test_target_of_an_earlier_session_counts():
    earlier = [TrialRecord(0, State.COMPLETED, {}, value=0.7)]
    assert "target" in reason(StoppingCriteria(small_spec(budget={"target": 0.6}), earlier))


def outcomes(stopping: StoppingCriteria, *states: State) -> StoppingCriteria:
    for number, state in enumerate(states):
        stopping.on_end(end(number, Outcome(state, "no luck"), None))
    return stopping


def limited(**changes: Any) -> StoppingCriteria:
    return StoppingCriteria(small_spec(failures={"max_fraction": 0.5, "after": 4, **changes}))


def test_too_many_failures_stop_the_sweep_with_a_code_of_their_own():
    f, c = State.FAILED, State.COMPLETED
    assert outcomes(limited(), f, f, f).reason is None
    assert outcomes(limited(), f, c, f, c).reason is None
    stop = outcomes(limited(), f, c, f, f).reason
    assert stop is not None
    assert stop.exit_code == ExitCode.TOO_MANY_FAILURES
    assert "3 of 4 trials failed" in stop.text
    assert "no luck" in stop.text


def test_explosions_and_interruptions_are_no_failures():
    assert outcomes(limited(), *[State.INFEASIBLE] * 9).reason is None
    assert outcomes(limited(), *[State.FAILED] * 3, *[State.INTERRUPTED] * 3).reason is None


def test_paused_trials_have_not_failed_and_count_once():
    f, p = State.FAILED, State.PAUSED
    assert outcomes(limited(), p, p, f, f, p).reason is None
    stopping = outcomes(limited(), p, p, f, f)
    stopping.on_end(end(0, Outcome(f, "no luck"), None))
    assert stopping.reason is not None
    assert "3 of 4 trials failed" in stopping.reason.text


def test_target_is_not_reached_by_a_paused_trial():
    stopping = StoppingCriteria(small_spec(budget={"target": 0.6}))
    stopping.on_end(end(0, Outcome(State.PAUSED), 0.7))
    assert stopping.reason is None


def test_first_reason_counts():
    stopping = StoppingCriteria(small_spec())
    stopping.request(StopReason("a"))
    stopping.request(StopReason("b", ExitCode.NOTHING_FOUND))
    assert reason(stopping) == "a"


@pytest.mark.parametrize(
    ("code", "state"), [(0, State.COMPLETED), (4, State.FAILED), (130, State.INTERRUPTED)]
)
def test_state_of_the_sweep_follows_its_exit_code(code, state):
    assert StopReason("because", ExitCode(code)).outcome == Outcome(state, "because")
