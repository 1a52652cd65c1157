"""Which trial trains next: written-out sweeps, the ranks at a rung, and random sweeps of every kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.search.promotion import (
    Decision,
    Idle,
    Progress,
    Train,
    decide,
    finish,
    next_stop,
    promotable,
    standing,
)
from sweeps.states import ENDED, State

NEVER = 10**6


@dataclass
class Course:
    """What happens to one trial, whoever decides how far it trains."""

    value: Callable[[int], float]
    """At an epoch."""
    epochs: int = 9
    baseline: bool = False
    explodes: int = NEVER
    """Epoch in which it explodes."""
    fails: int = NEVER
    """Epoch in which it fails."""


@dataclass
class Run:
    """A sweep over made-up trials; workers finish in the order in which they began unless told otherwise."""

    courses: Sequence[Course]
    rungs: tuple[int, ...] = (1, 3)
    reduction: float = 3
    budget: float | None = None
    trials: list[Progress] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    log: list[tuple[int, int | None]] = field(default_factory=list)
    """Number and `until` of every leg, in the order of the decisions."""
    spent: int = 0
    """Epochs trained."""

    def next(self) -> Decision:
        """The next decision, carried out."""
        waiting = [c for c in self.courses[len(self.trials) :] if c.baseline]
        may_begin = len(self.trials) < len(self.courses)
        decision = (
            Train(None, self.rungs[0] if self.rungs else None)
            if waiting
            else decide(self.trials, self.rungs, self.reduction, may_begin, self.budget)
        )
        if isinstance(decision, Train):
            self.begin(decision)
        return decision

    def begin(self, chosen: Train) -> None:
        number = len(self.trials) if chosen.number is None else chosen.number
        if chosen.number is None:
            course = self.courses[number]
            self.trials.append(Progress(number, course.epochs, course.baseline))
        trial = self.trials[number]
        over = chosen.until is None or chosen.until >= trial.epochs
        trial.until, trial.state = None if over else chosen.until, State.RUNNING
        self.running.append(number)
        self.log.append((number, trial.until))

    def end(self, number: int) -> None:
        """A worker comes to the end of a trial's leg."""
        trial, course = self.trials[number], self.courses[number]
        self.running.remove(number)
        last = trial.until or trial.epochs
        for epoch in range(trial.epoch + 1, last + 1):
            self.spent += 1
            if course.explodes == epoch or course.fails == epoch:
                exploded = course.explodes == epoch
                trial.state = State.INFEASIBLE if exploded else State.FAILED
                return
            trial.values[epoch] = course.value(epoch)
        trial.state = State.COMPLETED if trial.until is None else State.PAUSED

    def run(self, workers: int = 1, first: Callable[[int], int] = lambda _: 0) -> Run:
        """To the end; `first` picks which of n running trials is done next."""
        while True:
            decision = self.next() if len(self.running) < workers else Idle.WAIT
            if decision is Idle.DONE:
                assert not self.running
                return self
            if decision is Idle.WAIT:
                self.end(self.running[first(len(self.running))])


def constant(*values: float, **more: bool) -> list[Course]:
    """Trials whose value never changes."""
    return [Course(lambda _, value=value: value, **more) for value in values]


def at(number: int, value: float, epoch: int = 1, state: State = State.PAUSED) -> Progress:
    """A trial that has a value at one epoch."""
    return Progress(number, 9, state=state, until=epoch, values={epoch: value})


VALUES = {1: (0.5, 0.3, 0.9, 0.6, 0.2, 0.8, 0.1, 0.7, 0.4), 3: {2: 0.85, 5: 0.95, 7: 0.7}}
"""At epoch 1 of nine trials; at epoch 3 of those that come so far."""


def written_out() -> Run:
    courses = [Course(lambda epoch, n=n: VALUES[min(epoch, 3) // 3 * 2 + 1][n]) for n in range(9)]
    return Run(courses)


def test_one_worker_written_out():
    found = written_out().run()
    assert found.log == [
        *((0, 1), (1, 1), (2, 1)),
        (2, 3),  # the best of the first three
        *((3, 1), (4, 1), (5, 1)),
        (5, 3),  # the second of six
        *((6, 1), (7, 1), (8, 1)),
        (7, 3),  # the third of nine
        (5, None),  # the best of three at the second rung, where it has overtaken trial 2
    ]
    states = {trial.number: trial.state for trial in found.trials}
    assert states == {**dict.fromkeys(range(9), State.PAUSED), 5: State.COMPLETED}
    assert found.spent == 9 + 3 * 2 + 6
    assert standing(found.trials, found.trials[3]) == "rank 4 of 9 at epoch 1"
    assert standing(found.trials, found.trials[2]) == "rank 2 of 3 at epoch 3"


def test_two_workers_written_out():
    """A worker that is free takes a new trial before its rivals have reached the rung."""
    assert written_out().run(workers=2).log == [
        *((0, 1), (1, 1), (2, 1), (3, 1)),
        (2, 3),  # trial 3 is still running
        *((4, 1), (5, 1), (6, 1)),
        (5, 3),
        *((7, 1), (8, 1)),
        (7, 3),
        (5, None),
    ]


def test_no_rungs_train_every_trial_to_its_end():
    found = Run(constant(0.5, 0.1, 0.9), rungs=()).run(workers=2)
    assert found.log == [(0, None), (1, None), (2, None)]
    assert {trial.state for trial in found.trials} == {State.COMPLETED}


def test_higher_rungs_come_first():
    trials = [at(n, 0.9 - 0.1 * n, 3) for n in range(3)] + [at(n, 0.5) for n in range(3, 9)]
    assert decide(trials, (1, 3), 3, may_begin=True) == Train(0, None)
    for trial in trials[:3]:
        trial.values[1] = 0.9
    trials[0].state = State.COMPLETED
    assert decide(trials, (1, 3), 3, may_begin=True) == Train(None, 1)


@pytest.mark.parametrize(("reduction", "fewest"), [(2, 2), (3, 3), (4, 4), (2.5, 3)])
def test_a_promotion_needs_a_whole_one_of_the_reduction(reduction, fewest):
    trials = [at(number, 0.5) for number in range(fewest)]
    assert promotable(trials[:-1], 1, reduction) is None
    assert promotable(trials, 1, reduction) is trials[0]


def test_exploded_trials_rank_last_and_count():
    exploded = [Progress(n, 9, state=State.INFEASIBLE, until=1) for n in range(2)]
    paused = at(2, -5.0)
    assert promotable([*exploded, paused], 1, 3) is paused
    assert promotable([exploded[0], paused], 1, 3) is None
    later = Progress(3, 9, state=State.INFEASIBLE, until=3, values={1: 0.9})
    assert promotable([exploded[0], later, paused], 1, 3) is paused
    deeper = at(4, 0.1, 3)
    assert promotable([exploded[0], deeper], 3, 2) is None  # that one was not on its way there
    assert promotable([later, deeper], 3, 2) is deeper
    assert standing([*exploded, paused], paused) == "rank 1 of 3 at epoch 1"


def test_failed_trial_counts_where_it_had_a_value():
    early = Progress(0, 9, state=State.FAILED, until=1)
    late = Progress(1, 9, state=State.FAILED, until=3, values={1: 0.9})
    paused = at(2, 0.5)
    assert promotable([early, paused, at(3, 0.4)], 1, 3) is None
    others = [paused, *(at(n, 0.1) for n in range(3, 6))]
    assert promotable([late, *others], 1, 3) is None  # the failed one is the best of five
    assert promotable([late, *others, at(6, 0.0)], 1, 3) is paused


def test_of_equals_the_earlier_trial_is_promoted():
    assert promotable([at(2, 0.5), at(0, 0.5), at(1, 0.5)], 1, 3).number == 0


def test_running_trials_have_reached_no_rung_ahead():
    running = Progress(0, 9, until=1)
    assert promotable([running, at(1, 0.5), at(2, 0.4)], 1, 3) is None


def test_trials_of_fewer_epochs_end_before_the_next_rung():
    courses = [Course(lambda _: 0.5, epochs=n, baseline=True) for n in (1, 2, 3, 4)]
    found = Run(courses, reduction=2).run()
    assert found.log == [
        *((0, None), (1, 1), (2, 1), (3, 1)),
        (1, None),  # the second of four; the first has ended
        *((2, None), (3, None)),
    ]
    assert [next_stop(epochs, 3) for epochs in (2, 3, 4)] == [None, None, 3]


def test_baselines_are_finished_at_the_end_though_they_are_the_worst():
    baselines = constant(0.1, 0.2, baseline=True)
    found = Run([*baselines, *constant(0.5, 0.6, 0.7, 0.8)]).run()
    assert [state for n, state in states_of(found).items() if n < 2] == [State.COMPLETED] * 2
    assert found.log[-3:] == [(5, None), (0, None), (1, None)]
    assert State.PAUSED in states_of(found).values()


def states_of(found: Run) -> dict[int, State]:
    return {trial.number: trial.state for trial in found.trials}


def test_best_paused_is_finished_if_none_completed():
    found = Run(constant(0.5, 0.7)).run()
    assert found.log == [(0, 1), (1, 1), (1, None)]


def test_best_paused_is_the_one_that_came_furthest():
    trials = [at(0, 0.9), at(1, 0.4, 3), at(2, 0.5, 3)]
    assert finish(trials) == Train(2, None)
    trials[2].state = State.INFEASIBLE
    assert finish(trials) == Train(1, None)


def test_no_finalist_is_chosen_while_others_run():
    assert finish([at(0, 0.9), Progress(1, 9, until=1)]) is Idle.WAIT
    assert finish([Progress(0, 9, state=State.INTERRUPTED)]) is Idle.WAIT
    assert finish([]) is Idle.DONE


def test_budget_ends_the_search_in_time_for_the_finalists():
    """27 epochs: the baseline takes nine, a finalist nine, nine are left."""
    found = Run(
        [*constant(0.1, baseline=True), *constant(*(0.2 + 0.01 * n for n in range(40)))],
        budget=27,
    ).run()
    assert found.spent <= 27
    assert states_of(found)[0] is State.COMPLETED
    assert sum(state is State.COMPLETED for state in states_of(found).values()) == 2
    assert len(found.trials) < 41
    assert Run(found.courses, budget=28).run().spent <= 28


courses = st.builds(
    lambda start, slope, epochs, explodes, fails: Course(
        lambda epoch: start + slope * epoch, epochs, explodes=explodes, fails=fails
    ),
    st.floats(-1, 1).map(lambda x: round(x, 1)),  # rounded, for ties
    st.floats(-0.1, 0.1),
    st.just(9) | st.integers(1, 9),
    st.just(NEVER) | st.just(NEVER) | st.integers(1, 9),
    st.just(NEVER) | st.just(NEVER) | st.integers(1, 9),
)
sound = courses.map(lambda c: Course(c.value, 9))


def with_baselines(found: list[Course], count: int) -> list[Course]:
    """The same, the first `count` being baselines."""
    return [Course(c.value, c.epochs, n < count, c.explodes, c.fails) for n, c in enumerate(found)]


runs = {
    "count": st.integers(0, 3),
    "rungs": st.sampled_from([(), (1,), (1, 3), (2, 4, 8), (3,)]),
    "reduction": st.sampled_from([1.5, 2, 3, 4]),
    "workers": st.integers(1, 4),
    "data": st.data(),
}


def run_random(
    found: list[Course],
    count: int,
    rungs: tuple[int, ...],
    reduction: float,
    workers: int,
    data: st.DataObject,
    budget: float | None = None,
) -> Run:
    run = Run(with_baselines(found, count), rungs, reduction, budget)
    return run.run(workers, lambda running: data.draw(st.integers(0, running - 1)))


@settings(max_examples=200, deadline=None)
@given(found=st.lists(courses, min_size=1, max_size=20), **runs)
def test_every_sweep_ends_with_its_baselines_and_a_complete_trial(
    found, count, rungs, reduction, workers, data
):
    run = run_random(found, count, rungs, reduction, workers, data)
    assert len(run.trials) == len(found)
    states = states_of(run)
    assert set(states.values()) <= {*ENDED, State.PAUSED}
    searched = [trial.state for trial in run.trials if not trial.baseline]
    for trial in run.trials:
        assert trial.epoch in {*run.rungs, trial.epochs} or trial.state in (
            State.INFEASIBLE,
            State.FAILED,
        )
        assert not (trial.baseline and trial.state is State.PAUSED)
    if State.COMPLETED not in searched:
        assert State.PAUSED not in searched
    for trial in run.trials:
        if trial.state is State.PAUSED:
            assert standing(run.trials, trial).startswith("rank ")


@settings(max_examples=200, deadline=None)
@given(found=st.lists(sound, min_size=1, max_size=20), extra=st.integers(0, 60), **runs)
def test_budget_is_never_exceeded_if_it_allows_the_finalists(
    found, extra, count, rungs, reduction, workers, data
):
    """Where no trial explodes or fails: another finalist replaces one that does."""
    finalists = min(count, len(found)) + (count < len(found))
    budget = 9.0 * finalists + extra
    run = run_random(found, count, rungs, reduction, workers, data, budget)
    assert run.spent <= budget
    assert math.isfinite(run.spent)
    states = states_of(run)
    assert all(states[n] is State.COMPLETED for n in range(min(count, len(found))))
