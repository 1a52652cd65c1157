"""What follows from what was measured. No Ray."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from confirmation import Design, rates
from conftest import small_spec
from hypothesis import given
from hypothesis import strategies as st

from sweeps.confirmation.candidates import Candidate
from sweeps.confirmation.report import (
    ablation_lines,
    conclusions,
    format_comparison,
    format_result,
    plan_of_confirmation,
)
from sweeps.confirmation.results import (
    CandidateResult,
    Confirmation,
    load_confirmation,
    save_confirmation,
)
from sweeps.confirmation.statistics import LEAST_SEEDS, power
from sweeps.states import State
from sweeps.study.records import TrialRecord

METRIC = "test/nAP50"
NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)


def record(state: State, reason: str = "", value: float | None = None) -> TrialRecord:
    """A run of the confirmation."""
    metrics = {} if value is None else {METRIC: value}
    return TrialRecord(0, state, {}, reason=reason, metrics=metrics)


EXPLODED = record(State.INFEASIBLE, "step 9, norm_ceiling")
CRASHED = record(State.FAILED, "RuntimeError: x")


def measured(
    label: str, values: list[float], baseline: bool = False, factor: str | None = None
) -> CandidateResult:
    candidate = Candidate(
        label, label, {"lr": 1.0}, baseline=label if baseline else None, factor=factor
    )
    results = {1000 + i: record(State.COMPLETED, value=v) for i, v in enumerate(values)}
    return CandidateResult(candidate, results)


def around(mean: float, scale: float = 1.0, shift: int = 0) -> list[float]:
    """Five values; equal shifts have the noise in common."""
    return [mean + scale * NOISE[(i + shift) % 5] for i in range(5)]


def ended(one: CandidateResult, seed: int, result: TrialRecord) -> CandidateResult:
    return replace(one, results={**one.results, seed: result})


def confirmed(*configurations: CandidateResult) -> Confirmation:
    return Confirmation(METRIC, "max", tuple(range(1000, 1005)), configurations)


BASE = measured("before", around(0.40), baseline=True)


def winner_of(found: Confirmation) -> str | None:
    return None if found.winner is None else found.winner.candidate.label


def test_highest_mean_wins_where_it_is_better_beyond_noise():
    found = confirmed(
        measured("a", around(0.50, shift=1)), measured("b", around(0.52, shift=2)), BASE
    )
    assert winner_of(found) == "b"
    said = conclusions(found)
    assert said[0].startswith("winner: b, 0.5200 [")
    assert "better than the best baseline, before, by +0.1200 [" in said[0]
    assert said[1] == "b is better than baseline before with a chance of over 99 %"
    assert "Holm's correction for 2 comparisons" in said[2]
    assert "power: 5 seeds find a gain of 2" in said[3]
    assert "slightly optimistic" in said[4]


def test_within_noise_the_baseline_is_recommended():
    found = confirmed(measured("a", around(0.41, scale=6, shift=1)), BASE)
    assert found.feasible[0].candidate.label == "a"
    assert winner_of(found) == "before"
    assert conclusions(found)[0].startswith(
        "no configuration is better than baseline before (0.4000 ["
    )
    assert [c.verdict for c in found.comparisons] == ["within noise"]


def test_small_difference_is_seen_where_seeds_move_both_alike():
    loud = measured("before", around(0.40, scale=20), baseline=True)
    quiet = measured("a", [v + 0.01 + 0.0005 * i for i, v in enumerate(around(0.40, scale=20))])
    found = confirmed(quiet, loud)
    assert winner_of(found) == "a"
    first, second = (found.estimate(m) for m in (quiet, loud))
    assert first is not None
    assert second is not None
    assert first.low < second.high


def test_one_exploded_seed_makes_a_configuration_infeasible():
    exploding = ended(measured("a", around(0.9)), 1003, EXPLODED)
    found = confirmed(exploding, measured("b", around(0.5, shift=1)), BASE)
    assert winner_of(found) == "b"
    assert "a exploded at seed 1003: step 9, norm_ceiling" in conclusions(found)
    assert {c.first.label for c in found.comparisons} == {"b"}
    assert found.common_seeds == found.seeds


def test_a_run_that_failed_at_a_hard_seed_is_no_advantage():
    """`b` lacks both hard seeds: its own mean is the highest, but `a` is better wherever both ran."""
    hard = [0.30, 0.31, 0.60, 0.59, 0.61]
    b = measured("b", [x - 0.02 + 0.001 * i for i, x in enumerate(hard)])
    for seed in (1000, 1001):
        b = ended(b, seed, CRASHED)
    lowest = measured("before", [x - 0.1 - 0.001 * i for i, x in enumerate(hard)], baseline=True)
    found = confirmed(b, measured("a", hard), lowest)
    assert [m.candidate.label for m in found.feasible] == ["a", "b", "before"]
    assert [c.verdict for c in found.comparisons] == ["better", "better"]
    assert winner_of(found) == "a"
    assert found.estimate(found.feasible[0]).mean == pytest.approx(0.60)
    assert [c.difference.estimate.count for c in found.comparisons] == [5, 3]
    said = " ".join(conclusions(found))
    assert "were measured: 1002, 1003, 1004; differences are over all seeds" in said
    assert "power: 3 seeds find" in said


def test_a_baseline_that_failed_at_an_easy_seed_is_no_lower_bar():
    easy = [0.40, 0.41, 0.42, 0.41, 0.90]
    strong = measured("strong", [x + 0.05 for x in easy], baseline=True)
    strong = ended(strong, 1004, CRASHED)
    found = confirmed(measured("weak", easy, baseline=True), strong)
    assert found.best_baseline is not None
    assert found.best_baseline.candidate.label == "strong"


def with_seeds(one: CandidateResult, *seeds: int) -> CandidateResult:
    return replace(one, results={s: r for s, r in one.results.items() if s - 1000 in seeds})


def test_where_too_few_seeds_are_common_the_fewest_values_are_left_out():
    fewest = with_seeds(measured("fewest", around(0.9)), 0, 1, 2)
    four = with_seeds(measured("four", around(0.5)), 1, 2, 3, 4)
    found = confirmed(fewest, four, BASE)
    assert [m.candidate.label for m in found.feasible] == ["four", "before"]
    assert found.common_seeds == (1001, 1002, 1003, 1004)
    assert format_result(found, fewest) == "not ranked: measured at 3 of 5 seeds"
    first = with_seeds(measured("first", around(0.6)), 0, 1, 2)
    rival = with_seeds(measured("rival", around(0.9)), 2, 3, 4)
    base = with_seeds(BASE, 0, 1, 2)
    assert [m.candidate.label for m in confirmed(first, rival, base).feasible] == [
        "first",
        "before",
    ]
    assert [m.candidate.label for m in confirmed(rival, base).feasible] == ["before"]


def test_two_values_are_too_few_to_be_recommended():
    found = confirmed(with_seeds(measured("a", around(0.9)), 0, 1))
    assert winner_of(found) is None
    assert conclusions(found)[0].endswith("or was measured at fewer than 3")


def test_equal_differences_at_five_seeds_are_within_noise():
    base = measured("before", [0.5, 0.6, 0.7, 0.6, 0.5], baseline=True)
    found = confirmed(measured("a", [0.6, 0.7, 0.8, 0.7, 0.6]), base)
    (comparison,) = found.comparisons
    assert comparison.difference.p == 0.0625
    assert winner_of(found) == "before"
    assert format_comparison(comparison) == "+0.1000 within noise"
    assert "its p is that of the sign test" in conclusions(found)[2]


def test_failed_seed_is_a_gap_that_is_told():
    gap = ended(measured("a", around(0.6, shift=1)), 1001, CRASHED)
    found = confirmed(gap, BASE)
    assert winner_of(found) == "a"
    assert found.comparisons[0].difference.estimate.count == 4
    assert "a failed at seed 1001: RuntimeError: x" in conclusions(found)


def test_nothing_feasible_has_no_winner():
    found = confirmed(ended(BASE, 1000, EXPLODED))
    assert winner_of(found) is None
    assert "no configuration is feasible" in conclusions(found)[0]


def test_without_a_feasible_baseline_the_best_wins_and_it_is_said():
    found = confirmed(measured("a", around(0.5)), ended(BASE, 1000, EXPLODED))
    assert winner_of(found) == "a"
    assert "no baseline is feasible to compare it with" in conclusions(found)[0]


def test_ablation_says_what_did_the_work():
    parts = (
        measured("w/o clip", around(0.5, shift=3), factor="clip"),
        measured("w/o mult", around(0.41, shift=2), factor="mult"),
        measured("w/o dfl", around(0.56, shift=2), factor="dfl"),
        ended(measured("w/o lr", around(0.5), factor="lr"), 1002, EXPLODED),
    )
    found = replace(confirmed(measured("a", around(0.5, shift=1)), BASE), ablation=parts)
    assert ablation_lines(found)[:4] == [
        "made the difference: mult",
        "within noise: clip",
        "did harm: dfl",
        "w/o lr exploded at seed 1002: step 9, norm_ceiling",
    ]


results = st.builds(
    lambda value, state: record(state, "why", value if state is State.COMPLETED else None),
    st.floats(0, 1).map(lambda x: round(x, 3)),
    st.sampled_from([State.COMPLETED] * 8 + [State.INFEASIBLE, State.FAILED]),
)
rows = st.lists(st.lists(results, min_size=5, max_size=5), min_size=1, max_size=5)


@given(rows, rows)
def test_rules_hold_whatever_was_measured(first, second):
    groups = [(f"t{i}", None, r) for i, r in enumerate(first)]
    groups += [(f"b{i}", f"b{i}", r) for i, r in enumerate(second)]
    found = confirmed(
        *(
            CandidateResult(Candidate(label, label, {}, baseline=base), dict(enumerate(r, 1000)))
            for label, base, r in groups
        )
    )
    winner, base = found.winner, found.best_baseline
    assert (winner is None) == (not found.feasible)
    if winner is not None:
        assert not winner.infeasible
        assert len(found.common_seeds) >= LEAST_SEEDS
    for better, worse in itertools.pairwise(found.feasible):
        a, b = better.values(METRIC), worse.values(METRIC)
        assert sum(a[s] - b[s] for s in found.common_seeds) >= -1e-9
    if winner is not None and base is not None and winner is not base:
        (beats,) = [
            c
            for c in found.comparisons
            if (c.first, c.second) == (winner.candidate, base.candidate)
        ]
        assert beats.verdict == "better"
        assert beats.difference.estimate.mean > 0
    assert conclusions(found)[0]


def test_file_holds_all_that_was_measured(tmp_path):
    exploding = ended(measured("a", around(0.9)), 1003, EXPLODED)
    part = measured("w/o clip", around(0.45), factor="clip")
    found = replace(confirmed(exploding, measured("b", around(0.5)), BASE), ablation=(part,))
    path = tmp_path / "confirm.json"
    assert load_confirmation(path) is None
    save_confirmation(path, found, ["words"])
    assert load_confirmation(path) == found
    assert "NaN" not in path.read_text(encoding="utf-8")


def test_picking_the_best_of_many_does_not_make_it_look_better_than_it_is():
    """Without any true difference, a winner in 5 % of sweeps at most: here 3 standard errors above."""
    rng = np.random.default_rng(0)
    declared, sweeps = 0, 2000
    for _ in range(sweeps):
        values = 0.4 + rng.normal(0, 0.01, (7, 5)) + rng.normal(0, 0.02, 5)
        rows = [measured(f"t{i}", list(v), baseline=i == 0) for i, v in enumerate(values)]
        winner = confirmed(*rows).winner
        declared += winner is not None and not winner.candidate.baseline
    assert 0.02 < declared / sweeps < 0.05 + 3 * (0.05 * 0.95 / sweeps) ** 0.5


def test_a_second_baseline_does_not_make_it_easier_to_be_better_than_one():
    """Uncorrected over baselines, some candidate was better than some baseline in 8 % of sweeps."""
    found = rates(Design(seeds=5, candidates=3, baselines=2), sweeps=2000)
    assert 0.02 < found.any_better <= 0.05


def test_a_gain_is_found_as_often_as_is_said():
    found = rates(Design(seeds=5, candidates=3, baselines=2, shared=0.5, gain=2), sweeps=1000)
    assert found.found == pytest.approx(power(2, 5, comparisons=6, shared=0.5), abs=0.05)


def test_power_is_told_before_a_confirmation_that_compares():
    baselines = {"a": {"lr": 1.0}, "b": {"lr": 2.0}}
    spec = small_spec(baselines=baselines, confirm={"top_k": 3, "seeds": 5})
    assert plan_of_confirmation(spec).splitlines()[1] == (
        "  power: 5 seeds find a gain of 2 standard deviations over seeds in 38 to 68 % of cases, of 1 in "
        "10 to 19 % (6 comparisons; where runs at a seed share none to half of their variance)"
    )
    assert "power" not in plan_of_confirmation(small_spec(confirm={"seeds": 5}))
