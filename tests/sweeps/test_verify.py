"""`sweeps.verify` over three real trainings: all equal, and every planted difference found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import small_spec
from session_parts import Driver
from tiny_runs import TINY

from fsdet.train import train
from sweeps import verify
from sweeps.storage.lookup import new_folder
from sweeps.study.location import begin_store
from sweeps.trial.messages import to_report

pytestmark = pytest.mark.usefixtures("in_own_folder")


@pytest.fixture
def trials(in_own_folder) -> Path:
    """Folder of the trials of a sweep that was trained without Ray; the last one exploded."""
    fixed = {**TINY, "n_episodes": 2, "batch_size": 1}
    del fixed["lr"]
    baselines = {"low": {"lr": 1e-4}, "high": {"lr": 1e-3}, "wild": {"lr": 1e3}}
    space = {"lr": {"low": 1e-4, "high": 1e3, "log": True}}
    spec = small_spec(space=space, fixed=fixed, baselines=baselines, trials=3)
    folder = new_folder("small")
    store = begin_store(spec, folder)
    folder.save_spec(spec)
    driver = Driver(spec, store)
    for _ in range(3):
        request, reports = driver.start(), []
        run_dir = folder.trials_dir / request.folder
        train(request.config.model_copy(update={"checkpoint_dir": run_dir}), reports.append)
        driver.end(request.number, to_report(reports[-1], "nAP50"))
    return folder.trials_dir


def change(path: Path, line: int, key: str, value: object) -> None:
    """Write another value into one line of a file of JSON lines."""
    rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
    rows[line][key] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_an_honest_sweep_is_equal_to_the_last_digit(trials, capsys):
    assert verify.main(["small", "--trials", "3"]) == 0
    out = capsys.readouterr().out
    assert "first steps of 3 of 3 trials are recorded: all used the settings" in out
    assert out.count("equal to the last digit") == 3
    assert "small: all that was compared is equal" in out
    assert list((trials.parent / "reruns").iterdir()) == []


def test_one_changed_digit_of_one_step_is_found(trials, capsys):
    change(trials / "0001" / "steps.jsonl", 1, "grad/norm", 8.0)
    assert verify.main(["small", "--trials", "3"]) == 1
    out = capsys.readouterr().out
    assert "differs at step 2: grad/norm was 8.0, is " in out
    assert "1 of 3 differ" in out


def test_a_changed_evaluation_and_a_missing_step_are_found(trials, capsys):
    change(trials / "0000" / "evaluations.jsonl", 0, "val/nAP50", 0.9)
    steps = trials / "0001" / "steps.jsonl"
    steps.write_text(steps.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert verify.main(["small", "--trials", "3", "--json"]) == 1
    found = {one["trial"]: one for one in json.loads(capsys.readouterr().out)["repeated"]}
    assert "val/nAP50 was 0.9, is" in found[0]["difference"]
    assert found[1]["difference"] == "step 2, which is missing in the trial"
    assert found[2]["difference"] is None
    assert Path(found[0]["run_dir"]).is_dir()


def test_a_first_step_with_other_settings_is_found(trials, capsys):
    path = trials / "0001" / "first_step.json"
    first = json.loads(path.read_text(encoding="utf-8"))
    first["used"]["lr/backbone"] = 0.1
    path.write_text(json.dumps(first), encoding="utf-8")
    assert verify.main(["small", "--trials", "0"]) == 1
    out = capsys.readouterr().out
    assert "trial 1 (high) used lr/backbone 0.1 in its first step, but 0.0005 was" in out
    assert "small cannot be trusted" in out


def test_the_draw_is_repeatable_and_flags_are_checked(trials, capsys):
    assert verify.main(["small", "--trials", "1", "--seed", "5"]) == 0
    first = capsys.readouterr().out
    assert verify.main(["small", "--trials", "1", "--seed", "5"]) == 0
    assert capsys.readouterr().out == first
    assert verify.main(["small", "--trials", "-1"]) == 2
    assert "error: --trials: must be 0 or more, but got -1" in capsys.readouterr().err
