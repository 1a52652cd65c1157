"""The rule for DFL on made-up steps, and on real runs whose targets are absolute image coordinates."""

import math
from pathlib import Path

import pytest
from made_up_runs import changed, evaluation, report, status, wobble
from trainings import ABSOLUTE, CLAMPED, RIGHT, train_dfl

from fsdet.health.checklist import (
    HealthReport,
)


def no_norm_rule_sees(report: HealthReport) -> bool:
    names = ("explosion", "finite", "gradient_norm", "dead_tensors", "clipping", "positives")
    return not any(report.check(name).status == "fail" for name in names)


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
def test_absolute_targets_fail_the_report_and_right_ones_pass_it(tmp_path):
    right = train_dfl(RIGHT, tmp_path / "right", seed=1)
    wrong = train_dfl(ABSOLUTE, tmp_path / "wrong", seed=1)
    assert right.check("dfl_falls").status == "pass"
    assert not right.failed
    assert no_norm_rule_sees(wrong)
    assert wrong.check("dfl_falls").status == "fail"
    assert "targets are not distances from the anchor point" in wrong.verdict
    assert wrong.check("dfl").value > 2 * right.check("dfl").value
    assert wrong.check("ap").value < right.check("ap").value - 0.05


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
def test_absolute_targets_behind_a_clamp_fail_the_report(tmp_path):
    report = train_dfl(CLAMPED, tmp_path / "clamped", seed=1)
    assert no_norm_rule_sees(report)
    assert report.check("dfl_falls").status == "fail"
    assert "does not change" in report.verdict


@pytest.mark.parametrize(
    ("dfl", "expected", "words"),
    [
        (lambda n: 2.9 - 1.9 * min(1, n / 150) + wobble(n), "pass", "36% of the uniform 2.77"),
        (lambda n: 0.7 + wobble(n), "pass", "25% of the uniform"),  # an earlier stage learned it
        (lambda n: 1.7 + wobble(n), "pass", "61% of the uniform"),
        (lambda n: 2.0 + wobble(n), "fail", "though boxes are found (AP50 0.40)"),
        (lambda n: 3.0 + 10 / n, "fail", "not distances from the anchor point"),
        (lambda n: 2.5 + 0 * n, "fail", "does not change"),  # held by a clamp
        (lambda n: 2.5 - (n % 3 > 0) * (1 + wobble(n)), "fail", "does not change"),  # by a ceiling
        (
            lambda n: 2.0 + (n % 3 > 0) * (1 + wobble(n)),
            "fail",
            "33% of the later values are equal",
        ),
    ],
)
def test_dfl_is_to_come_down(dfl, expected, words):
    found = report(changed(200, train__loss__dfl=dfl)).check("dfl_falls")
    assert found.status == expected
    assert words in found.message


def test_a_clamp_that_holds_a_part_of_the_steps_is_seen_and_a_chance_pair_is_not():
    held = changed(100, train__loss__dfl=lambda n: 2.5 if n % 5 < 2 else 2.4 + wobble(n))
    pair = changed(100, train__loss__dfl=lambda n: 1.0 + wobble(n - n % 2))
    assert "40% of the later values are equal" in report(held).check("dfl_falls").message
    assert status("dfl_falls", pair) == "pass"


def test_values_that_crowd_below_a_ceiling_are_seen_without_being_equal():
    """A clamp of each anchor point: few steps are held altogether, and those the least that are."""
    crowded = changed(
        100, train__loss__dfl=lambda n: 2.5 - 0.1 * abs(math.sin(n)) ** 6 - 1e-3 * (n % 7)
    )
    skewed = changed(
        100, train__loss__dfl=lambda n: 1.0 + 0.1 * abs(math.sin(n)) ** 6 + 1e-3 * (n % 7)
    )
    assert "close below a ceiling" in report(crowded).check("dfl_falls").message
    assert status("dfl_falls", skewed) == "pass"


def test_steps_without_positives_say_nothing_of_dfl():
    def empty(n: int) -> bool:
        return n % 3 == 0

    rows = changed(
        150,
        train__loss__dfl=lambda n: 0.0 if empty(n) else 0.9 + wobble(n),
        train__positives=lambda n: 0.0 if empty(n) else 40.0,
    )
    found = report(rows).check("dfl_falls")
    assert (found.status, found.value) == ("pass", pytest.approx(0.9, abs=0.01))
    assert "before 100 steps with positives" in report(rows[:148]).check("dfl_falls").message


def test_high_dfl_without_boxes_fails_only_when_it_is_worse_than_untrained_or_late():
    slow = changed(1000, train__loss__dfl=lambda n: 2.6 - n / 5000 + wobble(n))
    worse = changed(200, train__loss__dfl=lambda n: 3.1 + wobble(n))
    nothing = [evaluation(200, 0.05)]
    assert status("dfl_falls", slow[:200], nothing) == "warn"
    assert status("dfl_falls", slow[:300], nothing, resume=Path("stage1.pt")) == "fail"
    assert status("dfl_falls", slow[:999], nothing) == "warn"
    assert status("dfl_falls", slow, nothing) == "fail"
    assert status("dfl_falls", worse, nothing) == "fail"


def test_uniform_depends_on_the_number_of_bins():
    rows = changed(200, train__loss__dfl=lambda n: 2.2 + wobble(n))
    assert status("dfl_falls", rows, reg_max=16) == "fail"
    assert status("dfl_falls", rows, reg_max=32) == "pass"
