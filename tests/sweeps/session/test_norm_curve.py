"""The bars of a trial's gradient norm, and how its file is followed while it grows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fsdet.report import STEPS_FILE
from sweeps.session.norm_curve import WIDTH, NormCurve, StepTail


def curve_of(norms: list[float]) -> NormCurve:
    curve = NormCurve()
    for step, norm in enumerate(norms, 1):
        curve.add(step, norm)
    return curve


def test_one_bar_a_step_until_there_are_too_many():
    assert str(curve_of([1, 10, 100])) == "▁▅█"
    assert str(NormCurve()) == ""
    assert len(str(curve_of([1.0] * WIDTH))) == WIDTH
    assert len(str(curve_of([1.0] * (WIDTH + 1)))) == WIDTH // 2 + 1


def test_a_spike_of_one_step_survives_in_a_long_run():
    norms = [1.0] * 100_000
    norms[43_210] = 1e4
    bars = str(curve_of(norms))
    assert bars.count("█") == 1
    assert set(bars) == {"▁", "█"}
    assert curve_of(norms).peak == 1e4


def test_small_changes_look_small_and_what_is_not_finite_is_marked():
    assert set(str(curve_of([1.0, 1.1, 1.2]))) == {"▁"}
    curve = curve_of([1.0, math.nan, math.inf, 0.0])
    assert str(curve) == "█××▁"
    assert curve.peak == 1.0


def test_reports_and_the_file_may_both_bring_a_step():
    curve = curve_of([1, 10, 100])
    curve.add_history({"step": np.array([1.0, 2, 3]), "grad/norm": np.array([1.0, 10, 100])})
    assert (str(curve), curve.step) == ("▁▅█", 3)
    curve.add_history({})
    assert curve.step == 3


def line(step: int, norm: float | str) -> str:
    return json.dumps({"step": step, "grad/norm": norm}) + "\n"


def test_only_complete_new_lines_are_read(tmp_path):
    tail, path = StepTail(tmp_path), tmp_path / STEPS_FILE
    assert list(tail.read()) == []
    path.write_text(line(1, 2.5) + line(2, "inf") + '{"step": 3')
    assert list(tail.read()) == [(1, 2.5), (2, math.inf)]
    path.write_text(line(1, 2.5) + line(2, "inf") + line(3, 4.0))
    assert list(tail.read()) == [(3, 4.0)]
    assert list(tail.read()) == []


def test_a_file_that_was_cut_by_a_resumed_trial_is_read_again(tmp_path):
    tail, path = StepTail(tmp_path), tmp_path / STEPS_FILE
    path.write_text("".join(line(n, 1.0) for n in range(1, 9)))
    assert len(list(tail.read())) == 8
    path.write_text("".join(line(n, 1.0) for n in range(1, 5)))
    assert [step for step, _ in tail.read()] == [1, 2, 3, 4]


@pytest.mark.parametrize("most", [100, 1000])
def test_of_a_long_file_the_latest_steps_are_read(tmp_path: Path, monkeypatch, most):
    monkeypatch.setattr("sweeps.session.norm_curve.MOST_UNREAD", most)
    (tmp_path / STEPS_FILE).write_text("".join(line(n, 1.0) for n in range(1, 1001)))
    steps = [step for step, _ in StepTail(tmp_path).read()]
    assert steps[-1] == 1000
    assert 1 <= len(steps) < most / 25
