"""Sweeps over a real Ray cluster of two nodes, the second of which sees nothing of the driver's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from two_nodes import HEAD, QUIET, SECOND, TwoNodes, can_hide, two_nodes

import fsdet
import sweeps
from sweeps.states import State
from sweeps.storage.lookup import find_folder
from sweeps.study.study import read_trials

HERE = Path(__file__).resolve().parents[1]
SWEEP = {
    "name": "two",
    "space": {"lr": {"low": 0.1, "high": 2}},
    "fixed": {"epochs": 2, "n_episodes": 3},
    "baselines": {"low": {"lr": 0.2}, "high": {"lr": 0.9}},
    "trials": 4,
    "sampler": {"name": "random", "seed": 1},
    "scheduler": {"name": "none"},
}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's own folder, which the second node does not see."""
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def cluster(driver: Path) -> Iterator[TwoNodes]:
    if not can_hide():
        pytest.skip("needs mount namespaces (unshare -m): a node must not see the driver's files")
    code = [Path(package.__file__).resolve().parent for package in (fsdet, sweeps)]
    with two_nodes(hidden=[driver, *code]) as found:
        yield found


@dataclass
class Ran:
    """How a session ended."""

    code: int
    printed: str
    errors: list[str]


def run(driver: Path, *words: str, address: str | None = None, **changes: object) -> Ran:
    """`python -m sweeps.run` in the driver's folder, with the trainer that notes where it is."""
    (driver / "two.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))
    environment = {**os.environ, **QUIET} | ({} if address is None else {"RAY_ADDRESS": address})
    paths = [str(HERE.parents[1]), str(HERE.parents[1] / "benchmarks")]
    done = subprocess.run(
        [sys.executable, str(HERE / "noting_trainer.py"), "two.yaml", *words],
        cwd=driver,
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join(paths),
            "DRILL_EPOCH_SECONDS": "0.1",
            "MEETING": str(driver.with_name(f"meeting-{changes.get('name')}")),
        },
        capture_output=True,
        text=True,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return Ran(done.returncode, done.stdout + done.stderr, errors)


def seen_by(folder: Path) -> list[dict[str, object]]:
    """What each trial noted, as the driver has it."""
    return [json.loads(p.read_text()) for p in sorted(folder.glob("*/training_debug.log"))]


def audit(name: str, uri: str, storage: str | None) -> None:
    """Every trial completed, and MLflow has its files."""
    trials = read_trials(find_folder(name, storage).study_file)
    assert [t.state for t in trials] == [State.COMPLETED] * 4
    client = MlflowClient(uri)
    runs = client.search_runs(
        [client.get_experiment_by_name("sweeps").experiment_id], f"tags.`sweep.name` = '{name}'"
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 5
    for found in runs:
        if "sweep.trial" in found.data.tags:
            files = {file.path for file in client.list_artifacts(found.info.run_id)}
            assert files == {"config.yaml", "training_debug.log", "steps.jsonl"}


@pytest.mark.slow
def test_trials_run_on_both_nodes_over_a_shared_folder(cluster, driver, tmp_path, monkeypatch):
    monkeypatch.chdir(driver)
    (driver / "weights.pt").write_text("made here")
    shared = str(tmp_path / "shared")
    fixed = {
        **SWEEP["fixed"],
        "yolo_weights": "weights.pt",
        "resume": "fsdet/checkpoints/stage1_openmoji.pt",
    }
    words = ("--address", cluster.address, "--set", f"storage.path={shared}")
    ran = run(driver, *words, fixed=fixed)
    assert ran.code == 0, ran.printed
    assert "2 at once" in ran.printed
    found = seen_by(tmp_path / "shared" / "two" / "trials")
    assert {seen["node"] for seen in found} == {HEAD, SECOND}
    assert {seen["weights"] for seen in found} == {"made here"}
    assert {seen["checkpoint"] for seen in found} == {True}
    assert all("py_modules_files" in str(seen["code"]) for seen in found)
    audit("two", f"sqlite:///{driver}/mlruns/mlflow.db", shared)
    # another driver goes on with it: the same content under another name is the same
    (driver / "weights.pt").rename(driver / "renamed.pt")
    fixed["yolo_weights"] = "renamed.pt"
    ran = run(driver, *words, "--resume", "--trials", "5", fixed=fixed)
    assert ran.code == 0, ran.printed
    assert len(seen_by(tmp_path / "shared" / "two" / "trials")) == 5


@pytest.mark.slow
def test_trials_run_on_both_nodes_over_a_url(cluster, driver, tmp_path, monkeypatch):
    monkeypatch.chdir(driver)
    (driver / "weights.pt").write_text("made here")
    fixed = {**SWEEP["fixed"], "yolo_weights": "weights.pt"}
    url = f"file://{tmp_path}/storage"
    more = {"name": "mirrored", "fixed": fixed, "storage": {"path": url}}
    ran = run(driver, address=cluster.address, **more)
    assert ran.code == 0, ran.printed
    found = seen_by(driver / "mlruns" / "sweeps" / "mirrored" / "trials")
    assert {seen["node"] for seen in found} == {HEAD, SECOND}
    assert {seen["weights"] for seen in found} == {"made here"}
    assert not any(Path(str(seen["folder"])).exists() for seen in found)
    audit("mirrored", f"sqlite:///{driver}/mlruns/mlflow.db", url)
    for number in range(4):
        left = {
            path.name for path in (tmp_path / f"storage/mirrored/trials/{number:04d}").iterdir()
        }
        assert {"stage1_epoch0001.pt", "stage1_epoch0002.pt", "evaluations.jsonl"} <= left


@pytest.mark.slow
def test_what_a_node_does_not_see_is_told_before_anything_starts(cluster, driver):
    (driver / "data").mkdir()
    fixed = {**SWEEP["fixed"], "dataset": "yolo", "data_root": str(driver / "data")}
    ran = run(driver, "--address", cluster.address, name="private", fixed=fixed)
    assert ran.code == 2
    storage, data = ran.errors
    assert storage.startswith(f"error: node {SECOND}: storage.path: {driver}/mlruns/sweeps is not")
    assert data.startswith(f"error: node {SECOND}: no such file or folder: {driver}/data; put")
    assert not (driver / "mlruns" / "sweeps" / "private").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.4:1", "cannot connect to a Ray cluster"),
        ("ray://127.0.0.2:10001", "not behind Ray Client"),
    ],
)
def test_cluster_that_is_not_there_is_told_in_one_line(address, told, in_own_folder):
    ran = run(in_own_folder, "--address", address)
    assert ran.code == 2
    (line,) = ran.errors
    assert told in line
    assert not (in_own_folder / "mlruns").exists()
