"""Where configurations come from: even draws, draws around baselines, the sampler that learns."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from conftest import small_spec
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from session_parts import Driver

from sweeps.config import SweepSpec
from sweeps.search.mixture import (
    AROUND,
    EVEN,
    EVEN_SHARE,
    LEARNT,
    Mixture,
    count_successes,
    draw_around,
)
from sweeps.search.sampler import build_sampler
from sweeps.study.records import SOURCE
from sweeps.study.store import JournalStore

FILE = Path("study.journal")


def halving(**changes: Any) -> SweepSpec:
    values = {
        "trials": 30,
        "fixed": {"epochs": 9, "n_episodes": 3},
        "space": {"lr": {"low": 0.01, "high": 10, "log": True}},
        "scheduler": {"name": "asha", "grace": 1, "reduction": 3},
        "sampler": {"name": "tpe"},
    }
    return small_spec(**{**values, **changes})


def mixture(learns: bool = True, **baselines: float) -> Mixture:
    learnt = TPESampler(seed=0) if learns else None
    return Mixture(learnt, {name: {"lr": lr} for name, lr in baselines.items()}, 0.25, seed=0)


def test_shares_are_even_before_there_are_results():
    assert mixture(before=0.1).shares() == pytest.approx(
        {EVEN: 1 / 3, LEARNT: 1 / 3, f"{AROUND}before": 1 / 3}
    )
    assert mixture(learns=False).shares() == pytest.approx({EVEN: 1.0})


def test_misleading_baseline_loses_its_share_and_a_good_one_gains():
    found = mixture(good=0.1, bad=1.0)
    found.successes = {
        f"{AROUND}good": (4, 6),
        f"{AROUND}bad": (0, 6),
        LEARNT: (1, 6),
        EVEN: (1, 6),
    }
    shares = found.shares()
    assert shares[f"{AROUND}good"] > 0.4
    assert shares[f"{AROUND}bad"] < 0.05
    assert shares[EVEN] >= EVEN_SHARE


counts = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda c: (min(c), max(c)))


@given(even=counts, learnt=counts, around=counts)
def test_shares_are_a_distribution_whatever_happened(even, learnt, around):
    found = mixture(b=1.0)
    found.successes = {EVEN: even, LEARNT: learnt, f"{AROUND}b": around}
    shares = found.shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0
    assert shares[EVEN] >= EVEN_SHARE - 1e-9


def test_successes_are_the_best_quarter_and_no_explosion():
    values = {0: 0.9, 1: 0.1, 2: 0.8, 3: -math.inf, 4: 0.2, 5: 0.3, 6: 0.4, 7: 0.5}
    sources = {2: EVEN, 3: LEARNT, 4: LEARNT, 5: EVEN, 9: EVEN}
    assert count_successes(values, sources) == {EVEN: (1, 2), LEARNT: (0, 2)}
    assert count_successes({1: -math.inf}, {1: EVEN}) == {EVEN: (0, 1)}
    assert count_successes({}, {}) == {}


@pytest.mark.parametrize(
    ("value", "distribution"),
    [
        (0.1, FloatDistribution(0.01, 10, log=True)),
        (0.0, FloatDistribution(0, 1)),
        (0.15, FloatDistribution(0, 0.2, step=0.05)),
        (3, IntDistribution(1, 9)),
        (1, IntDistribution(1, 9, log=True)),
        (6, IntDistribution(2, 10, step=2)),
        ("b", CategoricalDistribution(["a", "b", "c"])),
    ],
)
def test_draws_around_a_value_lie_in_the_range_and_near_it(value, distribution):
    chance = np.random.default_rng(0)
    near, wide = (
        [draw_around(value, distribution, width, chance) for _ in range(300)]
        for width in (0.05, 1.0)
    )
    for drawn in (*near, *wide):
        assert distribution._contains(distribution.to_internal_repr(drawn))
        assert type(drawn) is type(value)
    assert distance(near, value, distribution) < distance(wide, value, distribution)


def distance(drawn: list[Any], value: Any, distribution: BaseDistribution) -> float:
    """Mean distance of draws from a value, on the scale of the range."""
    if isinstance(distribution, CategoricalDistribution):
        return sum(one != value for one in drawn) / len(drawn)
    scale = math.log if distribution.log else float
    return sum(abs(scale(one) - scale(value)) for one in drawn) / len(drawn)


def test_sources_do_not_draw_the_same():
    spec = halving(sampler={"name": "tpe", "seed": 3})
    study = optuna.create_study(sampler=build_sampler(spec))
    sampler, found = study.sampler, []
    assert isinstance(sampler, Mixture)
    for _ in range(12):
        trial = study.ask()
        found.append((sampler.source, trial.suggest_float("lr", 0.01, 10, log=True)))
    assert {source for source, _ in found} == {EVEN, LEARNT}
    assert len({lr for _, lr in found}) == 12


def test_study_knows_the_source_of_each_suggestion_and_later_sessions_too():
    spec = halving(baselines={"b": {"lr": 0.1}})
    session = Driver(spec, JournalStore(FILE))
    for number in range(30):
        request = session.start()
        while request.number != number:
            session.pause(request.number, request.until or 9, 0.9)
            request = session.start()
        session.pause(number, 1, 0.1 if number % 2 else 0.9)
        if number == 15:
            session = Driver(spec, JournalStore(FILE))
    sources = [t.user_attrs.get(SOURCE) for t in session.study.trials]
    assert sources[0] is None  # the baseline itself
    assert Counter(sources[1:]).keys() == {EVEN, LEARNT, f"{AROUND}b"}
    sampler = session.study.sampler
    assert isinstance(sampler, Mixture)
    assert sum(trials for _, trials in sampler.successes.values()) == 28  # before the last one


@pytest.mark.parametrize(
    ("name", "sources"),
    [("tpe", 3), ("gp", 3), ("random", 2), ("qmc", 0), ("grid", 0)],
)
def test_samplers_with_a_plan_of_their_own_are_not_mixed(name, sources):
    space = {"lr": {"choices": [0.1, 1.0]}} if name == "grid" else {"lr": {"low": 0.01, "high": 10}}
    spec = halving(sampler={"name": name}, space=space, baselines={"b": {"lr": 0.1}})
    sampler = build_sampler(spec)
    assert len(sampler.shares() if isinstance(sampler, Mixture) else {}) == sources
    without = build_sampler(
        halving(sampler={"name": name}, space=space, scheduler={"name": "none"})
    )
    assert not isinstance(without, Mixture)


def test_prior_can_be_switched_off():
    spec = halving(baselines={"b": {"lr": 0.1}}, prior="off")
    sampler = build_sampler(spec)
    assert isinstance(sampler, Mixture)
    assert sampler.shares().keys() == {EVEN, LEARNT}
