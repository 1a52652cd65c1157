"""What stays on the screen at the end: the five best, the baselines, why trials exploded."""

from __future__ import annotations

import io

import pytest
from conftest import small_spec
from rich.console import Console
from rich.text import Text

from sweeps.session.result_table import explosion_lines, print_results
from sweeps.states import State
from sweeps.study.records import Preset, TrialRecord

MANY = ("lr", "dfl_weight", "gradient_clip_norm", "support_encoder_lr_mult", "head_lr_mult")
SPEC = small_spec(
    space={key: {"low": 0.1, "high": 10} for key in MANY},
    baselines={"before": dict.fromkeys(MANY, 1.0), "after": dict.fromkeys(MANY, 2.0)},
)


def trial(number: int, state: State, value: float | None = None, **more: object) -> TrialRecord:
    settings = dict.fromkeys(MANY, 0.0123)
    return TrialRecord(number, state, settings, value, 0.01, 3, **more)  # type: ignore[arg-type]


TRIALS = [
    trial(0, State.COMPLETED, 0.1, baseline="before", preset=Preset({}, "before")),
    trial(1, State.COMPLETED, 0.55, baseline="after", preset=Preset({}, "after")),
    *(trial(2 + n, State.COMPLETED, 0.2 + n / 10) for n in range(6)),
    trial(8, State.INFEASIBLE, reason="step 8, norm_ratio in backbone: 1e6 is too much"),
    trial(9, State.PRUNED, 0.05, reason="rank 7 of 9"),
    trial(10, State.INFEASIBLE, reason="step 41, norm_ratio in backbone: 1e7 is too much"),
    trial(11, State.INFEASIBLE, reason="step 3, non_finite in detection_head: the loss is nan"),
]


def printed(width: int, terminal: bool, everything: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, no_color=True)
    print_results(console, SPEC, TRIALS, everything)
    return [line.rstrip() for line in Text.from_ansi(out.getvalue()).plain.splitlines()]


def test_five_best_then_the_baselines_that_are_not_among_them():
    lines = printed(200, terminal=False)
    firsts = [line.split("  ")[0] for line in lines[1:]]
    assert firsts == ["best", "2", "3, after", "4", "5", "before"]
    found = [line[8:].split()[0] for line in lines[1:]]
    assert found == ["7", "6", "1", "5", "4", "0"]
    assert "support encoder lr" in lines[0]


@pytest.mark.parametrize(("width", "settings"), [(60, 0), (80, 3), (120, 5)])
def test_on_a_terminal_settings_that_do_not_fit_stand_below(width, settings):
    lines = printed(width, terminal=True)
    row = next(line for line in lines if line.startswith("best"))
    assert row.count("0.0123") == settings
    below = [line for line in lines if line.startswith("  settings of the best: lr 0.0123, ")]
    assert len(below) == (settings < 5)
    assert all(len(line) <= width for line in lines if line not in below)


def test_all_shows_every_trial_with_its_reason():
    lines = printed(200, terminal=False, everything=True)
    assert len(lines) == 1 + len(TRIALS)
    assert lines[0].endswith("reason")
    assert [line for line in lines if line.endswith("step 41, norm_ratio in backbone")]
    assert lines[1].startswith("best ")


def test_explosions_are_counted_by_rule_and_module():
    assert explosion_lines(TRIALS) == [
        "exploded by norm_ratio in backbone, at steps 8 to 41: 2 trials: 8, 10",
        "exploded by non_finite in detection_head, at step 3: trial 11",
    ]
    assert explosion_lines(TRIALS[:3]) == []
    kinds = [trial(n, State.INFEASIBLE, reason=f"step 1, rule {n} in m: x") for n in range(6)]
    assert explosion_lines(kinds)[-1] == "exploded otherwise: 2 more kinds, see --all"
