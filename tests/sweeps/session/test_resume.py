"""Going on with a sweep: what is compared, found again, filled in and remembered."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import small_spec, sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_trainers import made_up
from mlflow import MlflowClient

from fsdet.checkpoint import save_checkpoint
from fsdet.config import TrainConfig
from sweeps.config import Objective
from sweeps.errors import SweepError
from sweeps.ray_tune.schedulers import REQUEST, build_scheduler, restore_rungs
from sweeps.session.resume import check_same, recorded_reports
from sweeps.states import State
from sweeps.storage.folder import new_folder
from sweeps.study.study import read_trials
from sweeps.trial.identity import newest_checkpoint
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
    ],
)
def test_other_sweep_is_refused_with_the_keys(change, key):
    folder = new_folder("small")
    folder.save_spec(small_spec())
    with pytest.raises(SweepError, match=rf"differs from .* in {key}: ") as caught:
        check_same(small_spec(**change), folder)
    assert "\n" not in str(caught.value)


def test_budget_scheduler_and_sampler_may_change():
    folder = new_folder("small")
    folder.save_spec(small_spec())
    changes = {"trials": 30, "budget": {"hours": 3}, "sampler": {"name": "random"}}
    check_same(small_spec(**changes, stall_minutes=3, scheduler={"name": "asha"}), folder)


def checkpoint(path: Path, **changes: Any) -> Path:
    """One of the trainer's, of a trial with `changes`."""
    save_checkpoint(path, {"weights": torch.arange(5000)}, TrainConfig(**changes))
    return path


def newest(folder: Path, **changes: Any) -> tuple[Path | None, list[str]]:
    """The checkpoint that a trial with `changes` goes on from, and what it says of the others."""
    told: list[str] = []
    config = TrainConfig(checkpoint_dir=folder, **changes)
    return newest_checkpoint(config, told.append), told


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_damaged_newest_checkpoint_falls_back_to_the_one_before(damage):
    for epoch in (1, 2, 10):
        checkpoint(Path(f"stage2_epoch{epoch:04d}.pt"))
    last = Path("stage2_epoch0010.pt")
    assert newest(Path()) == (last, [])
    data = bytearray(last.read_bytes())
    data[20000] ^= 1
    content = {"cut": data[:20000], "flipped": data, "empty": b"", "text": b"hello"}[damage]
    last.write_bytes(content)
    found, (told,) = newest(Path())
    assert found == Path("stage2_epoch0002.pt")
    assert "stage2_epoch0010.pt is damaged" in told
    assert newest(Path("nowhere")) == (None, [])


def test_checkpoint_of_other_settings_falls_back_to_the_one_before():
    own = checkpoint(Path("stage2_epoch0001.pt"), lr=0.2, checkpoint_dir="elsewhere", device="cpu")
    checkpoint(Path("stage2_epoch0002.pt"), lr=0.5)
    torch.save({"weights": torch.arange(9)}, "stage2_epoch0003.pt")
    found, told = newest(Path(), lr=0.2)
    assert found == own
    assert "stage2_epoch0003.pt does not say which settings made it" in told[0]
    assert "stage2_epoch0002.pt was made with lr 0.5, but this trial has 0.2" in told[1]
    assert "move it back and resume" in told[1]
    assert sorted(p.name for p in Path().iterdir())[1:] == [
        "stage2_epoch0002.foreign",
        "stage2_epoch0003.foreign",
    ]


def test_checkpoint_of_another_node_is_the_trial_s_though_it_found_the_files_elsewhere():
    path = checkpoint(Path("stage2_epoch0001.pt"), resume="/there/files/1f-a.pt")
    assert newest(Path(), resume="/here/files/1f-a.pt") == (path, [])
    assert newest(Path(), resume="/here/files/2e-b.pt")[0] is None


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


def stub(number: int, trial_id: str) -> SimpleNamespace:
    request = SimpleNamespace(number=number, baseline=None)
    return SimpleNamespace(trial_id=trial_id, config={REQUEST: request})


curves = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=9), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(curves, curves, st.sampled_from(["asha", "hyperband"]))
def test_rungs_decide_after_a_resume_as_before(before, after, name):
    """One scheduler sees all; the other is built anew between `before` and `after`.

    The last trial of `before` is cut off in its middle and goes on under another id.
    """
    spec = small_spec(scheduler={"name": name, "grace": 1, "reduction": 2}, fixed={"epochs": 9})
    whole, first, second = (build_scheduler(spec) for _ in range(3))

    def feed(scheduler: Any, trial: Any, values: list[float], start: int = 1) -> list[str]:
        decisions = []
        for epoch, value in enumerate(values, start):
            if epoch < 9:
                result = {"epoch": epoch, "objective": value}
                decisions.append(scheduler.on_trial_result(None, trial, result))
        return decisions

    half = (len(before[-1]) + 1) // 2
    for number, values in enumerate(before):
        for scheduler in (whole, first):
            scheduler.on_trial_add(None, stub(number, f"t{number}"))
        last = number == len(before) - 1
        feed(whole, stub(number, f"t{number}"), values[:half] if last else values)
    known = [*before[:-1], before[-1][:half]]
    restore_rungs(second, {n: dict(enumerate(values, 1)) for n, values in enumerate(known)})
    again = stub(len(before) - 1, "another id")
    second.on_trial_add(None, again)

    rest = before[-1][half - 1 :]  # the epoch of the checkpoint is reported again
    old = stub(len(before) - 1, f"t{len(before) - 1}")
    assert feed(whole, old, rest, half) == feed(second, again, rest, half)
    for number, values in enumerate(after, len(before)):
        for scheduler in (whole, second):
            scheduler.on_trial_add(None, stub(number, f"t{number}"))
        trial = stub(number, f"t{number}")
        assert feed(whole, trial, values) == feed(second, trial, values)


@pytest.mark.slow
def test_more_trials_go_on_in_the_same_study_and_run(monkeypatch):
    from rich.console import Console

    from sweeps.resources.machine import Machine
    from sweeps.session.display import build_display
    from sweeps.session.session import Session
    from sweeps.session.sweep import run_sweep
    from sweeps.tracking import Tracker

    first = sweep(small_spec(trials=2), made_up)
    more = small_spec(trials=3)
    printed = io.StringIO()
    display = build_display(more, Console(file=printed))
    (first.folder.trials / "0001" / "steps.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
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
    assert read_trials(first.folder.study)[:2] == first.result.trials
    assert len(printed.getvalue().splitlines()) == 1
    runs = client.search_runs([experiment])
    assert {r.info.status for r in runs} == {"FINISHED"}
    by_trial = {r.data.tags.get("sweep.trial"): r for r in runs}
    assert set(by_trial) == {None, "0", "1", "2"}
    assert by_trial[None].info.run_id == first.parent
    assert len(runs) == 4
    assert by_trial["1"].data.metrics["loss"] == 2.0
