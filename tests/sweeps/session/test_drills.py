"""The shortest of the drills (`make drills` runs all), and whether what they check with finds planted faults."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import drills
import pytest
from drills import Drill
from fuzz import Case, run_case
from fuzz_sweeps import sweep_case
from mlflow import MlflowClient

from sweeps.states import State

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_driver_killed(tmp_path):
    # once; `make drills` kills it three times
    wrongs, _ = drills.kill_driver(tmp_path / "drill", kills=1, seed=1, epoch_seconds=0.5)
    assert wrongs == []


def test_sigterm_stops_cleanly_and_the_sweep_resumes(tmp_path):
    wrongs, _ = drills.sigterm(tmp_path / "drill", most=300)  # `make drills` asks for 10 s
    assert wrongs == []


def test_ray_that_dies_ends_the_sweep_in_one_line_and_it_resumes(tmp_path):
    wrongs, _ = drills.ray_killed(tmp_path / "drill", most=50)  # `make drills` asks for 20 s
    assert wrongs == []


def test_trial_on_a_lost_node_resumes_elsewhere(tmp_path):
    wrongs, _ = drills.node_lost(tmp_path / "drill")
    assert wrongs == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a drill that nothing has broken."""
    drill = Drill(tmp_path_factory.mktemp("audit") / "drill", epoch_seconds=0.01)
    code, printed = drill.run()
    assert code == 0, printed
    return drill.root


@pytest.fixture
def drill(finished: Path, tmp_path: Path) -> Drill:
    """A copy to be damaged."""
    return Drill(shutil.copytree(finished, tmp_path / "drill"))


def completed(drill: Drill) -> int:
    """Number of a trial that completed."""
    return next(t.number for t in drill.study().trials if t.user_attrs["state"] == State.COMPLETED)


def run_of(drill: Drill, number: int) -> tuple[MlflowClient, str]:
    """A client, and the id of a trial's run."""
    client = MlflowClient(drill.uri)
    experiment = client.get_experiment_by_name("sweeps").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`sweep.trial` = '{number}'")
    return client, run.info.run_id


def lose_run(drill: Drill, number: int) -> None:
    client, run_id = run_of(drill, number)
    client.delete_run(run_id)


def double_run(drill: Drill, number: int) -> None:
    client, run_id = run_of(drill, number)
    tags = client.get_run(run_id).data.tags
    experiment = client.get_experiment_by_name("sweeps").experiment_id
    again = client.create_run(experiment, tags=tags)
    client.set_terminated(again.info.run_id)


def leave_run_open(drill: Drill, number: int) -> None:
    client, run_id = run_of(drill, number)
    client.update_run(run_id, status="RUNNING")


def mislabel_run(drill: Drill, number: int) -> None:
    client, run_id = run_of(drill, number)
    client.set_tag(run_id, "state", "failed")


def repeat_step(drill: Drill, number: int) -> None:
    client, run_id = run_of(drill, number)
    client.log_metric(run_id, "grad/norm", 1.0, step=2)


def add_epoch(drill: Drill, number: int) -> None:
    client, run_id = run_of(drill, number)
    client.log_metric(run_id, "val/nAP50", 0.5, step=99)


def flip_byte(drill: Drill, number: int) -> None:
    path = drill.folder.trials_dir / f"{number:04d}" / "stage1_epoch0005.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_checkpoint(drill: Drill, number: int) -> None:
    (drill.folder.trials_dir / f"{number:04d}" / "stage1_epoch0005.pt").unlink()


def change_lines(drill: Drill, change: Callable[[dict[str, object]], bool]) -> None:
    """Change each line of the journal in place; one for which `change` returns False is dropped."""
    lines = [json.loads(line) for line in drill.folder.study_file.read_text().splitlines()]
    kept = [line for line in lines if change(line)]
    drill.folder.study_file.write_text("".join(json.dumps(line) + "\n" for line in kept))


def falsify_value(drill: Drill, number: int) -> None:
    def change(line: dict[str, object]) -> bool:
        if line.get("trial_id") == number and line.get("step") == 3:
            line["intermediate_value"] = 0.123
        return True

    change_lines(drill, change)


def skip_epoch(drill: Drill, number: int) -> None:
    change_lines(drill, lambda line: not (line.get("trial_id") == number and line.get("step") == 2))


def lose_end(drill: Drill, number: int) -> None:
    """As if the study had never been told how the trial ended."""

    def change(line: dict[str, object]) -> bool:
        return not (line.get("trial_id") == number and "state" in line)

    change_lines(drill, change)


FAULTS = {
    lose_run: "mlflow: runs {",
    double_run: "mlflow: runs {",
    leave_run_open: "is left RUNNING",
    mislabel_run: "is failed, not completed",
    repeat_step: "has the steps [1, 2, 2, 3",
    add_epoch: "has values of epochs",
    flip_byte: "has damaged ['stage1_epoch0005.pt']",
    lose_checkpoint: "lacks its last checkpoint",
    falsify_value: "has a wrong value at epoch 3",
    skip_epoch: "has values of epochs [1, 3, 4, 5]",
    lose_end: "is RUNNING",
}
"""What is done to a finished sweep -> what the audit says about it."""


DOES_WRONG = """
import os, shutil, sys, time
shutil.copytree(sys.argv[1], ".", dirs_exist_ok=True)
WHOLE = "mlruns/sweeps/drill/trials/0000/stage1_epoch0005.pt"
for trial in ("0000", "0001", "0002"):
    folder = f"mlruns/sweeps/drill/trials/{trial}"
    for epoch in (1, 2, 3):
        path = f"{folder}/stage1_epoch{epoch:04d}.pt"
        os.path.exists(path) or os.link(WHOLE, path)
    with open(f"{folder}/sessions.log", "a") as log:
        log.write(f"{os.getpid()} goes on behind epoch 0\\n")
    with open(f"{folder}/held", "w") as held:
        held.write(str(os.getpid()))
time.sleep(1.5)
sys.exit(7)
"""
"""A session that leaves a sound sweep, says nothing, and ends with code 7."""
ALONE = sorted(drills.DRILLS.keys() - {"node_lost"})  # that one starts a cluster


@pytest.mark.parametrize("name", ALONE)
def test_every_drill_notices_a_session_that_does_wrong(finished, tmp_path, monkeypatch, name):
    monkeypatch.setattr(Drill, "command", (sys.executable, "-c", DOES_WRONG, str(finished)))
    sleep = time.sleep
    monkeypatch.setattr(drills.time, "sleep", lambda seconds: sleep(min(seconds, 0.2)))
    run = drills.DRILLS[name] if name != "kill_driver" else partial(drills.kill_driver, kills=1)
    try:
        wrongs, note = run(tmp_path / "drill")
    except TimeoutError as error:  # what the drill waits for does not come
        wrongs, note = [str(error)], ""
    assert wrongs or note == drills.NO_DISK


@pytest.mark.parametrize("after", [[], ["7 goes on behind epoch 0"]], ids=["lost", "anew"])
def test_the_drill_of_the_lost_node_notices_a_trial_that_does_not_go_on(after):
    began = ["5 goes on behind epoch 0"]
    assert drills.lost_trial_wrongs(began, ["7 goes on behind epoch 1"]) == []
    assert drills.lost_trial_wrongs(began, after)


def test_a_damaged_sweep_folder_works_or_is_a_line_of_ours(finished):
    """A short form of `make fuzz --kind sweeps`."""
    found = {}
    for seed in range(30):
        case = Case(f"{seed}", partial(sweep_case, Random(seed), finished))
        if (outcome := run_case(case)).faults:
            found[seed] = outcome.faults, outcome.errors[-2000:]
    assert found == {}


def test_a_sound_sweep_passes_the_audit(drill):
    assert drill.audit() == []


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_the_audit_finds_a_planted_fault(drill, plant):
    plant(drill, completed(drill))
    wrongs = drill.audit()
    assert any(FAULTS[plant] in wrong for wrong in wrongs), wrongs
