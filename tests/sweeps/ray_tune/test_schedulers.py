"""Schedulers, shown the reports of trials one by one, and two of them in real sweeps."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import small_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_trainers import made_up
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweeps.ray_tune.schedulers import EPOCH, OBJECTIVE, REQUEST, build_scheduler, restore_rungs
from sweeps.states import State
from sweeps.trial.messages import TrialRequest

STOPPING = ("asha", "hyperband", "median")
EPOCHS = 27
curves = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=9), min_size=1, max_size=12)


def scheduler_of(name: str, mode: str = "max", epochs: int = EPOCHS) -> TrialScheduler:
    objective = {"metric": "val/nAP50", "mode": mode}
    fixed = {"epochs": epochs, "n_episodes": 3}
    return build_scheduler(small_spec(scheduler={"name": name}, objective=objective, fixed=fixed))


class Trial:
    """What a scheduler looks at of Ray's trials."""

    status = "RUNNING"

    def __init__(self, number: int, baseline: str | None = None) -> None:
        self.trial_id = f"id{number}"
        spec = small_spec()
        self.config = {
            REQUEST: TrialRequest(
                number, f"{number:04d}", str(number), {}, spec.config({"lr": 1.0}), baseline
            )
        }


def nothing_waits() -> Any:
    """A controller whose every trial waits for its turn, so that pausing one would be tempting."""
    return SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])


def live(
    scheduler: TrialScheduler,
    number: int,
    value: float,
    baseline: str | None = None,
    epochs: int = EPOCHS,
) -> int:
    """A trial that always reports `value`; returns the epoch at which it was stopped, else 0."""
    controller, trial = nothing_waits(), Trial(number, baseline)
    scheduler.on_trial_add(controller, trial)
    for epoch in range(1, epochs + 1):
        report = {EPOCH: epoch, OBJECTIVE: value, "history": [0] * 99}
        decision = scheduler.on_trial_result(controller, trial, report)
        assert decision in (TrialScheduler.CONTINUE, TrialScheduler.STOP)
        if decision == TrialScheduler.STOP and epoch < epochs:
            scheduler.on_trial_remove(controller, trial)
            return epoch
    scheduler.on_trial_complete(controller, trial, {EPOCH: epochs, OBJECTIVE: value})
    return 0


@pytest.mark.parametrize("name", STOPPING)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_worse_trial_is_stopped_and_the_best_is_not(name, mode):
    sign, scheduler = (1 if mode == "max" else -1), scheduler_of(name, mode)
    for number in range(8):
        live(scheduler, number, sign * (0.5 + 0.01 * number))
    assert 1 <= live(scheduler, 9, sign * 0.1) < EPOCHS
    assert live(scheduler, 10, sign * 0.9) == 0


@pytest.mark.parametrize("name", STOPPING)
def test_baseline_is_spared(name):
    scheduler = scheduler_of(name)
    for number in range(6):
        live(scheduler, number, 0.5)
    assert live(scheduler, 7, 0.1, "before") == 0
    assert live(scheduler, 8, 0.1) > 0


@pytest.mark.parametrize("name", STOPPING)
def test_report_without_objective_leaves_no_trace(name):
    """Six trials report once and explode; the next ones are compared with that report, no more."""
    scheduler, controller, without = scheduler_of(name), nothing_waits(), scheduler_of(name)
    for number in range(6):
        trial = Trial(number)
        for one in (scheduler, without):
            one.on_trial_add(controller, trial)
            one.on_trial_result(controller, trial, {EPOCH: 1, OBJECTIVE: 0.6})
        report = {EPOCH: 2}
        assert scheduler.on_trial_result(controller, trial, report) == TrialScheduler.CONTINUE
        scheduler.on_trial_complete(controller, trial, report)
    ends = [(live(scheduler, n, v), live(without, n, v)) for n, v in ((7, 0.5), (8, 0.7), (9, 0.4))]
    assert all(one == other for one, other in ends)
    assert {end for end, _ in ends} > {0}, "some are stopped, the best is not"


@pytest.mark.parametrize("name", STOPPING)
def test_resumed_scheduler_decides_as_the_one_before(name):
    whole, resumed = scheduler_of(name), scheduler_of(name)
    values = [0.5, 0.3, 0.8, 0.2, 0.6, 0.55]
    for number, value in enumerate(values):
        stopped = live(whole, number, value)
        restore_rungs(resumed, {number: dict.fromkeys(range(1, (stopped or EPOCHS) + 1), value)})
    for number, value in enumerate([0.1, 0.52, 0.7, 0.58], start=len(values)):
        assert live(resumed, number, value) == live(whole, number, value)


@pytest.mark.parametrize("name", STOPPING)
def test_trial_that_goes_on_is_not_compared_with_itself(name):
    scheduler = scheduler_of(name)
    for number in range(4):
        restore_rungs(scheduler, {number: {1: 0.5, 2: 0.5}})
        assert live(scheduler, number, 0.5) == 0
    kept = scheduler._results if name == "median" else scheduler._brackets[0]._rungs[-1][1]
    assert not [key for key in kept if str(key).startswith("restored")]


def test_hyperband_lets_some_trials_begin_at_a_later_rung():
    first, again = scheduler_of("hyperband"), scheduler_of("hyperband")
    stops = [live(first, number, -number) for number in range(60)]
    assert Counter(stops).keys() >= {1, 3, 9}
    assert stops == [live(again, number, -number) for number in range(60)], (
        "no chance but the number"
    )
    assert {live(scheduler_of("asha"), n, -n) for n in range(3)} == {0}
    asha = scheduler_of("asha")
    assert {live(asha, number, -number) for number in range(60)} == {0, 1}


def test_median_keeps_no_history():
    scheduler = scheduler_of("median")
    live(scheduler, 0, 0.5)
    assert all(r.keys() == {EPOCH, OBJECTIVE} for rs in scheduler._results.values() for r in rs)


@pytest.mark.parametrize(("name", "epochs"), [("none", 9), ("asha", 1), ("hyperband", 1)])
def test_nothing_is_stopped_where_there_is_nothing_to_save(name, epochs):
    assert type(scheduler_of(name, epochs=epochs)) is FIFOScheduler


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hyperband", "median"])
def test_real_sweep_prunes_but_no_baseline(name, run_small):
    values = {f"b{i}": {"lr": lr} for i, lr in enumerate((1.0, 0.9, 0.95, 0.8, 3, 0.1))}
    swept = run_small(
        made_up,
        baselines=values,
        trials=14,
        fixed={"epochs": 9, "n_episodes": 3},
        sampler={"name": "random", "seed": 1},
        space={"lr": {"low": 0.1, "high": 3.0}},
        scheduler={"name": name, "grace": 1, "reduction": 3},
    )
    states = [t.state for t in swept.result.trials]
    assert states[:6] == [State.COMPLETED] * 4 + [State.INFEASIBLE, State.COMPLETED]
    assert State.PRUNED in states[6:]
    assert not {State.FAILED, State.INTERRUPTED} & set(states)


def stub(number: int, trial_id: str) -> SimpleNamespace:
    request = SimpleNamespace(number=number, baseline=None)
    return SimpleNamespace(trial_id=trial_id, config={REQUEST: request})


@settings(max_examples=60, deadline=None)
@given(curves, curves, st.sampled_from(["asha", "hyperband"]))
def test_rungs_decide_after_a_resume_as_before(before, after, name):
    """One scheduler sees all; the other is built anew between `before` and `after`.

    The last trial of `before` is cut off in its middle and goes on under another id.
    """
    spec = small_spec(scheduler={"name": name, "grace": 1, "reduction": 2}, fixed={"epochs": 9})
    whole, first, second = (build_scheduler(spec) for _ in range(3))

    def feed(scheduler: Any, trial: Any, values: list[float], start: int = 1) -> list[str]:
        decisions = []
        for epoch, value in enumerate(values, start):
            if epoch < 9:
                result = {"epoch": epoch, "objective": value}
                decisions.append(scheduler.on_trial_result(None, trial, result))
        return decisions

    half = (len(before[-1]) + 1) // 2
    for number, values in enumerate(before):
        for scheduler in (whole, first):
            scheduler.on_trial_add(None, stub(number, f"t{number}"))
        last = number == len(before) - 1
        feed(whole, stub(number, f"t{number}"), values[:half] if last else values)
    known = [*before[:-1], before[-1][:half]]
    restore_rungs(second, {n: dict(enumerate(values, 1)) for n, values in enumerate(known)})
    again = stub(len(before) - 1, "another id")
    second.on_trial_add(None, again)

    rest = before[-1][half - 1 :]  # the epoch of the checkpoint is reported again
    old = stub(len(before) - 1, f"t{len(before) - 1}")
    assert feed(whole, old, rest, half) == feed(second, again, rest, half)
    for number, values in enumerate(after, len(before)):
        for scheduler in (whole, second):
            scheduler.on_trial_add(None, stub(number, f"t{number}"))
        trial = stub(number, f"t{number}")
        assert feed(whole, trial, values) == feed(second, trial, values)
