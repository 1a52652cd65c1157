"""What each trial cost, and when it ran on which device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import plotly.graph_objects as go

from fsdet.durations import duration
from sweeps.report.section import Figure, Section
from sweeps.report.style import AMBER, KINDS, by_kind, figure, kind_of, plain
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.wording import count, share

TITLE = "What the trials cost"
CONFIRMATION = "confirmation"
ROUND = 0.5
"""Seconds by which two stretches on one worker may overlap: times are taken in the driver."""
BREAK = 600.0
"""Seconds without any trial after which the sweep is taken to have been stopped and resumed."""


@dataclass(frozen=True)
class Stretch:
    """A time in which one trial trained, on one worker."""

    trial: ShownTrial
    kind: str
    begin: float
    end: float
    lane: int = 0
    """Number of the worker."""


def costs_section(data: SweepData) -> Section:
    """Cost per trial, the timeline, and how much of the workers' time was idle."""
    stretches = assign_lanes(stretches_of(data))
    if not stretches:
        return Section("costs", TITLE, "No trial has trained yet.")
    return Section(
        key="costs",
        title=TITLE,
        sentence=_sentence(data, stretches),
        figures=(_cost_figure(data), *([_timeline(stretches)] if data.timed else [])),
        caption=""
        if not data.timed
        else "Timeline: one row for each trial that ran at the same time, on a core or a share of a card; gaps "
        "are idle time. A trial that paused and was promoted appears more than once.",
    )


def stretches_of(data: SweepData) -> list[Stretch]:
    """All stretches of trials and of the confirmation, by their begin."""
    found = [
        Stretch(trial, kind_of(trial, data.winner), begin, end)
        for trial in data.trials
        for begin, end in trial.record.legs
    ]
    found += [
        Stretch(run, CONFIRMATION, begin, end)
        for run in data.confirmation_runs
        for begin, end in run.record.legs
    ]
    return sorted(found, key=lambda one: (one.begin, one.end))


def assign_lanes(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Each stretch on the worker that has been free for the shortest time; on a new one if none is free."""
    free: list[float] = []
    found = []
    for one in stretches:
        fitting = [lane for lane, at in enumerate(free) if at <= one.begin + ROUND]
        lane = max(fitting, key=lambda lane: free[lane]) if fitting else len(free)
        if lane == len(free):
            free.append(one.end)
        free[lane] = one.end
        found.append(Stretch(one.trial, one.kind, one.begin, one.end, lane))
    return found


def idle_of(stretches: Sequence[Stretch]) -> tuple[float, float]:
    """Seconds in which a worker had no trial, and seconds of all workers; without long breaks of the whole sweep.

    Args:
        stretches: with their workers, by their begin.
    """
    lanes = 1 + max(one.lane for one in stretches)
    busy = sum(one.end - one.begin for one in stretches)
    running, last = 0.0, stretches[0].begin
    for one in stretches:
        if one.begin - last > BREAK:
            last = one.begin
        running += max(0.0, one.end - last)
        last = max(last, one.end)
    whole = lanes * running
    return max(0.0, whole - busy), whole


def _sentence(data: SweepData, stretches: Sequence[Stretch]) -> str:
    spent: dict[str, float] = defaultdict(float)
    for one in stretches:
        spent[one.kind] += one.end - one.begin
    total = sum(spent.values())
    idle, whole = idle_of(stretches)
    lanes = 1 + max(one.lane for one in stretches)
    parts = [
        f", {share(spent[kind], total)} in {where}"
        for kind, where in (
            ("exploded", "trials that exploded"),
            (CONFIRMATION, "the confirmation"),
        )
        if spent[kind]
    ]
    trained = [t for t in data.trials if t.record.seconds]
    dearest = max(trained, key=lambda t: t.record.seconds)
    said = (
        f"{count(len(trained), 'trial')} took {duration(total)} of compute{''.join(parts)}; the dearest, "
        f"{data.name_of(dearest)}, took {duration(dearest.record.seconds)}"
    )
    if not data.timed:
        return f"{said}; when each of them ran was not recorded."
    return f"{said}; of the time of {count(lanes, 'worker')}, {share(idle, whole)} passed between trials, idle."


def _cost_figure(data: SweepData) -> Figure:
    bars = [
        go.Bar(
            x=[t.number for t in some],
            y=[t.record.seconds for t in some],
            name=kind,
            width=0.85 if len(data.trials) < 300 else 1,
            marker={"color": KINDS[kind][0], "line": {"width": 0}},
            text=[_text(data, t) for t in some],
            textposition="none",
            hovertemplate="%{text}<br>%{y:.1f} s<extra></extra>",
        )
        for kind, some in by_kind(data.trials, data.winner)
    ]
    plot = figure(
        bars,
        barmode="overlay",
        xaxis={"title": {"text": "trial"}, "showgrid": False},
        yaxis={"title": {"text": "seconds"}},
    )
    return Figure("costs", plot, "Seconds that each trial trained", 300)


def _text(data: SweepData, trial: ShownTrial) -> str:
    return f"<b>{plain(data.name_of(trial))}</b>, {trial.record.state}"


def _timeline(stretches: Sequence[Stretch]) -> Figure:
    kinds = [*KINDS, CONFIRMATION]
    bars = []
    for kind in kinds:
        some = [one for one in stretches if one.kind == kind]
        if not some:
            continue
        bars.append(
            go.Bar(
                y=[one.lane for one in some],
                base=[_clock(one.begin) for one in some],
                x=[round(1000 * (one.end - one.begin)) for one in some],
                orientation="h",
                name=kind,
                marker={"color": KINDS.get(kind, (AMBER, ""))[0], "line": {"width": 0}},
                text=[plain(one.trial.record.label) for one in some],
                textposition="none",
                customdata=[round(one.end - one.begin, 1) for one in some],
                hovertemplate="trial %{text}: %{customdata} s<extra></extra>",
            )
        )
    lanes = 1 + max(one.lane for one in stretches)
    names = [f"worker {lane + 1}" for lane in range(lanes)]
    plot = figure(
        bars,
        barmode="overlay",
        bargap=0.25,
        xaxis={"type": "date", "title": {"text": "time (UTC)"}},
        yaxis={
            "tickvals": list(range(lanes)),
            "ticktext": names,
            "showgrid": False,
            "range": [lanes - 0.4, -0.6],
        },
    )
    alt = "When each trial ran on which worker"
    return Figure("timeline", plot, alt, 130 + min(36 * lanes, 720))


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
