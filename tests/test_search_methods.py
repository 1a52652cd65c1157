"""Search methods in simulated time: what the clock counts, and that the figures of equal methods are equal."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulation.arms import ARMS
from benchmarks.simulation.clock import Leg, Run, simulate
from benchmarks.simulation.figures import ratio, regret, spent, to_target
from benchmarks.simulation.product import Product
from benchmarks.simulation.tables import (
    ALL_PRICE,
    EPOCHS,
    FEW_PRICE,
    Nearest,
    Surrogate,
    quality_of,
)


def table(rows: int = 64, seed: int = 0) -> Nearest:
    """Two settings; the better the nearer to the middle, from the first epoch on; one corner explodes."""
    points = np.random.default_rng(seed).random((rows, 2))
    quality = 1 - np.linalg.norm(points - 0.5, axis=1)
    every = quality[:, None] * np.linspace(0.5, 1, EPOCHS)
    explodes = np.where((points > 0.85).all(1), 0.5, np.inf)
    baselines = {"by hand": np.array([0.4, 0.6])}
    return Nearest("made up", points, every, every, quality, explodes, baselines)


class Script:
    """A method that trains given stretches and notes what it is told."""

    def __init__(self, *legs: Leg) -> None:
        self.legs = list(legs)
        self.told: list[tuple[int, int, float]] = []

    def next(self) -> Leg | None:
        return self.legs.pop(0) if self.legs else None

    def report(self, leg: Leg, epoch: int, value: float) -> bool:
        self.told.append((leg.trial, epoch, round(value, 3)))
        return True

    def explode(self, leg: Leg, epoch: int) -> None:
        self.told.append((leg.trial, epoch, -1.0))


def pair() -> Nearest:
    """Two rows: one learns, one explodes after half of its training."""
    every = np.stack([np.arange(1.0, EPOCHS + 1), np.zeros(EPOCHS)])
    points, quality = np.array([[0.0], [1.0]]), np.array([16.0, 0.0])
    return Nearest("pair", points, every, every / 2, quality, np.array([np.inf, 8.0]))


def test_compute_is_the_training_and_the_evaluations():
    script = Script(Leg(0, np.array([0.1]), 0, (4, 16), few=True))
    run = simulate(script, pair(), budget=10)
    assert script.told == [(0, 4, 2.0), (0, 16, 16.0)]
    assert run.total == pytest.approx(1 + FEW_PRICE + ALL_PRICE)
    assert run.time == [pytest.approx(1 + FEW_PRICE + ALL_PRICE)]
    assert (run.compute, run.quality) == ([pytest.approx(run.total / (1 + ALL_PRICE))], [16.0])


def test_paused_training_pays_for_the_rest_only():
    first, rest = Leg(0, np.array([0.0]), 0, (4,)), Leg(0, np.array([0.0]), 4, (16,))
    run = simulate(Script(first, rest), pair(), budget=10)
    assert run.total == pytest.approx(1 + 2 * ALL_PRICE)


def test_explosion_ends_a_trial_that_notices_it_and_no_other():
    noticed = Script(Leg(0, np.array([0.9]), 0, (4, 16), stops=True))
    run = simulate(noticed, pair(), budget=10)
    assert noticed.told == [(0, 4, 0.0), (0, 8, -1.0)]
    assert run.total == run.exploded == pytest.approx(0.5 + ALL_PRICE)
    whole = simulate(Script(Leg(0, np.array([0.9]), 0, (16,))), pair(), budget=10)
    assert whole.total == pytest.approx(1 + ALL_PRICE)


def test_workers_train_side_by_side():
    legs = [Leg(n, np.array([0.0]), 0, (16,)) for n in range(4)]
    run = simulate(Script(*legs), pair(), budget=10, workers=2)
    assert run.total == pytest.approx(4 * (1 + ALL_PRICE))
    assert run.time == [pytest.approx(1 + ALL_PRICE)]  # the others are no better


def test_nothing_begins_beyond_the_budget():
    legs = [Leg(n, np.array([0.0]), 0, (16,)) for n in range(9)]
    assert len(simulate(Script(*legs), pair(), budget=2.5).trials) == 3


@pytest.mark.parametrize(
    "arm", ["random", "reference", "stopping", "ours", "ours_tpe", "ours_prior"]
)
@pytest.mark.parametrize("workers", [1, 8])
def test_every_method_spends_its_budget_and_finds_something(arm, workers):
    problem = table()
    run = simulate(ARMS[arm](problem, 3, 12), problem, 12, workers)
    assert run.quality
    assert 8 < run.total <= (12 + workers) * (1 + ALL_PRICE)


def test_same_seed_gives_the_same_sweep():
    first, second = (simulate(ARMS["ours"](table(), 5, 6), table(), 6) for _ in range(2))
    assert first == second


def test_product_pauses_and_promotes():
    method = Product(table(), 1, 6)
    run = simulate(method, table(), 6)
    epochs = [max(t.intermediate_values, default=0) for t in method.study.trials]
    assert len(run.trials) > 20
    assert epochs.count(EPOCHS) < len(epochs) / 8


def runs(*found: tuple[float, float], total: float = 8 * (1 + ALL_PRICE)) -> list[Run]:
    """Sweeps with one completed training each: (compute, quality)."""
    return [Run([c], [c], [q], total=total) for c, q in found]


def test_a_sweep_that_misses_the_target_counts_with_all_it_spent():
    assert spent(runs((3.0, 0.9))[0], 0.5) == (3.0, True)
    assert spent(runs((3.0, 0.4))[0], 0.5) == (8.0, False)


def test_equal_methods_have_ratio_one_and_half_the_compute_half():
    chance = np.random.default_rng(0)
    compute = chance.uniform(2, 6, 200)
    all_reach = to_target(runs(*((c, 1.0) for c in compute)), 0.5)
    half = to_target(runs(*((c / 2, 1.0) for c in compute)), 0.5)
    assert ratio([all_reach], [all_reach]).value == pytest.approx(1)
    found = ratio([half], [all_reach])
    assert found.value == pytest.approx(0.5)
    assert 0.45 < found.low < 0.5 < found.high < 0.56


def test_regret_is_the_share_of_better_configurations():
    problem = table()
    best, middle = quality_of(problem, 1 / 64), quality_of(problem, 0.5)
    found = regret(runs((1.0, best), (1.0, middle), (5.0, best)), problem, at=2)
    assert found.tolist() == [0.0, pytest.approx(31 / 64), 1.0]


def test_surrogate_follows_its_table_between_the_rows():
    fitted, rows = Surrogate(table(200), draws=256), table(200, seed=9)
    healthy = ~np.isfinite(rows.explodes)
    expected = [fitted.curve(point).quality for point in rows.points[healthy]]
    assert np.abs(expected - rows.quality[healthy]).max() < 0.1
    assert np.isfinite(fitted.curve(np.array([0.95, 0.95])).explodes)
