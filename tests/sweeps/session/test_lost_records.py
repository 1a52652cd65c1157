"""A sweep that ran to its end, whose files are then lost, damaged or mixed up before it goes on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drill_sweep
import optuna
import pytest
import yaml
from drill_sweep import value_at
from mlflow import MlflowClient
from mlflow.entities import Run
from ray import cloudpickle

from sweeps.config import Objective
from sweeps.confirmation.results import load_confirmation
from sweeps.run import main
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.study.location import study_name
from sweeps.study.records import TrialRecord, best_of
from sweeps.study.store import JournalStore
from sweeps.study.study import load_study, read_trials

pytestmark = pytest.mark.slow

cloudpickle.register_pickle_by_value(drill_sweep)  # workers cannot import it

CREATE_TRIAL = 4
"""Operation of Optuna's journal."""
BASELINES = {"low": {"lr": 0.2}, "high": {"lr": 0.5}}
SWEEP: dict[str, Any] = {
    "name": "small",
    "space": {"lr": {"low": 0.01, "high": 1}},
    "baselines": BASELINES,
    "fixed": {"epochs": 3, "n_episodes": 3},
    "trials": 2,
    "scheduler": {"name": "none"},
    "resources": {"cpus": 1, "max_concurrent": 2},
    "confirm": {"top_k": 1, "seeds": 3},
}


def go_on(*more: str) -> int:
    """Another session; returns its exit code."""
    return main(["small.yaml", "--resume", *more], drill_sweep.train)


def run_in(path: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Path:
    """Run the sweep in `path`."""
    patch.chdir(path)
    for name in ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE", "RAY_ADDRESS"):
        patch.delenv(name, raising=False)
    patch.setattr(drill_sweep, "EPOCH_SECONDS", 0.0)
    Path("small.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}, sort_keys=False))
    assert main(["small.yaml"], drill_sweep.train) == 0
    return path


@pytest.fixture(scope="module")
def with_a_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return run_in(tmp_path_factory.mktemp("file"), patch)


@pytest.fixture(scope="module")
def with_a_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        return run_in(path, patch, storage={"study": f"sqlite:///{path / 'study.db'}"})


@pytest.fixture
def database(with_a_database: Path) -> Iterator[Path]:
    """The same; its database, which is no copy, is afterwards as it was."""
    study = with_a_database / "study.db"
    before = study.read_bytes()
    yield with_a_database
    study.write_bytes(before)


class Swept:
    """A copy of the sweep, in the working directory."""

    def __init__(self, template: Path) -> None:
        shutil.copytree(template, Path.cwd(), dirs_exist_ok=True)
        self.folder = SweepFolder(Path.cwd() / "mlruns" / "sweeps" / "small")
        self.before = self.runs()

    def trial(self, number: int) -> Path:
        return self.folder.trials_dir / f"{number:04d}"

    def records(self) -> list[TrialRecord]:
        return read_trials(self.folder.study_file)

    def runs(self) -> dict[str, Run]:
        """Key -> run; none is doubled, none is open."""
        client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])
        keys = Counter(run.data.tags.get("sweep.trial", "") for run in runs)
        assert set(keys.values()) == {1}, keys
        assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
        return {run.data.tags.get("sweep.trial", ""): run for run in runs}

    def values(self, key: str) -> list[float]:
        """What MLflow holds of a run's evaluations."""
        client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}")
        history = client.get_metric_history(self.runs()[key].info.run_id, "val/nAP50")
        return [metric.value for metric in history]

    def cut_off(self, number: int) -> None:
        """Let the study be as if the driver was killed after the second report of a trial."""
        lines = self.folder.study_file.read_text().splitlines(keepends=True)
        reports = [
            i
            for i, line in enumerate(map(json.loads, lines))
            if line.get("trial_id") == number and "intermediate_value" in line
        ]
        assert len(reports) == 3
        ended = [
            i for i, line in enumerate(map(json.loads, lines)) if line.get("trial_id") == number
        ]
        cut = set(ended[ended.index(reports[1]) + 1 :])
        self.folder.study_file.write_text("".join(x for i, x in enumerate(lines) if i not in cut))
        (self.trial(number) / "stage1_epoch0003.pt").unlink()  # as that worker would have left it


def sessions(folder: Path) -> list[str]:
    """After which epoch each worker went on that trained in `folder`."""
    return [line.split()[-1] for line in (folder / "sessions.log").read_text().splitlines()]


def refusal(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a refusal."""
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def swept(with_a_file: Path, in_own_folder: Path) -> Swept:
    return Swept(with_a_file)


def without_the_last_trial(path: Path) -> None:
    """The file as it was before trial 1 began; the confirmation came later still."""
    lines = path.read_text().splitlines(keepends=True)
    created = [i for i, line in enumerate(lines) if json.loads(line)["op_code"] == CREATE_TRIAL]
    path.write_text("".join(lines[: created[1]]))


@pytest.mark.parametrize(
    ("lose", "lost"),
    [
        (lambda path: path.unlink(), "0, 1"),
        (lambda path: path.write_text(""), "0, 1"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "0, 1"),
        (without_the_last_trial, "1"),
    ],
    ids=["deleted", "emptied", "half a line", "the last trial"],
)
def test_study_that_lost_trials_is_refused(swept, lose, lost, capsys):
    backup = swept.folder.study_file.read_bytes()
    files = {p: p.read_bytes() for p in swept.folder.trials_dir.rglob("*") if p.is_file()}
    lose(swept.folder.study_file)
    line = refusal(go_on("--trials", "4"), capsys)
    assert f"study.journal: the study has lost trials: it does not hold {lost}, whose" in line
    assert "restore the study from a backup, or start a new sweep with --name NAME" in line
    assert {p: p.read_bytes() for p in swept.folder.trials_dir.rglob("*") if p.is_file()} == files
    assert swept.runs().keys() == swept.before.keys()
    swept.folder.study_file.write_bytes(backup)
    assert go_on() == 0


def test_study_that_cannot_be_read_is_refused(swept, capsys):
    lines = swept.folder.study_file.read_text().splitlines(keepends=True)
    swept.folder.study_file.write_text("".join([*lines[:3], "what is this\n", *lines[3:]]))
    assert "study.journal: the study is damaged" in refusal(go_on(), capsys)


def test_study_that_was_deleted_from_a_database_is_refused(database, in_own_folder, capsys):
    swept = Swept(database)
    storage = f"sqlite:///{database / 'study.db'}"
    optuna.delete_study(study_name=study_name(swept.folder), storage=storage)
    line = refusal(go_on("--trials", "3"), capsys)
    assert f"{storage}: the study has lost trials: it does not hold 0, 1, whose" in line
    assert swept.runs().keys() == swept.before.keys()


def test_sweep_whose_files_lost_their_yaml_is_not_taken_for_a_new_one(swept, capsys):
    swept.folder.spec_file.unlink()
    swept.folder.study_file.unlink()
    code = main(["small.yaml"], drill_sweep.train)
    assert "the study has lost trials" in refusal(code, capsys)


@pytest.mark.parametrize(
    ("kind", "content", "more"),
    [
        ("with_a_file", None, []),
        ("with_a_file", "", []),
        ("with_a_file", '{"study": "jour', []),
        ("database", None, ["--trials", "3"]),
    ],
)
def test_lost_record_doubles_no_run(
    kind,
    content,
    more,
    request,
    in_own_folder,
):
    swept = Swept(request.getfixturevalue(kind))
    study = swept.folder.load_record()["study"]
    if content is None:
        swept.folder.record_file.unlink()
    else:
        swept.folder.record_file.write_text(content)
    assert go_on(*more) == 0
    runs = swept.runs()
    assert len(swept.before) == 9  # the sweep's own, two trials, two baselines at three seeds
    assert ("2" in runs) == bool(more)
    assert {k: runs[k].info.run_id for k in swept.before} == {
        k: run.info.run_id for k, run in swept.before.items()
    }
    record = swept.folder.load_record()
    assert record["sweep_id"] == runs[""].data.tags["sweep.id"]
    assert record["run_id"] == runs[""].info.run_id
    assert record["study"] == study


def test_lost_record_is_refused_where_the_store_does_not_have_the_runs(swept, capsys, monkeypatch):
    swept.folder.record_file.unlink()
    other = f"sqlite:///{Path.cwd() / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    line = refusal(go_on(), capsys)
    assert f"tracking.json: it is lost or damaged, and {other} holds no run of this sweep" in line
    assert "set tracking.uri or MLFLOW_TRACKING_URI to the store that has the runs" in line
    client = MlflowClient(other)
    assert not client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])
    assert not swept.folder.record_file.exists()


def check_outcome(swept: Swept) -> None:
    """Each trial has what its own settings give, here and in MLflow; so has the best."""
    for trial in swept.records():
        lr = trial.parameters["lr"]
        assert trial.state is State.COMPLETED
        assert trial.value == value_at(lr, 3)
        assert swept.values(str(trial.number)) == [value_at(lr, epoch) for epoch in (1, 2, 3)]
    best = best_of(swept.records(), Objective())
    assert best is not None
    assert best.parameters == BASELINES["high"]
    assert yaml.safe_load(swept.folder.best_file.read_text())["lr"] == 0.5


def test_trial_that_was_cut_off_goes_on_from_its_own_files(swept):
    swept.cut_off(0)
    assert go_on() == 0
    assert sessions(swept.trial(0)) == ["0", "2"]
    check_outcome(swept)


def test_trial_in_the_folder_of_another_one_begins_anew(swept, caplog):
    swept.cut_off(0)
    swept.trial(0).rename(swept.folder.trials_dir / "x")
    swept.trial(1).rename(swept.trial(0))
    (swept.folder.trials_dir / "x").rename(swept.trial(1))
    assert go_on() == 0
    assert sessions(swept.trial(0)) == ["0"]
    aside = swept.trial(0) / "earlier-1"
    assert {"trial.json", "stage1_epoch0003.pt", "steps.jsonl"} <= {p.name for p in aside.iterdir()}
    told = (
        "its folder was made with lr 0.5, but this trial has 0.2: the files are moved to earlier-1"
    )
    assert f"trial 0 (low): {told}" in caplog.text
    assert told in swept.runs()["0"].data.tags["set_aside"]
    check_outcome(swept)


def test_a_checkpoint_of_another_trial_is_not_used(swept, caplog):
    swept.cut_off(0)
    shutil.copy(swept.trial(1) / "stage1_epoch0003.pt", swept.trial(0))
    assert go_on() == 0
    assert sessions(swept.trial(0)) == ["0", "2"]
    assert (swept.trial(0) / "stage1_epoch0003.foreign").is_file()
    told = "trial 0 (low): stage1_epoch0003.pt was made with lr 0.5, but this trial has 0.2"
    assert told in caplog.text
    check_outcome(swept)


def test_run_is_not_filled_in_from_the_folder_of_another_trial(swept, caplog):
    client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlruns' / 'mlflow.db'}")
    client.delete_run(swept.before["0"].info.run_id)
    shutil.rmtree(swept.trial(0))
    shutil.copytree(swept.trial(1), swept.trial(0))
    assert go_on() == 0
    run = swept.runs()["0"]
    assert run.data.tags["state"] == "completed"
    assert run.data.params["lr"] == "0.2"
    assert swept.values("0") == []
    assert client.list_artifacts(run.info.run_id) == []
    assert "was made with lr 0.5, but this trial has 0.2: it is not logged to MLflow" in caplog.text


def test_result_of_a_confirmation_does_not_depend_on_what_lies_in_its_folder(
    swept,
):
    runs = swept.folder.path / "confirm"
    own, other = (runs / f"baseline_{name}" / "seed_1000" for name in ("low", "high"))
    shutil.rmtree(own)
    shutil.copytree(other, own)
    assert go_on() == 0
    found = load_confirmation(swept.folder.path / "confirm.json")
    assert found is not None
    (low,) = [one for one in found.baselines if one.candidate.label == "low"]
    assert low.results[1000].metrics["test/nAP50"] == value_at(0.2, 3)
    assert swept.runs().keys() == swept.before.keys()


def test_run_of_a_confirmation_that_was_cut_off_begins_anew_in_the_folder_of_another(
    swept,
):
    """The study forgets that the run ended; its folder holds another one's files."""
    runs = swept.folder.path / "confirm"
    own, other = (runs / f"baseline_{name}" / "seed_1000" for name in ("low", "high"))
    shutil.rmtree(own)
    shutil.copytree(other, own)
    study = load_study(JournalStore(swept.folder.study_file).beside("confirm"))
    (number,) = [t.number for t in study.trials if t.user_attrs["preset"]["key"] == KEY]
    lines = swept.folder.study_file.read_text().splitlines(keepends=True)
    identity = study.trials[number]._trial_id
    kept = [line for line in lines if json.loads(line).get("trial_id") != identity]
    swept.folder.study_file.write_text("".join(kept))
    assert go_on() == 0
    assert {"trial.json", "stage1_epoch0003.pt"} <= {p.name for p in (own / "earlier-1").iterdir()}
    found = load_confirmation(swept.folder.path / "confirm.json")
    assert found is not None
    (low,) = [one for one in found.baselines if one.candidate.label == "low"]
    assert low.results[1000].metrics["test/nAP50"] == value_at(0.2, 3)
    assert swept.runs().keys() == swept.before.keys()


KEY = "baseline_low/seed_1000"
