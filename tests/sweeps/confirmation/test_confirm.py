"""A confirmation with real Ray and MLflow over a trainer that costs nothing."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import small_spec
from made_up_trainers import noisy
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.samplers import RandomSampler
from rich.console import Console
from waiting import PATIENCE, wait_until

from sweeps.config import SweepSpec
from sweeps.config.check import check_spec
from sweeps.config.sections import TrackingSpec
from sweeps.confirmation.candidates import ablations_of, candidates_of, preset_of
from sweeps.confirmation.confirm import Confirmed, confirm, records_of
from sweeps.confirmation.report import conclusions, print_confirmation
from sweeps.confirmation.results import load_confirmation, save_confirmation
from sweeps.errors import SweepError
from sweeps.rerun import find_source, new_run_dir
from sweeps.resources.machine import Machine
from sweeps.search.outcomes import tell
from sweeps.session.parent_run import end_parent_run, start_parent_run
from sweeps.session.resume import earlier_runs
from sweeps.session.session import Session
from sweeps.states import ENDED, Outcome, State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import new_folder
from sweeps.study.location import store_of
from sweeps.study.records import TrialRecord
from sweeps.study.store import JournalStore
from sweeps.study.study import add_preset, create_study, read_trials
from sweeps.tracking import Tracker, tracking_uri

SPACE = {"lr": {"low": 0.01, "high": 1}, "dfl_weight": {"low": 0.1, "high": 3}}
BASELINES = {
    "before": {"lr": 0.25, "dfl_weight": 1.2},
    "explodes": {"lr": 0.3, "dfl_weight": 1.0},
    "fails": {"lr": 0.2, "dfl_weight": 1.0},
}
FOUND = {"lr": 0.5, "dfl_weight": 0.5}


def confirming_spec(**changes: Any) -> SweepSpec:
    more = {"space": SPACE, "baselines": BASELINES, "trials": 5, "ablate": True}
    return small_spec(**{**more, "confirm": {"top_k": 2, "seeds": 3}, **changes})


def searched() -> list[TrialRecord]:
    """What a search would have left."""
    found = [TrialRecord(3, State.COMPLETED, FOUND, 0.6)]
    return [*found, TrialRecord(4, State.COMPLETED, {"lr": 0.4, "dfl_weight": 2.0}, 0.55)]


def run_confirmation(spec: SweepSpec, folder: SweepFolder, cpus: int = 1) -> tuple[Confirmed, str]:
    """Confirm `searched()` beneath a run of its own; returns what was printed too."""
    check_spec(spec)
    printed = io.StringIO()
    tracker = Tracker(tracking_uri(TrackingSpec()), "sweeps")
    try:
        start_parent_run(tracker, spec, folder, earlier_runs(tracker, folder))
        end_parent_run(tracker, spec, folder, searched(), Outcome(State.COMPLETED))
        session = Session(folder, Machine(cpus, 0), tracker, noisy)
        done = confirm(spec, session, searched(), Console(file=printed, width=200))
    finally:
        tracker.close()
    return done, printed.getvalue()


def mlflow_runs(folder: SweepFolder) -> dict[str, Run]:
    """Key -> MLflow run of every run of the confirmation; the same key twice fails."""
    client = MlflowClient(folder.load_record()["uri"])
    experiment = client.get_experiment_by_name("sweeps")
    parent = folder.load_record()["run_id"]
    runs = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000
    )
    found = {run.data.tags["sweep.trial"]: run for run in runs}
    assert len(found) == len(runs)
    return found


def starts(folder: SweepFolder) -> dict[str, int]:
    """Key -> times that the trainer was started."""
    root = folder.path / "confirm"
    return {
        str(file.parent.relative_to(root)): file.stat().st_size for file in root.rglob("starts")
    }


class Done:
    """A confirmation that was run, in the folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = confirming_spec()
        self.folder = new_folder("small")
        done, self.printed = run_confirmation(self.spec, self.folder, cpus=2)
        assert done.confirmation is not None
        self.confirmation = done.confirmation


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("confirm")
        patch.chdir(path)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Done(path)


@pytest.mark.slow
def test_winner_is_better_than_the_best_feasible_baseline(done):
    found = done.confirmation
    assert found.winner is not None
    assert found.winner.candidate.label == "trial 3"
    assert found.best_baseline is not None
    assert found.best_baseline.candidate.label == "before"
    assert [m.candidate.label for m in found.feasible] == ["trial 3", "trial 4", "before"]


@pytest.mark.slow
def test_one_exploded_seed_is_infeasible_and_a_failed_one_a_gap(done):
    by_label = {m.candidate.label: m for m in done.confirmation.configurations}
    assert list(by_label["explodes"].with_state(State.INFEASIBLE)) == [1001]
    assert by_label["fails"].with_state(State.FAILED) == {1001: "RuntimeError: no such luck"}
    assert len(by_label["fails"].values("test/nAP50")) == 2


@pytest.mark.slow
def test_seeds_and_split_are_fresh_and_the_same_for_all(done):
    runs = mlflow_runs(done.folder)
    jobs = {tuple(key.rsplit("/seed_", 1)) for key in runs}
    assert {seed for _, seed in jobs} == {"1000", "1001", "1002"}
    assert len(jobs) == 3 * (5 + 2)
    assert {run.data.params["novel_split"] for run in runs.values()} == {"val"}
    assert {run.data.params["final_split"] for run in runs.values()} == {"test"}
    assert all(key.endswith(f"seed_{run.data.params['seed']}") for key, run in runs.items())


@pytest.mark.slow
def test_every_run_is_closed_with_its_state(done):
    runs = mlflow_runs(done.folder)
    states = {key: run.data.tags["state"] for key, run in runs.items()}
    assert states.pop("baseline_explodes/seed_1001") == "infeasible"
    assert states.pop("baseline_fails/seed_1001") == "failed"
    assert set(states.values()) == {"completed"}
    run = runs["trial_0003/seed_1000"]
    assert run.data.tags["sweep.confirms"] == "3"
    assert run.info.run_name.startswith("confirm trial 3, seed 1000 · 0.")
    assert "test/nAP50" in run.data.metrics


@pytest.mark.slow
def test_ablation_tells_which_setting_did_the_work(done):
    found = {c.second.factor: c for c in done.confirmation.contributions}
    assert {factor: c.verdict for factor, c in found.items()} == {
        "lr": "better",
        "dfl_weight": "within noise",
    }
    assert found["lr"].difference.estimate.mean == pytest.approx(0.25, abs=0.01)


@pytest.mark.slow
def test_best_yaml_and_the_sweep_s_run_hold_the_winner(done):
    text = done.folder.best_file.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert (values["lr"], values["novel_split"], values["seed"]) == (0.5, "val", 0)
    assert "# winner: trial 3, " in text
    client = MlflowClient(done.folder.load_record()["uri"])
    parent = client.get_run(done.folder.load_record()["run_id"])
    assert parent.info.status == "FINISHED"
    mean = done.confirmation.estimate(done.confirmation.winner)
    assert parent.data.metrics["confirmed/test/nAP50"] == mean.mean
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"best.yaml", "confirm.json"}


@pytest.mark.slow
def test_all_is_printed_and_can_be_printed_again(done):
    assert len(done.printed.splitlines()) == 15 + 6
    path = done.folder.path / "confirm.json"
    stored = load_confirmation(path)
    assert stored is not None
    save_confirmation(done.path / "again.json", stored, conclusions(stored))
    assert (done.path / "again.json").read_bytes() == path.read_bytes()
    for before, after in zip(done.confirmation.configurations, stored.configurations, strict=True):
        assert after.candidate == before.candidate
        assert after.values("test/nAP50") == before.values("test/nAP50")
    again = io.StringIO()
    print_confirmation(Console(file=again, width=80), stored)
    for words in (
        "winner: trial 3, ",
        "infeasible: exploded at seed 1001",
        "made the difference: lr",
        "within noise: dfl_weight",
        "not ranked: measured at 2 of 3 seeds",
        "power: 3 seeds find a gain of 2 standard deviations",
        "fails failed at seed 1001: RuntimeError: no such luck",
    ):
        assert words in again.getvalue()


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_nothing_is_run_twice(in_own_folder):
    script = (
        "from test_confirm import confirming_spec, run_confirmation\n"
        "from sweeps.storage.lookup import new_folder\n"
        "folder = new_folder('small')\n"
        "(folder.path / 'hold').touch()\n"
        "run_confirmation(confirming_spec(ablate=False), folder)\n"
    )
    path = os.pathsep.join(str(Path(__file__).parents[above]) for above in (0, 1, 3))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = SweepFolder(in_own_folder / "mlruns" / "sweeps" / "small")
    hanging = folder.path / "confirm" / "trial_0003" / "seed_1002" / "starts"
    wait_until(hanging.exists)
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    before = {record.folder: record for record in records(folder) if record.state in ENDED}
    assert set(before) == {key for key in starts(folder) if "1002" not in key}
    (folder.path / "hold").unlink()
    done, printed = run_confirmation(confirming_spec(ablate=False), folder)
    assert done.confirmation is not None
    assert done.confirmation.winner is not None
    assert done.confirmation.winner.candidate.label == "trial 3"
    after = records(folder)
    again = {record.folder: record for record in after}
    assert len(again) == 15
    assert [r.folder for r in after if r is not again[r.folder]] == ["baseline_fails/seed_1001"]
    assert [r for r in after if r.number < len(before)] == list(before.values())
    runs = mlflow_runs(folder)
    assert set(runs) == set(again)
    assert {run.info.status for run in runs.values()} == {"FINISHED", "FAILED"}
    counted = starts(folder)
    twice = {"trial_0003/seed_1002", "baseline_fails/seed_1001"}
    assert {key for key, count in counted.items() if count > 1} == twice
    assert printed.count("] run ") == 15 - len(before) + 1


def records(folder: SweepFolder) -> list[TrialRecord]:
    """Every run of the confirmation, in the order in which they began."""
    return read_trials(store_of(folder).beside("confirm"))


@pytest.mark.slow
def test_runs_are_trials_of_a_study_beside_that_of_the_search(done):
    found = records(done.folder)
    assert [record.number for record in found] == list(range(3 * (5 + 2)))
    assert {record.folder for record in found} == set(starts(done.folder))
    by_key = {record.folder: record for record in found}
    best = by_key["trial_0003/seed_1001"]
    assert (best.parameters, best.state) == (FOUND, State.COMPLETED)
    assert best.preset is not None
    assert best.preset.overrides == {"seed": 1001}
    with pytest.raises(SweepError, match="the study is empty"):
        read_trials(store_of(done.folder))  # nothing was searched here


def test_a_run_counts_for_its_settings_whatever_it_is_called(tmp_path):
    """The one setting in which a winner differs, set back, is the baseline, which was measured."""
    spec = confirming_spec(baselines={"before": {**FOUND, "lr": 0.25}}).for_confirmation
    assert spec.confirm is not None
    winner, base = candidates_of(spec, spec.confirm, searched()[:1])
    (set_back,) = ablations_of(spec, winner, base)
    study = create_study(JournalStore(tmp_path / "journal"), spec, RandomSampler())
    number = add_preset(study, spec, preset_of(base, 1000))
    tell(study, spec, number, State.FAILED)
    same = preset_of(set_back, 1000)
    assert [r.number for r in records_of(study, {same.key: same}).values()] == [number]
    for other in (
        replace(same, parameters=FOUND),
        replace(same, overrides={"seed": 1001}),
        replace(same, key="elsewhere"),
    ):
        assert records_of(study, {other.key: other}) == {}


def test_runs_choose_on_val_report_on_test_and_have_no_budget():
    spec = confirming_spec(budget={"hours": 1, "target": 0.5}).for_confirmation
    assert spec.objective.metric == "test/nAP50"
    assert spec.budget.hours is None
    config = spec.config({**FOUND, "seed": 1003})
    assert (config.novel_split, config.final_split, config.seed) == ("val", "test", 1003)
    assert config.best_metric == "nAP50"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confirm": None}, "ablate: needs a confirmed winner; add confirm"),
        ({"baselines": {}}, "ablate: needs a baseline"),
    ],
)
def test_ablation_without_what_it_needs_is_refused(changes, words):
    with pytest.raises(SweepError, match=words):
        check_spec(confirming_spec(**changes))


@pytest.mark.slow
def test_a_run_of_a_confirmation_can_be_run_again_by_its_id(done, monkeypatch):
    monkeypatch.chdir(done.path)
    run = mlflow_runs(done.folder)["trial_0003/seed_1001"]
    with pytest.raises(SweepError, match="no such sweep"):
        find_source(run.info.run_id)
    done.folder.save_spec(done.spec)
    settings = done.spec.for_confirmation.config({**FOUND, "seed": 1001})
    source = find_source(run.info.run_id)
    assert source.config(done.path) == settings.model_copy(update={"checkpoint_dir": done.path})
    assert source.trial.metrics["test/nAP50"] == run.data.metrics["test/nAP50"]
    assert new_run_dir(source).name == "trial_0003-seed_1001-1"
