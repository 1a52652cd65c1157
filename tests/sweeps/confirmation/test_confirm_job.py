"""Search, confirmation and ablation through the command line, with the real trainer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_main_job import SWEEP
from waiting import PATIENCE

from sweeps.confirmation.results import Confirmation, load_confirmation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

MORE = """
confirm: {top_k: 1, seeds: 3}
ablate: true
"""


def command(*words: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder: Path = tmp_path_factory.mktemp("confirm_job")
    text = SWEEP.replace(
        "good: {fusion_lr_mult: 2.0}", "slow: {fusion_lr_mult: 0.1, dfl_weight: 3.0}"
    )
    text = text.replace('"n_episodes": 20', '"n_episodes": 6')  # of many trainings
    text = text.replace("trials: 2", "trials: 3").replace(
        "high: 200, log: true}", "high: 4, log: true}\n  dfl_weight: {low: 0.1, high: 3}"
    )
    (folder / "tiny.yaml").write_text(
        text.replace("  far_corner: {fusion_lr_mult: 200.0}\n", "") + MORE
    )
    return folder, command("sweeps.run", "tiny.yaml", folder=folder)


def confirmed(folder: Path) -> Confirmation:
    found = load_confirmation(folder / "mlruns" / "sweeps" / "tiny" / "confirm.json")
    assert found is not None
    return found


def test_all_are_measured_on_test_over_all_seeds(swept):
    found = confirmed(swept[0])
    assert found.metric == "test/nAP50"
    assert [m.candidate.baseline for m in found.configurations][-1] == "slow"
    for measured in found.configurations:
        assert list(measured.results) == [1000, 1001, 1002]
        values = measured.values("test/nAP50")
        assert values[1000] != values[1001]
        metrics = measured.results[1000].metrics
        assert {"test/swap_gap", "test/nAP50_se"} <= set(metrics)
        assert not [name for name in metrics if name.startswith("val/")]


def test_best_shows_the_confirmation_again_and_writes_its_winner(swept):
    folder, printed = swept
    winner = confirmed(folder).winner
    assert winner is not None
    said = command("sweeps.best", "tiny", folder=folder)
    begin, end = "confirmed on the test split", "writing the report"
    result = printed[printed.index(begin) : printed.index(end)].strip()
    assert said[said.index(begin) :].startswith(result)
    best = yaml.safe_load((folder / "mlruns" / "sweeps" / "tiny" / "best.yaml").read_text())
    assert best["fusion_lr_mult"] == winner.candidate.parameters["fusion_lr_mult"]


def test_resumed_it_runs_nothing_again(swept):
    folder, printed = swept
    again = command("sweeps.run", "tiny.yaml", "--resume", folder=folder)
    assert "] trial " not in again
    assert again.rstrip().endswith(printed.rstrip().splitlines()[-1])
