"""A small sweep, and a way to run it with real Ray, Optuna and MLflow in a folder of its own."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import made_up_trainers
import pytest
from ray import cloudpickle
from rich.console import Console
from servers import s3_server

from sweeps.config import SweepSpec
from sweeps.config.check import check_spec
from sweeps.config.sections import TrackingSpec
from sweeps.resources.machine import Machine
from sweeps.session.callbacks import SWEEP_RUN
from sweeps.session.live_display import build_display
from sweeps.session.session import Session
from sweeps.session.sweep import SweepResult, run_sweep
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import new_folder
from sweeps.tracking import Tracker, tracking_uri
from sweeps.trial.trial import Train

cloudpickle.register_pickle_by_value(made_up_trainers)  # workers cannot import it


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of each test is empty and its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def small_spec(**changes: Any) -> SweepSpec:
    """A sweep over `lr`, three epochs a trial."""
    values: dict[str, Any] = {
        "name": "small",
        "space": {"lr": {"low": 0.01, "high": 10}},
        "fixed": {"epochs": 3, "n_episodes": 3},
        "trials": 2,
        "scheduler": {"name": "none"},
        "resources": {"cpus": 1, "max_concurrent": 1},
    }
    return SweepSpec(**{**values, **changes})


@dataclass
class Swept:
    """A sweep that was run."""

    result: SweepResult
    folder: SweepFolder
    uri: str
    parent: str
    printed: str


def sweep(spec: SweepSpec, train: Train, cpus: int = 1) -> Swept:
    """Run `spec` with the trainer `train`."""
    check_spec(spec)
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    display = build_display(spec, console)
    tracker = Tracker(tracking_uri(TrackingSpec()), "sweeps")
    folder = new_folder(spec.name, numbered=True)
    try:
        session = Session(folder, Machine(cpus, 0), tracker, train)
        result = run_sweep(spec, session, display)
    finally:
        tracker.close()
        parent = tracker.run_id(SWEEP_RUN)
    assert parent is not None
    return Swept(result, folder, tracker.uri, parent, printed.getvalue())


@pytest.fixture
def run_small() -> Callable[..., Swept]:
    """`sweep` of `small_spec`."""
    return lambda train, cpus=1, **changes: sweep(small_spec(**changes), train, cpus)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place in a storage of each kind."""
    if request.param == "file":
        return f"file://{tmp_path}/storage"
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
