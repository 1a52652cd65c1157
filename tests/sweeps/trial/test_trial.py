"""What a trial sends, for each way that a training can go."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import small_spec
from made_up_trainers import made_up, report_of
from trial_requests import context_for, request_for

from fsdet.config import TrainConfig
from fsdet.report import Report, Result
from sweeps.states import State
from sweeps.trial.messages import TrialReport, outcome_of
from sweeps.trial.trial import Train, run_trial


def sent(lr: float, train: Train = made_up) -> list[TrialReport]:
    """The reports of a trial with this `lr`."""
    reports: list[TrialReport] = []
    spec = small_spec()
    context = context_for(spec, Path.cwd() / "trials")
    run_trial(context, request_for(spec, {"lr": lr}, 3), reports.append, train)
    return reports


def best_values(reports: list[TrialReport]) -> list[tuple[float | None, int]]:
    """Value and epoch of the best so far, in each report."""
    return [(r.best.value, r.best.epoch) for r in reports if r.best is not None]


def test_objective_is_the_best_value_so_far():
    reports = sent(0.5)  # falls by 0.01 an epoch
    assert [r.objective for r in reports] == [0.49, 0.49, 0.49]
    # at last the best epoch's
    assert [r.metrics["val/nAP50"] for r in reports] == [0.49, 0.48, 0.49]
    assert best_values(reports) == [(0.49, 1)] * 3
    assert [r.phase for r in reports] == ["running", "running", "final"]


def test_files_go_to_the_trial_s_folder(in_own_folder):
    sent(0.5)
    assert (in_own_folder / "trials" / "0003" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("lr", "state", "reason"),
    [
        (0.5, State.COMPLETED, ""),
        (3, State.INFEASIBLE, "norm_ceiling in scs_fusion"),
        (8, State.INFEASIBLE, "norm_ceiling"),
        (4, State.FAILED, "RuntimeError: no such luck"),
        (5, State.FAILED, "val/nAP50 is nan at epoch 1"),
        (7, State.FAILED, "without a final report"),
    ],
)
def test_last_report_tells_the_end(lr, state, reason):
    last = sent(lr)[-1]
    outcome = outcome_of(last)
    assert outcome.state is state
    assert reason in outcome.reason
    assert (last.objective is not None) == (state is State.COMPLETED)


def last_evaluation_is_worse(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,
    until: int | None = None,
) -> Result:
    """Two epochs, of which the first is the better one, and a last evaluation on harder episodes of another split."""
    assert on_report is not None
    first, second = report_of(config, 1, 0.5), report_of(config, 2, 0.4)
    final = {"test/nAP50": 0.45, "test/nAP50_se": 0.01, "test/swap_gap": 0.3, "val/x": math.nan}
    on_report(first)
    on_report(replace(second, phase="final", best=first.best, final=final))
    return Result(final, 6, None, None, config.checkpoint_dir, 1)


def test_the_value_of_a_trial_is_that_of_the_last_evaluation_of_its_best_epoch():
    running, last = sent(0.5, last_evaluation_is_worse)
    assert best_values([running, last]) == [(0.5, 1), (0.45, 1)]
    assert last.best is not None
    assert last.best.standard_error == 0.01
    assert last.objective == 0.5  # what the scheduler compares is measured alike at every epoch
    assert last.metrics == last.best.metrics
    assert last.metrics == {"test/nAP50": 0.45, "test/nAP50_se": 0.01, "test/swap_gap": 0.3}
