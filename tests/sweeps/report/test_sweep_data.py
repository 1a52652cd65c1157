"""What a report reads of a sweep that was really run."""

from __future__ import annotations

import shutil

import pytest
from conftest import small_spec, sweep
from made_up_trainers import STEPS, made_up

from sweeps.errors import SweepError
from sweeps.report.sweep_data import ShownTrial, read_sweep
from sweeps.states import State
from sweeps.storage.lookup import new_folder
from sweeps.study.location import JOURNAL
from sweeps.study.records import TrialRecord

pytestmark = pytest.mark.slow
BASELINES = {"good": {"lr": 1.0}, "explodes": {"lr": 3.0}}


def test_trials_have_their_curve_steps_and_times():
    swept = sweep(small_spec(baselines=BASELINES, trials=3), made_up)
    read = []

    def watch(trials):
        for trial in trials:
            read.append(trial.number)
            yield trial

    data = read_sweep(swept.folder, watch)
    assert read == [0, 1, 2]
    assert data.timed
    good, exploded, _ = data.trials
    assert [data.name_of(t) for t in data.trials] == [
        "baseline good",
        "baseline explodes",
        "trial 2",
    ]
    assert sorted(good.curve) == [1, 2, 3]
    assert good.series is not None
    assert len(good.series.steps) == 3 * STEPS
    assert good.config is not None
    assert good.config.lr == 1.0
    assert exploded.explosion is not None
    found = exploded.explosion
    assert (found.step, found.rule, found.module) == (2 * STEPS, "norm_ceiling", "scs_fusion")
    assert exploded.series is not None
    assert exploded.series.nonfinite == 1
    assert data.judged == list(data.trials)
    assert data.resume.endswith("--name small")


def test_a_sweep_without_times_is_shown_without_them():
    """As sweeps of earlier versions, whose trials have no stretches."""
    swept = sweep(small_spec(), made_up)
    journal = swept.folder.study_file
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if '"legs"' not in line))
    data = read_sweep(swept.folder)
    assert not data.timed
    ((begin, end),) = data.trials[0].record.legs
    assert end - begin == pytest.approx(data.trials[0].record.seconds)


def test_trials_that_lost_their_files_are_shown_without_steps():
    swept = sweep(small_spec(), made_up)
    shutil.rmtree(swept.folder.trials_dir)
    data = read_sweep(swept.folder)
    assert [t.series for t in data.trials] == [None, None]
    assert data.best is not None


def test_a_sweep_that_never_began_is_a_mistake():
    folder = new_folder("small")
    folder.save_spec(small_spec())
    folder.update_record(study=JOURNAL)
    with pytest.raises(SweepError, match="no study there"):
        read_sweep(folder)


def test_a_reason_of_another_form_has_no_place():
    record = TrialRecord(0, State.INFEASIBLE, {}, reason="it just did")
    assert ShownTrial(record, {}).explosion is None
