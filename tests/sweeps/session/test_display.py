"""The rows of a running sweep, and the lines printed without a terminal."""

from __future__ import annotations

import io

import pytest
from conftest import small_spec
from rich.console import Console
from session_parts import report_of

from sweeps.session.display import Display
from sweeps.session.live_display import build_display
from sweeps.states import Outcome, State
from sweeps.study.records import TrialRecord
from sweeps.trial.messages import TrialEnd, TrialRequest


def request(number: int, title: str = "") -> TrialRequest:
    config = small_spec().config({"lr": 1.0})
    return TrialRequest(number, f"{number:04d}", str(number), {"lr": 0.125}, config, title=title)


def build(terminal: bool, trials: int = 4) -> tuple[Display, io.StringIO]:
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=terminal, width=120, height=40)
    return build_display(small_spec(trials=trials), console), printed


def end(display: Display, number: int, state: State, reason: str = "") -> None:
    display.on_end(TrialEnd(request(number), Outcome(state, reason), None, 7.4, None))


def test_best_so_far_is_of_those_that_completed_or_still_can():
    display, _ = build(terminal=True)
    assert display.best() is None
    for number, value in enumerate((0.5, 0.9, 0.7, 0.95)):
        display.on_start(request(number))
        display.on_report(request(number), report_of(3, value))
    end(display, 0, State.COMPLETED)
    end(display, 1, State.PRUNED)
    end(display, 2, State.PAUSED)
    end(display, 3, State.INFEASIBLE, "step 9")
    best = display.best()
    assert best is not None
    assert best.number == 2
    assert display.latest_explosion is display.rows[3]


def test_trials_of_earlier_sessions_count_as_done():
    display, _ = build(terminal=True)
    earlier = TrialRecord(0, State.COMPLETED, {"lr": 1.0}, 0.4, best_epoch=2, seconds=5.0)
    paused = TrialRecord(2, State.PAUSED, {"lr": 3.0}, 0.2, best_epoch=1)
    interrupted = TrialRecord(1, State.INTERRUPTED, {"lr": 2.0}, 0.3)
    display.add_ended([earlier, interrupted, paused])
    assert (display.done(), display.finished(), display.earlier) == (2.0, 1, 2)


@pytest.mark.parametrize("title", ["", "before"])
def test_plain_display_prints_a_line_for_each_end(title):
    display, printed = build(terminal=False)
    with display:
        display.on_start(request(3, title))
        display.on_report(request(3), report_of(2, 0.25))
        end(display, 3, State.PRUNED, "rank 3 of 4 at epoch 2")
    name = f"3 ({title})" if title else "3"
    assert printed.getvalue() == (
        f"[1/4] trial {name} pruned (rank 3 of 4 at epoch 2), val/nAP50 0.2500 at epoch 2 "
        "of 2, 7 s: lr 0.125\n"
    )


def test_paused_trial_goes_on_in_its_own_row():
    display, printed = build(terminal=False)
    display.on_start(request(0))
    display.on_report(request(0), report_of(1, 0.25))
    end(display, 0, State.PAUSED, "at epoch 1")
    assert (display.finished(), display.counts()) == (0, "1 paused")
    display.on_start(request(0))
    assert display.counts() == "1 running"
    display.on_report(request(0), report_of(3, 0.5))
    end(display, 0, State.COMPLETED)
    assert printed.getvalue().splitlines() == [
        "[1 begun, 0 ended, of 4] trial 0 paused (at epoch 1), val/nAP50 0.2500 at epoch 1 of 1, 7 s: lr 0.125",
        "[1/4] trial 0 completed, val/nAP50 0.5000 at epoch 3 of 3, 15 s: lr 0.125",
    ]
