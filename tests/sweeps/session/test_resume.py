"""Going on with a sweep: what is compared, found again, filled in and remembered."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from conftest import small_spec, sweep
from made_up_trainers import made_up
from mlflow import MlflowClient

from sweeps.config import Objective
from sweeps.errors import SweepError
from sweeps.session.resume import check_same, check_study, recorded_reports
from sweeps.states import State
from sweeps.storage.lookup import new_folder
from sweeps.study.store import JournalStore
from sweeps.study.study import read_trials
from sweeps.trial.messages import BestValue


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"space": {"lr": {"low": 0.02, "high": 10}}}, "space.lr"),
        ({"space": {"dfl_weight": {"low": 0.1, "high": 1}}}, "space.lr, space.dfl_weight"),
        ({"fixed": {"epochs": 4, "n_episodes": 3}}, "fixed.epochs"),
        ({"objective": {"metric": "val/nAP"}}, "fixed.best_metric, objective.0"),
        ({"resources": {"cpus": 2}}, "fixed.threads"),
        ({"baselines": {"b": {"lr": 1}}}, "baselines.b"),
        ({"scheduler": {"name": "asha"}}, "scheduler.rungs"),
        (
            {"fixed": {"epochs": 3, "n_episodes": 3, "early_eval_epochs": [2]}},
            "fixed.early_eval_epochs",
        ),
    ],
)
def test_other_sweep_is_refused_with_the_keys(change, key):
    folder = new_folder("small")
    folder.save_spec(small_spec())
    with pytest.raises(SweepError, match=rf"differs from .* in {key}: ") as caught:
        check_same(small_spec(**change), folder)
    assert "\n" not in str(caught.value)


def test_budget_reduction_and_sampler_may_change():
    folder = new_folder("small")
    folder.save_spec(small_spec(scheduler={"name": "asha", "grace": 2}))
    changes = {"trials": 30, "budget": {"hours": 3}, "sampler": {"name": "random"}}
    scheduler = {"name": "asha", "grace": 2, "reduction": 3}
    check_same(small_spec(**changes, stall_minutes=3, scheduler=scheduler), folder)


def test_reports_are_read_back_from_the_trainer_s_files():
    steps = [{"step": s, "loss": s / 10} for s in range(1, 6)] + [{"step": 6, "loss": "inf"}]
    evaluations = [{"step": 2, "epoch": 1, "memory": 9, "val/nAP50": 0.1}, {"step": 4, "epoch": 2}]
    lines = "\n".join(map(json.dumps, steps)) + '\n{"step": 7, "lo'
    Path("steps.jsonl").write_text(lines)
    Path("evaluations.jsonl").write_text("\n".join(map(json.dumps, evaluations)))
    reports = list(recorded_reports(Path(), Objective()))
    assert [(r.step, r.epoch) for r in reports] == [(2, 1), (4, 2), (6, 2)]
    assert [r.metrics for r in reports] == [{"val/nAP50": 0.1}, {}, {}]
    assert [r.history["step"].tolist() for r in reports] == [[1, 2], [3, 4], [5, 6]]
    assert list(recorded_reports(Path("nowhere"), Objective())) == []


def test_the_best_epoch_is_read_back_and_the_last_evaluation_stands_for_its_epoch():
    rows = [
        {"step": step, "epoch": epoch, "val/nAP50": value}
        for step, epoch, value in ((2, 1, 0.1), (4, 2, 0.3), (6, 3, 0.2))
    ]
    last = {"step": 6, "epoch": 3, "best_epoch": 2, "val/nAP50": 0.25}
    Path("evaluations.jsonl").write_text("\n".join(map(json.dumps, [*rows, last])))
    reports = list(recorded_reports(Path(), Objective()))
    assert [(r.step, r.best) for r in reports] == [
        (2, BestValue(0.1, 1)),
        (4, BestValue(0.3, 2)),
        (6, BestValue(0.25, 2)),
    ]


def test_an_early_evaluation_is_the_best_until_the_first_full_one():
    values = (0.6, 0.9, 0.3, 0.8, 0.4)
    early = ({"early_episodes": 8}, {"early_episodes": 8}, {}, {"early_episodes": 8}, {})
    rows = [
        {"step": n, "epoch": n, **keys, "val/nAP50": value}
        for n, (value, keys) in enumerate(zip(values, early, strict=True), start=1)
    ]
    Path("evaluations.jsonl").write_text("\n".join(map(json.dumps, rows)))
    reports = list(recorded_reports(Path(), Objective()))
    assert [(r.best.value, r.best.epoch) for r in reports] == [
        *((0.6, 1), (0.9, 2)),
        *((0.3, 3), (0.3, 3), (0.4, 5)),
    ]
    assert [set(r.metrics) for r in reports] == [{"val/nAP50"}] * 5


DAMAGED = {
    "sweep.yaml": (
        b"name: [",
        r"sweep\.yaml:2: not valid YAML: .*; the file is damaged: restore it from",
    ),
    "study.journal": (
        b"[1, 2]\n",
        r"study\.journal: the study is damaged \(.*\); restore it from a backup",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_of_the_sweep_is_one_line_with_its_cure(name):
    content, message = DAMAGED[name]
    folder = new_folder("small")
    folder.save_spec(small_spec())
    (folder.path / name).write_bytes(content)

    def read() -> None:
        check_same(small_spec(), folder)
        check_study(JournalStore(folder.study_file), folder, {})

    with pytest.raises(SweepError, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["steps.jsonl", "evaluations.jsonl"])
@pytest.mark.parametrize("line", ["{", "\0\0", "[1]", '{"loss": 1}'])
def test_a_damaged_file_of_a_trial_is_told_with_its_line(name, line):
    good = '{"step": 1, "epoch": 1}'
    Path(name).write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(SweepError, match=rf"{name}:2: the file is damaged: .*delete this line"):
        list(recorded_reports(Path(), Objective()))


@pytest.mark.slow
def test_more_trials_go_on_in_the_same_study_and_run(monkeypatch):
    from rich.console import Console

    from sweeps.resources.machine import Machine
    from sweeps.session.live_display import build_display
    from sweeps.session.session import Session
    from sweeps.session.sweep import run_sweep
    from sweeps.tracking import Tracker

    first = sweep(small_spec(trials=2), made_up)
    more = small_spec(trials=3)
    printed = io.StringIO()
    display = build_display(more, Console(file=printed))
    (first.folder.trials_dir / "0001" / "steps.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    tracker = Tracker(first.uri, "sweeps")
    client = MlflowClient(first.uri)
    experiment = client.get_experiment_by_name("sweeps").experiment_id
    lost = client.search_runs([experiment], "tags.`sweep.trial` = '1'")[0]
    client.delete_run(lost.info.run_id)
    session = Session(first.folder, Machine(1, 0), tracker, made_up)
    result = run_sweep(more, session, display)
    tracker.close()
    assert [t.state for t in result.trials] == [State.COMPLETED] * 3
    assert len({str(t.parameters) for t in result.trials}) == 3
    assert read_trials(first.folder.study_file)[:2] == first.result.trials
    assert len(printed.getvalue().splitlines()) == 1
    runs = client.search_runs([experiment])
    assert {r.info.status for r in runs} == {"FINISHED"}
    by_trial = {r.data.tags.get("sweep.trial"): r for r in runs}
    assert set(by_trial) == {None, "0", "1", "2"}
    assert by_trial[None].info.run_id == first.parent
    assert len(runs) == 4
    assert by_trial["1"].data.metrics["loss"] == 2.0
