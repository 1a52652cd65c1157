"""The page of claims, on made-up runs whose differences are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from origin_claims import CLAIMS, Experiment, Run, band_rows, claim_rows, configuration_rows, judged

from sweeps.confirmation.statistics import Difference, Estimate
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.study.records import TrialRecord

SEEDS = range(1000, 1008)


def made_up(tmp_path: Path, gains: dict[str, float], exploding: str = "") -> Experiment:
    """Every configuration of the claims at 0.3 plus its gain; one explodes at every second seed."""
    chance, runs = np.random.default_rng(0), {}
    for name in {name for claim in CLAIMS for name in (claim.first, claim.second)}:
        runs[name] = {}
        for seed in SEEDS:
            folder = tmp_path / name / str(seed)
            folder.mkdir(parents=True)
            value = 0.3 + gains.get(name, 0.0) + float(chance.normal(0, 0.005))
            rows = [
                {"step": s, "grad/norm": 8.0, "train/loss/dfl": 3.1 - 5 * value} for s in (1, 2)
            ]
            (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            bad = name == exploding and seed % 2 == 0
            state = State.INFEASIBLE if bad else State.COMPLETED
            record = TrialRecord(0, state, {}, metrics={"test/nAP50": value})
            runs[name][seed] = Run(record, folder)
    return Experiment(SweepFolder(tmp_path), runs)


def cells(rows: list[str], first: str) -> list[str]:
    """The cells of the row that begins with `first`."""
    return next(row for row in rows if row.startswith(f"| {first}")).strip("| ").split(" | ")


def test_a_gain_is_supported_a_loss_and_nothing_are_refuted(tmp_path):
    experiment = made_up(tmp_path, {"dfl_1.5": -0.05, "agc": -0.05})
    rows = list(claim_rows(experiment))
    assert cells(rows, "weigh DFL")[1] == "**supported**"
    assert cells(rows, "adaptive clipping")[1] == "**refuted**"
    assert cells(rows, "clip the gradient norm")[1] == "**refuted**"
    assert cells(rows, "weigh DFL")[4] == "8"


def test_too_wide_an_interval_is_undecided():
    difference = Difference(Estimate(0.01, 0.03, 8), 0.4)
    assert judged(difference, 0.8) == "undecided"
    assert judged(Difference(Estimate(0.01, 0.005, 8), 0.001), 0.2) == "refuted"
    assert judged(Difference(Estimate(0.03, 0.005, 8), 0.001), 0.01) == "supported"


def test_runs_that_exploded_are_counted_and_left_out(tmp_path):
    experiment = made_up(tmp_path, {}, exploding="no_clip")
    assert cells(list(configuration_rows(experiment)), "`no_clip`")[2] == "4 of 8"
    assert cells(list(claim_rows(experiment)), "clip at all")[4] == "4"


def test_a_band_that_follows_the_value_predicts_it(tmp_path):
    experiment = made_up(tmp_path, {"dfl_1.5": 0.05, "agc": 0.05, "update": 0.05})
    found = cells(list(band_rows(experiment)), "DFL 1.0 to 1.5 nats")
    assert found[1] == "24 of 128"
    assert float(found[3]) == pytest.approx(-1)
    assert "[+0.0" in found[2]
