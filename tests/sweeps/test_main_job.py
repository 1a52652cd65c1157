"""The street from a YAML file to a re-run winner: real trainer, shipped checkpoint, through the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from trainings import MAIN_JOB
from waiting import PATIENCE

from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import find_folder
from sweeps.study.study import read_trials

pytestmark = pytest.mark.slow

SWEEP = f"""
name: tiny
space:
  fusion_lr_mult: {{low: 0.1, high: 200, log: true}}
baselines:
  good: {{fusion_lr_mult: 2.0}}
  far_corner: {{fusion_lr_mult: 200.0}}
fixed: {json.dumps(MAIN_JOB)}
trials: 2
scheduler: {{name: none}}
"""


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("main_job")
    (path / "tiny.yaml").write_text(SWEEP)
    return path


@pytest.fixture(scope="module")
def swept(folder: Path) -> tuple[str, SweepFolder]:
    done = command("sweeps.run", "tiny.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    before = Path.cwd()
    os.chdir(folder)
    try:
        return done.stdout, find_folder("tiny")
    finally:
        os.chdir(before)


def test_far_corner_explodes_and_the_good_one_completes(swept):
    good, corner = read_trials(swept[1].study_file)
    assert good.state is State.COMPLETED
    assert good.metrics["val/swap_gap"] > 0.05
    assert corner.state is State.INFEASIBLE
    step = re.search(r"step (\d+), (norm_ratio|norm_ceiling|non_finite)", corner.reason)
    assert step is not None, corner.reason
    assert int(step[1]) <= 30


def test_summary_says_what_to_type_next(swept):
    printed = swept[0]
    assert "baseline 'far_corner' exploded" in printed
    for words in ("make ui", "sweeps.best tiny", "sweeps.rerun tiny", "fsdet.train --config"):
        assert words in printed
    weights = Path("mlruns", "sweeps", "tiny", "trials", "0000", "best.pt")
    assert f"fsdet.predict --checkpoint {weights} --example" in printed


def test_the_winner_finds_objects_by_the_name_of_its_sweep(swept, folder):
    done = command("fsdet.predict", "--checkpoint", "tiny", "--example", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "the best on validation (F1)" in done.stdout
    assert (folder / "predictions" / "detections.json").exists()
    picture = swept[1].trials_dir / "0000" / "detections.png"
    client = MlflowClient(swept[1].load_record()["uri"])
    experiment = client.get_experiment_by_name("sweeps")
    runs = client.search_runs([experiment.experiment_id], "tags.`sweep.trial` = '0'")
    assert picture.name in {file.path for file in client.list_artifacts(runs[0].info.run_id)}


def test_rerun_equals_the_trial_to_the_last_digit(swept, folder):
    done = command("sweeps.rerun", "tiny", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to the last digit" in done.stdout.splitlines()
    trial = swept[1].trials_dir / "0000" / "steps.jsonl"
    again = next((swept[1].path / "reruns").iterdir()) / "steps.jsonl"
    assert again.read_bytes() == trial.read_bytes()
    client = MlflowClient(swept[1].load_record()["uri"])
    experiment = client.get_experiment_by_name("sweeps")
    runs = client.search_runs([experiment.experiment_id], "tags.`rerun.of_trial` = '0'")
    source = client.get_run(runs[0].data.tags["rerun.of_run"])
    assert source.data.tags["sweep.trial"] == "0"
    assert source.data.metrics["val/nAP50"] == runs[0].data.metrics["val/nAP50"]
    signals = {"grad/rms", "grad/spike_score", "train/spike_score"}
    assert signals <= source.data.metrics.keys()
    assert len(client.get_metric_history(source.info.run_id, "grad/rms")) == len(
        trial.read_text().splitlines()
    )


def test_best_yaml_runs_without_mlflow(swept, folder):
    assert command("sweeps.best", "tiny", folder=folder).returncode == 0
    best = yaml.safe_load(swept[1].best_file.read_text())
    assert best["fusion_lr_mult"] == 2.0
    done = command("fsdet.train", "--config", str(swept[1].best_file), folder=folder)
    assert done.returncode == 0, done.stderr
    best_trial = read_trials(swept[1].study_file)[0]
    told = re.findall(r"last evaluation, of epoch (\d): val/nAP50 ([\d.]+)", done.stdout)
    assert told == [(str(best_trial.best_epoch), f"{best_trial.metrics['val/nAP50']:.4f}")]
