"""`sweeps.sync`: what a tracking server missed while it was away is written when it is back."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from conftest import small_spec, sweep
from made_up_trainers import made_up
from mlflow import MlflowClient
from servers import free_port, mlflow_ui
from waiting import wait_until

from sweeps import sync
from sweeps.storage.lookup import find_folder
from sweeps.study.study import read_trials
from sweeps.tracking import Tracker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A sweep of three trials whose server was killed when the first one had begun; its folder and its port."""
    folder, port = tmp_path_factory.mktemp("left_alone"), free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        run_without_its_server(port, store_in(folder))
    return folder, port


@pytest.fixture
def left_alone(swept: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, int]:
    """The sweep, in its folder."""
    folder, port = swept
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    return swept


def store_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'server.db'}"


def run_without_its_server(port: int, store: str) -> None:
    with mlflow_ui(port, store) as server, pytest.MonkeyPatch.context() as impatient:
        impatient.setattr(Tracker.close, "__defaults__", (2.0,))

        def kill() -> None:
            wait_until(lambda: any(Path("mlruns/sweeps").glob("small*/trials/*/config.yaml")))
            os.killpg(server.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        sweep(small_spec(trials=3), made_up)
        killer.join()


def test_server_that_is_still_away_is_one_line(left_alone, capsys):
    assert sync.main(["small"]) == 2
    assert "tracking.uri" in capsys.readouterr().err


def test_server_gets_every_trial_with_every_value_once(left_alone):
    folder, port = left_alone
    trials = read_trials(find_folder("small").study_file)
    with mlflow_ui(port, store_in(folder)):
        client = MlflowClient(f"http://127.0.0.1:{port}")
        experiment = client.get_experiment_by_name("sweeps").experiment_id
        for _ in range(2):  # the second time nothing is missing
            assert sync.main(["small"]) == 0
            runs = client.search_runs([experiment])
            by_trial = {run.data.tags.get("sweep.trial", ""): run for run in runs}
            assert len(runs) == len(by_trial) == 4
            for trial in trials:
                run = by_trial[str(trial.number)]
                assert run.data.tags["state"] == trial.state
                history = client.get_metric_history(run.info.run_id, "val/nAP50")
                assert len({metric.step for metric in history}) == len(history) > 0
                assert run.data.metrics["objective"] == trial.value


def test_unknown_sweep_is_one_line(in_own_folder, capsys):
    assert sync.main(["nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
