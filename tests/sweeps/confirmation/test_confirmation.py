"""What follows from what was measured. No Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sweeps.confirmation.candidates import Candidate
from sweeps.confirmation.measured import (
    Confirmation,
    Measured,
    SeedResult,
    load_confirmation,
    save_confirmation,
)
from sweeps.confirmation.words import ablation_words, conclusions
from sweeps.states import State

METRIC = "test/nAP50"
NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)
EXPLODED = SeedResult(State.INFEASIBLE, "step 9, norm_ceiling")


def measured(
    label: str, values: list[float], baseline: bool = False, factor: str | None = None
) -> Measured:
    candidate = Candidate(
        label, label, {"lr": 1.0}, baseline=label if baseline else None, factor=factor
    )
    results = {1000 + i: SeedResult(State.COMPLETED, "", {METRIC: v}) for i, v in enumerate(values)}
    return Measured(candidate, results)


def around(mean: float, scale: float = 1.0, shift: int = 0) -> list[float]:
    """Five values; equal shifts have the noise in common."""
    return [mean + scale * NOISE[(i + shift) % 5] for i in range(5)]


def ended(one: Measured, seed: int, result: SeedResult) -> Measured:
    return replace(one, results={**one.results, seed: result})


def confirmed(*configurations: Measured) -> Confirmation:
    return Confirmation(METRIC, "max", tuple(range(1000, 1005)), configurations)


BASE = measured("before", around(0.40), baseline=True)


def winner_of(found: Confirmation) -> str | None:
    return None if found.winner is None else found.winner.candidate.label


def test_highest_mean_wins_where_it_is_better_beyond_noise() -> None:
    found = confirmed(
        measured("a", around(0.50, shift=1)), measured("b", around(0.52, shift=2)), BASE
    )
    assert winner_of(found) == "b"
    said = conclusions(found)
    assert said[0].startswith("winner: b, 0.5200 [")
    assert "better than the best baseline, before, by +0.1200 [" in said[0]
    assert "Holm's correction for 2 candidates" in said[1]
    assert "slightly optimistic" in said[2]


def test_within_noise_the_baseline_is_recommended() -> None:
    found = confirmed(measured("a", around(0.41, scale=6, shift=1)), BASE)
    assert found.feasible[0].candidate.label == "a"
    assert winner_of(found) == "before"
    assert conclusions(found)[0].startswith(
        "no configuration is better than baseline before (0.4000 ["
    )
    assert [c.verdict for c in found.comparisons] == ["within noise"]


def test_small_difference_is_seen_where_seeds_move_both_alike() -> None:
    loud = measured("before", around(0.40, scale=20), baseline=True)
    quiet = measured("a", [v + 0.01 + 0.0005 * i for i, v in enumerate(around(0.40, scale=20))])
    found = confirmed(quiet, loud)
    assert winner_of(found) == "a"
    first, second = (m.estimate(METRIC) for m in (quiet, loud))
    assert first is not None
    assert second is not None
    assert first.low < second.high


def test_one_exploded_seed_makes_a_configuration_infeasible() -> None:
    exploding = ended(measured("a", around(0.9)), 1003, EXPLODED)
    found = confirmed(exploding, measured("b", around(0.5, shift=1)), BASE)
    assert winner_of(found) == "b"
    assert "a exploded at seed 1003: step 9, norm_ceiling" in conclusions(found)
    assert {c.first.label for c in found.comparisons} == {"b"}


def test_failed_seed_is_a_gap_that_is_told() -> None:
    gap = ended(measured("a", around(0.6)), 1001, SeedResult(State.FAILED, "RuntimeError: x"))
    found = confirmed(gap, BASE)
    assert winner_of(found) == "a"
    assert found.comparisons[0].difference.estimate.count == 4
    assert "a failed at seed 1001: RuntimeError: x" in conclusions(found)


def test_nothing_feasible_has_no_winner() -> None:
    found = confirmed(ended(BASE, 1000, EXPLODED))
    assert winner_of(found) is None
    assert "no configuration is feasible" in conclusions(found)[0]


def test_without_a_feasible_baseline_the_best_wins_and_it_is_said() -> None:
    found = confirmed(measured("a", around(0.5)), ended(BASE, 1000, EXPLODED))
    assert winner_of(found) == "a"
    assert "no baseline is feasible to compare it with" in conclusions(found)[0]


def test_ablation_says_what_did_the_work() -> None:
    parts = (
        measured("w/o clip", around(0.5, shift=3), factor="clip"),
        measured("w/o mult", around(0.41, shift=2), factor="mult"),
        measured("w/o dfl", around(0.56, shift=2), factor="dfl"),
        ended(measured("w/o lr", around(0.5), factor="lr"), 1002, EXPLODED),
    )
    found = replace(confirmed(measured("a", around(0.5, shift=1)), BASE), ablation=parts)
    assert ablation_words(found)[:4] == [
        "did the work: mult",
        "within noise: clip",
        "did harm: dfl",
        "w/o lr exploded at seed 1002: step 9, norm_ceiling",
    ]


results = st.builds(
    lambda value, state: SeedResult(
        state, "why", {METRIC: value} if state is State.COMPLETED else {}
    ),
    st.floats(0, 1).map(lambda x: round(x, 3)),
    st.sampled_from([State.COMPLETED] * 8 + [State.INFEASIBLE, State.FAILED]),
)
rows = st.lists(st.lists(results, min_size=3, max_size=3), min_size=1, max_size=5)


@given(rows, rows)
def test_rules_hold_whatever_was_measured(
    first: list[list[SeedResult]], second: list[list[SeedResult]]
) -> None:
    groups = [(f"t{i}", None, r) for i, r in enumerate(first)]
    groups += [(f"b{i}", f"b{i}", r) for i, r in enumerate(second)]
    found = confirmed(
        *(
            Measured(Candidate(label, label, {}, baseline=base), dict(enumerate(r, 1000)))
            for label, base, r in groups
        )
    )
    winner, base = found.winner, found.best_baseline
    assert (winner is None) == (not found.feasible)
    if winner is not None:
        assert not winner.infeasible
    if winner is not None and base is not None and winner is not base:
        (beats,) = [
            c
            for c in found.comparisons
            if (c.first, c.second) == (winner.candidate, base.candidate)
        ]
        assert beats.verdict == "better"
        assert beats.difference.estimate.mean > 0
    assert conclusions(found)[0]


def test_file_holds_all_that_was_measured(tmp_path: Path) -> None:
    exploding = ended(measured("a", around(0.9)), 1003, EXPLODED)
    part = measured("w/o clip", around(0.45), factor="clip")
    found = replace(confirmed(exploding, measured("b", around(0.5)), BASE), ablation=(part,))
    path = tmp_path / "confirm.json"
    assert load_confirmation(path) is None
    save_confirmation(path, found, ["words"])
    assert load_confirmation(path) == found
    assert "NaN" not in path.read_text(encoding="utf-8")


def test_picking_the_best_of_many_does_not_make_it_look_better_than_it_is() -> None:
    """Without any true difference, a winner in 5 % of sweeps at most: here 3 standard errors above."""
    rng = np.random.default_rng(0)
    declared, sweeps = 0, 2000
    for _ in range(sweeps):
        values = 0.4 + rng.normal(0, 0.01, (7, 5)) + rng.normal(0, 0.02, 5)
        rows = [measured(f"t{i}", list(v), baseline=i == 0) for i, v in enumerate(values)]
        winner = confirmed(*rows).winner
        declared += winner is not None and not winner.candidate.baseline
    assert 0.02 < declared / sweeps < 0.05 + 3 * (0.05 * 0.95 / sweeps) ** 0.5
