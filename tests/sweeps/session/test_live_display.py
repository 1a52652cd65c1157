"""The live table of a running sweep, as it is drawn on terminals of several sizes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import small_spec
from rich.console import Console
from session_parts import exploded, report_of

from sweeps.config import SweepSpec
from sweeps.session.display import Display, PlainDisplay
from sweeps.session.live_display import LiveDisplay, build_display
from sweeps.states import Outcome, State
from sweeps.trial.messages import TrialEnd, TrialRequest

SETTINGS = ("lr", "dfl_weight", "gradient_clip_norm", "support_encoder_lr_mult", "head_lr_mult")


def request(
    number: int, title: str = "", folder: Path | None = None, **settings: float
) -> TrialRequest:
    config = small_spec(fixed={"epochs": 3, "n_episodes": 64}).config(
        {"lr": 1.0}, folder or Path("none")
    )
    parameters = settings or {"lr": 0.125}
    return TrialRequest(number, f"{number:04d}", str(number), parameters, config, title=title)


def build(width: int = 120, height: int = 40, **changes: Any) -> LiveDisplay:
    spec: SweepSpec = small_spec(**{"trials": 4, **changes})
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    display = build_display(spec, console)
    assert isinstance(display, LiveDisplay)
    return display


def end(display: Display, number: int, state: State, reason: str = "") -> None:
    display.on_end(TrialEnd(request(number), Outcome(state, reason), None, 7.4, None))


def drawn(display: LiveDisplay) -> list[str]:
    """The live table as text."""
    console = display.console
    out = Console(file=io.StringIO(), width=console.width)
    with out.capture() as capture:
        out.print(display.render())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_kind_follows_the_console():
    assert isinstance(build(), LiveDisplay)
    plain = build_display(small_spec(), Console(file=io.StringIO()))
    assert type(plain) is PlainDisplay


def test_every_trial_has_its_state_and_what_was_retried_is_marked():
    display = build()
    for number, title in enumerate(("before", "", "")):
        display.on_start(request(number, title))
    display.on_report(request(0), report_of(2, 0.25, peak_norm=123.4))
    display.on_retry(request(1))
    display.on_report(request(2), exploded(1, peak_norm=1e6))
    end(display, 2, State.INFEASIBLE, "step 9, norm_ratio in backbone: 1e6")
    lines = drawn(display)
    assert lines[0].split() == [
        "trial",
        "state",
        "epoch",
        "val/nAP50",
        "norm",
        "peak",
        "norm",
        "lr",
    ]
    assert lines[1].split() == ["0", "(before)", "★", "running", "2.0/3", "0.2500", "123", "0.125"]
    assert lines[2].split() == ["1", "running", "(retried)", "0.0/3", "-", "-", "0.125"]
    assert lines[3].split() == ["2", "infeasible", "1/3", "-", "1e+06", "0.125"]
    assert lines[4] == "2 running, 1 infeasible"
    assert lines[5] == "exploded: trial 2, step 9, norm_ratio in backbone: 1e6"
    assert "1.7 of 4 trials, 0 s, about 0 s left" in lines[6]


def test_progress_within_an_epoch_comes_from_the_folder_of_the_trial(tmp_path):
    display = build()
    display.on_start(request(0, folder=tmp_path))
    per_epoch = display.rows[0].steps_per_epoch
    assert per_epoch > 1
    rows = [{"step": n + 1, "grad/norm": 10.0**n} for n in range(per_epoch - 1)]
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    display.follow()
    shown = drawn(display)[1].split()
    assert shown[2] == f"{(per_epoch - 1) / per_epoch:.1f}/3"
    assert shown[4][0] == "▁"
    assert display.done() == pytest.approx((per_epoch - 1) / per_epoch / 3)


@pytest.mark.parametrize(("width", "settings"), [(60, 0), (80, 2), (120, 5)])
def test_state_trial_and_metric_never_shrink_and_settings_go_first(width, settings):
    display = build(width)
    values = dict.fromkeys(SETTINGS, 0.0123)
    display.on_start(request(0, "before", **values))
    display.on_report(request(0), report_of(2, 0.25, peak_norm=123.4))
    display.on_start(request(1, **values))
    end(display, 1, State.INFEASIBLE, "step 9, norm_ratio in backbone: " + 20 * "much too long ")
    lines = drawn(display)
    assert all(len(line) <= width for line in lines)
    best, other = (line for line in lines if "0.2500" in line or "infeasible  " in line)
    assert best.startswith("0 (before) ★  running")
    assert other.startswith("1             infeasible")
    assert best.count("0.0123") == settings
    hidden = f"{len(SETTINGS) - settings} settings do not fit"
    assert any(hidden in line for line in lines) == (settings < len(SETTINGS))


@pytest.mark.parametrize("height", [12, 40])
def test_it_keeps_to_the_height_of_the_terminal_and_shows_the_running_ones(height):
    display = build(height=height, trials=99)
    display.on_start(request(0))
    display.on_report(request(0), report_of(1, 0.5))
    for number in range(1, 80):
        display.on_start(request(number))
        if number != 3:
            end(display, number, State.INFEASIBLE, "step 9")
    lines = drawn(display)
    assert len(lines) == height - 1
    assert lines[1].startswith("0 ★")
    assert lines[2].startswith("3  ")
    assert lines[-4].startswith("79 ")


def test_promoted_trial_is_shown_and_takes_nothing_from_what_is_done():
    display = build(trials=99)
    for number in range(80):
        display.on_start(request(number))
        display.on_report(request(number), report_of(1, 0.25))
        end(display, number, State.PAUSED, "at epoch 1")
    assert display.done() == 80
    display.on_start(request(2))
    assert display.done() == 80
    assert drawn(display)[2].split()[:2] == ["2", "running"]


def test_a_message_of_the_session_becomes_a_line_of_the_table(capfd):
    display = build()
    with display:
        display.show_message("stopping; once more leaves at once")
        assert "stopping; once more leaves at once" in drawn(display)
        assert capfd.readouterr().err == ""
        display.show_message("leaving at once")
        assert "leaving at once" in capfd.readouterr().err
