"""A sweep as plain values."""

from __future__ import annotations

import csv

from conftest import small_spec

from fsdet.json_output import to_plain
from sweeps.session.plain_data import sweep_data, write_trials
from sweeps.states import State
from sweeps.storage.lookup import new_folder
from sweeps.study.records import TrialRecord

SPACE = {"lr": {"low": 0.01, "high": 10}, "head_lr_mult": {"tie": "lr"}}
TRIALS = [
    TrialRecord(0, State.PRUNED, {"lr": 1.0}, 0.1, metrics={"val/nAP50": 0.1}),
    TrialRecord(1, State.COMPLETED, {"lr": 2.0}, 0.2, metrics={"val/swap_gap": float("nan")}),
]


def test_tied_settings_are_there_and_what_is_not_finite_is_null(in_own_folder):
    data = to_plain(sweep_data(small_spec(space=SPACE), new_folder("small"), TRIALS))
    assert data["best"] == 1
    assert data["trials"][1]["settings"] == {"lr": 2.0, "head_lr_mult": 2.0}
    assert data["trials"][1]["metrics"] == {"val/swap_gap": None}
    assert data["folder"].endswith("mlruns/sweeps/small")


def test_every_trial_has_every_column(in_own_folder):
    folder = new_folder("small")
    path = write_trials(small_spec(space=SPACE), folder, TRIALS)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert rows[0][-4:] == ["lr", "head_lr_mult", "val/nAP50", "val/swap_gap"]
    assert rows[1][-4:] == ["1.0", "1.0", "0.1", ""]
