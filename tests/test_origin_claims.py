"""The page of claims, on made-up runs whose differences are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from origin_bands import band_cells, difference, ends_of, rank_correlation
from origin_claims import (
    claim_rows,
    configuration_rows,
    findings,
    overview,
    reasons,
    scales_text,
    section,
)
from origin_runs import Experiment, Figures, Run, measured
from origin_text import BANDS, MODES, POINTS, TEAM
from scipy.stats import ttest_rel

from sweeps.confirmation.statistics import holm
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.study.records import TrialRecord

SEEDS = range(1000, 1008)
NAMES = {name for claim in (*TEAM, *MODES) for name in (claim.first, claim.second)}
DFL = next(band for band in BANDS if band.key == "train/loss/dfl")


def made_up(
    tmp_path: Path,
    gains: dict[str, float],
    exploding: str = "",
    spread: float = 0.005,
    draw: int = 0,
) -> Experiment:
    """Every configuration of the claims at 0.3 plus its gain; one explodes at every second seed."""
    chance, runs = np.random.default_rng(draw), {}
    for name in sorted(NAMES):
        runs[name] = {}
        for seed in SEEDS:
            folder = tmp_path / name / str(seed)
            folder.mkdir(parents=True)
            value = 0.3 + gains.get(name, 0.0) + float(chance.normal(0, spread))
            rows = [
                {
                    "step": s,
                    "grad/norm": 8.0,
                    "grad/clipped": 0.25 * (s == 1),
                    "grad/accumulation": 2.5,
                    "train/loss/dfl": 3.1 - 5 * value,
                }
                for s in (1, 2)
            ]
            (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            bad = name == exploding and seed % 2 == 0
            state = State.INFEASIBLE if bad else State.COMPLETED
            record = TrialRecord(0, state, {}, metrics={} if bad else {"test/nAP50": value})
            runs[name][seed] = Run(record, folder)
    return Experiment(SweepFolder(tmp_path), runs)


def cells(rows: list[str], first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    return next(row for row in rows if row.startswith(f"| {first}")).strip("| ").split(" | ")


def test_verdicts_are_those_of_the_differences(tmp_path):
    experiment = made_up(tmp_path, {"dfl_1.5": -0.05, "agc": -0.05})
    rows = list(claim_rows(TEAM, experiment))
    assert cells(rows, "weigh DFL")[1] == "**supported**"
    assert cells(rows, "adaptive clipping")[1] == "**refuted (worse)**"
    assert cells(rows, "clip the gradient norm")[1] == "**refuted (gain < 0.02)**"


def test_eight_seeds_that_vary_more_are_undecided(tmp_path):
    found = findings(TEAM, made_up(tmp_path, {}, spread=0.05, draw=1))
    assert {one.verdict for one in found} == {"undecided"}


def test_both_tests_are_corrected_over_the_table(tmp_path):
    """Against SciPy's paired t-test."""
    experiment = made_up(tmp_path, {"dfl_1.5": -0.01})
    pairs = [[list(experiment.values(n).values()) for n in (c.first, c.second)] for c in TEAM]
    different = [ttest_rel(a, b).pvalue for a, b in pairs]
    small = [ttest_rel(np.array(a) - 0.02, b, alternative="less").pvalue for a, b in pairs]
    found = findings(TEAM, experiment)
    assert [one.p for one in found] == pytest.approx(holm(different))
    assert [one.p_gain for one in found] == pytest.approx(holm(small))


def test_a_run_that_exploded_counts_as_zero(tmp_path):
    experiment = made_up(tmp_path, {}, exploding="no_clip")
    row = cells(list(configuration_rows(experiment)), "`no_clip`")
    assert row[2] == "4 of 8"
    assert float(row[1].split()[0]) == pytest.approx(0.15, abs=0.01)
    found = next(one for one in findings(TEAM, experiment) if one.claim.second == "no_clip")
    assert (found.gain.count, found.gain.mean) == (8, pytest.approx(0.15, abs=0.01))


def test_shares_are_means_over_steps(tmp_path):
    found = measured(made_up(tmp_path, {}), "update")
    assert (found["clipped"], found["touched"]) == (0.125, 0.5)


def test_a_sentence_may_name_figures_and_differences(tmp_path):
    experiment = made_up(tmp_path, {"dfl_1.5": -0.05})
    text = "{by_hand[norm]:.1f} {by_hand-dfl_1_5} {dfl_1_5[value]:.1f}".format_map(
        Figures(experiment)
    )
    assert text.startswith("8.0 +0.05")
    assert text.endswith((" 0.2", " 0.3"))


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_all_figures_that_the_reasons_name_are_there(tmp_path, point):
    experiment = made_up(tmp_path, {})
    lines = [line for claims in (TEAM, MODES) for line in reasons(claims, point, experiment)]
    assert "{" not in "".join(lines)
    assert "\n".join(section(experiment, point)).count("| `by_hand` |") == 1
    assert "2.50 times" in scales_text([experiment])


def test_the_overview_has_a_verdict_of_each_point(tmp_path):
    first = made_up(tmp_path / "a", {"dfl_1.5": -0.05})
    second = made_up(tmp_path / "b", {"dfl_1.5": 0.05})
    lines = overview(list(zip(POINTS, (first, second), strict=True)))
    assert len([line for line in lines if line.startswith("| ")]) == 2 + len(TEAM)
    verdicts = cells(lines, "weigh DFL")[1:]
    assert [said.partition(",")[0] for said in verdicts] == ["supported", "refuted (worse)"]


def test_a_band_that_follows_the_value_predicts_it(tmp_path):
    experiment = made_up(tmp_path, {"dfl_1.5": 0.05, "agc": 0.05, "update": 0.05})
    _, verdict, inside, gain, correlation, p = next(
        row for row in band_cells([experiment]) if row[0] == DFL.name
    )
    assert (verdict, inside) == ("**supported**", f"24 of {len(NAMES) * len(SEEDS)}")
    assert "[+0.0" in gain
    assert float(correlation) == pytest.approx(-1, abs=0.02)
    assert float(p) < 0.001


def test_a_band_that_nearly_all_runs_are_in_cannot_be_judged(tmp_path):
    experiment = made_up(tmp_path, {"dfl_1.5": 0.05})
    assert difference(DFL, ends_of([experiment], DFL.key)) is None


def test_seeds_of_one_configuration_are_no_evidence_of_their_own(tmp_path):
    """Configurations differ, and within each of them nothing follows the band."""
    experiment = made_up(
        tmp_path, {name: 0.02 * i for i, name in enumerate(sorted(NAMES))}, spread=0
    )
    chance = np.random.default_rng(1)
    for _, run in experiment.all_runs():
        run.record.metrics["test/nAP50"] += float(chance.normal(0, 0.005))
    correlation, p = rank_correlation(ends_of([experiment], DFL.key))
    assert abs(correlation) < 0.3
    assert p > 0.01
