"""Which rungs a sweep uses: by the price of an evaluation, and by how long a ranking lasts."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.config.sections import SchedulerSpec
from sweeps.search.promotion import Progress
from sweeps.search.rungs import PAIRS, Rungs, find_rungs, says_too_little, too_dear, unselected
from sweeps.states import State

LADDERS = [(1, 4), (2, 8), (4,)]


def paused(number: int, price: float | None = None, **values: float) -> Progress:
    """A trial with values at epochs, `e1` and so on."""
    by_epoch = {int(name[1:]): value for name, value in values.items()}
    return Progress(number, 16, state=State.PAUSED, until=1, values=by_epoch, price=price)


def test_ladders_of_a_sweep():
    assert SchedulerSpec().ladders(16) == [(1, 4), (4,)]
    assert SchedulerSpec().ladders(100) == [(1, 4, 16, 64), (4, 16, 64), (16, 64)]
    assert SchedulerSpec(grace=3).ladders(16) == [(3, 12)]
    assert SchedulerSpec(grace=16).ladders(16) == []
    assert SchedulerSpec(name="none").ladders(16) == []
    assert SchedulerSpec().ladders(1) == []
    assert SchedulerSpec().ladders(2) == [(1,)]


def test_first_ladder_serves_until_something_speaks_against_it():
    assert find_rungs([], LADDERS) == Rungs((1, 4), "")
    assert find_rungs([paused(0, e1=0.5)], []) == Rungs((), "")
    assert find_rungs([], LADDERS[-1:]) == Rungs((4,), "")


def test_evaluation_that_takes_longer_than_the_training_up_to_it_is_too_dear():
    prices = (1.2, 1.4, 9.0) * 3
    trials = [paused(n, price, e1=0.5) for n, price in enumerate(prices)]
    assert too_dear(trials, 2) is None
    assert too_dear(trials[:7], 1) is None  # the first evaluations of a sweep are slow
    found = find_rungs(trials, LADDERS)
    assert found == Rungs((2, 8), "not at epoch 1: an evaluation takes as long as 1.4 epochs")
    costly = [paused(n, 7.0, e1=0.5) for n in range(8)]
    assert find_rungs(costly, LADDERS).epochs == (4,)
    assert find_rungs(costly, LADDERS).reason.count("an evaluation takes") == 2


def test_price_of_full_evaluations_does_not_count():
    complete = paused(0, 50.0, e1=0.5)
    complete.state = State.COMPLETED
    assert too_dear([complete] * 8 + [paused(1, 0.1, e1=0.5)] * 8, 1) is None


def ranked(count: int, promoted: int, lasting: bool, seed: int = 0) -> list[Progress]:
    """Trials of which the best `promoted` reached epoch 4, in the same order there or in any."""
    chance = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        later = {"e4": number if lasting else float(chance.random())}
        trials.append(paused(number, e1=number, **(later if number >= count - promoted else {})))
    return trials


def test_ranking_that_lasts_keeps_the_rung():
    assert find_rungs(ranked(40, 12, lasting=True), LADDERS).epochs == (1, 4)


def test_ranking_that_does_not_last_drops_the_rung():
    trials = ranked(200, 200, lasting=False)
    found = find_rungs(trials, LADDERS)
    assert found.epochs == (2, 8)
    assert found.reason.startswith(
        "not at epoch 1: over 200 trials its rank correlation with epoch 4"
    )


def test_reversed_ranking_drops_the_rung_soon():
    trials = [paused(n, e1=n, e4=-n) for n in range(PAIRS)]
    assert says_too_little(trials, 1, 4) is not None
    assert says_too_little(trials[1:], 1, 4) is None, "too few to tell"


def test_exploded_trials_are_not_compared():
    trials = ranked(40, 12, lasting=True)
    for number in range(10):
        exploded = paused(100 + number, e1=50.0, e4=-50.0)
        exploded.state = State.INFEASIBLE
        trials.append(exploded)
    assert says_too_little(trials, 1, 4) is None


def test_correction_for_selection_is_that_of_thorndike():
    assert unselected(0.5, 1.0) == pytest.approx(0.5)
    assert unselected(0.0, 3.0) == 0.0
    chance = np.random.default_rng(0)
    x = chance.normal(size=200_000)
    y = 0.7 * x + np.sqrt(1 - 0.49) * chance.normal(size=len(x))
    top = x > np.quantile(x, 0.75)
    selected = float(np.corrcoef(x[top], y[top])[0, 1])
    assert selected < 0.5
    assert unselected(selected, float(x.std() / x[top].std())) == pytest.approx(0.7, abs=0.02)
