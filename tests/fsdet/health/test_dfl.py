"""The bug that the health report was made for: DFL taught absolute image coordinates."""

from pathlib import Path

import pytest
from trainings import ABSOLUTE, CLAMPED, RIGHT, train_dfl

from fsdet.health.checklist import HealthReport

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_data")]


def no_norm_rule_sees(report: HealthReport) -> bool:
    names = ("explosion", "finite", "gradient_norm", "dead_tensors", "clipping", "positives")
    return not any(report.check(name).status == "fail" for name in names)


def test_absolute_targets_fail_the_report_and_right_ones_pass_it(tmp_path: Path):
    right = train_dfl(RIGHT, tmp_path / "right", seed=1)
    wrong = train_dfl(ABSOLUTE, tmp_path / "wrong", seed=1)
    assert right.check("dfl_falls").status == "pass"
    assert not right.failed
    assert no_norm_rule_sees(wrong)
    assert wrong.check("dfl_falls").status == "fail"
    assert "targets are not distances from the anchor point" in wrong.verdict
    assert wrong.check("dfl").value > 2 * right.check("dfl").value
    assert wrong.check("ap").value < right.check("ap").value - 0.05


def test_absolute_targets_behind_a_clamp_fail_the_report(tmp_path: Path):
    report = train_dfl(CLAMPED, tmp_path / "clamped", seed=1)
    assert no_norm_rule_sees(report)
    assert report.check("dfl_falls").status == "fail"
    assert "does not change" in report.verdict
