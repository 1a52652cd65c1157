"""A study read back: by a later driver, and by another sweep that starts from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import small_spec
from optuna.trial import TrialState
from session_parts import Driver, exploded, report_of

from sweeps.config import SweepSpec
from sweeps.states import State
from sweeps.study.records import to_records
from sweeps.study.store import JournalStore
from sweeps.study.study import baselines_left, create_study, read_trials, warm_start

FILE = Path("study.journal")


def driver(spec: SweepSpec | None = None, **changes: Any) -> Driver:
    """A session on the file of the test."""
    return Driver(spec or small_spec(**changes), JournalStore(FILE))


def test_killed_driver_s_trial_reads_as_interrupted():
    driver().start()
    assert read_trials(FILE)[0].state is State.INTERRUPTED


def test_baselines_that_a_killed_driver_did_not_begin_come_first_and_once():
    spec = small_spec(baselines={"b": {"lr": 1.0}, "c": {"lr": 2.0}}, trials=3)
    first = driver(spec)
    assert first.start().baseline == "b"
    second = driver(spec)
    assert [preset.baseline for preset in baselines_left(second.study, spec)] == ["c"]
    assert [second.start().baseline for _ in range(3)] == ["b", "c", None]
    assert [t.user_attrs.get("baseline") for t in second.study.trials] == ["b", "c", None]


def test_objectives_have_their_names_in_optuna_without_a_warning(recwarn):
    cost = {"metric": "trial/step_seconds"}
    two = small_spec(second_objective=cost, sampler={"name": "nsgaii"})
    assert driver(two).study.metric_names == ["val/nAP50", "trial/step_seconds"]
    assert [str(w.message) for w in recwarn if "metric_names" in str(w.message)] == []


def test_every_stretch_of_training_is_recorded():
    session = driver(scheduler={"name": "asha", "grace": 1, "reduction": 2}, trials=1)
    session.start()
    session.pause(0, 1, 0.4)
    session.start()
    session.end(0, report_of(3, 0.5, "final"))
    (trial,) = read_trials(FILE)
    (first_begin, first_end), (second_begin, second_end) = trial.legs
    assert first_begin <= first_end <= second_begin <= second_end
    assert trial.seconds == pytest.approx(sum(end - begin for begin, end in trial.legs), abs=0.05)


def test_warm_start_takes_what_was_learnt_within_the_space_and_counts_nothing():
    wide = small_spec(baselines={str(lr): {"lr": lr} for lr in (0.5, 1.0, 5.0, 9.0)}, trials=4)
    first = driver(wide)
    for _ in range(4):
        first.start()
    first.end(0, report_of(1, 0.5, "final"))
    first.end(1, exploded(1))
    first.end(2, report_of(1, 0.1, "failed"))
    first.end(3, report_of(1, 0.9, "final"))
    narrow = small_spec(space={"lr": {"low": 0.1, "high": 2}}, trials=3)
    study = create_study(JournalStore(Path("new")), narrow, optuna.samplers.RandomSampler())
    assert warm_start(study, narrow, "wide", JournalStore(FILE)) == 2
    assert warm_start(study, narrow, "wide", JournalStore(FILE)) == 2
    assert [(t.params["lr"], t.state) for t in study.trials] == [
        (0.5, TrialState.COMPLETE),
        (1.0, TrialState.PRUNED),
    ]
    assert to_records(study.trials) == []
