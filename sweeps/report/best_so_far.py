"""Best so far over compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from fsdet.durations import duration
from sweeps.report.section import Figure, Section
from sweeps.report.style import GREEN, KINDS, figure, markers, plain
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.wording import settings_of, share
from sweeps.states import State


def best_section(data: SweepData) -> Section:
    """How the best value grew with compute."""
    title = "Best so far over compute"
    spent = compute_at_ends(data.trials)
    steps = records_of(data, spent)
    if not steps:
        return Section("best", title, "No trial has completed, so there is no best value yet.")
    total = sum(end - begin for t in data.trials for begin, end in t.record.legs)
    return Section(
        key="best",
        title=title,
        sentence=_sentence(data, steps, total),
        figures=(_figure(data, spent, steps, total),),
        caption="Compute is the time of all workers together, in which a trial trained. Only completed trials count "
        "as a best; open circles are trials that were paused or pruned, at their last value.",
    )


def compute_at_ends(trials: Sequence[ShownTrial]) -> dict[int, float]:
    """Number of a trial -> seconds that all workers together had trained when it ended."""
    legs = [leg for trial in trials for leg in trial.record.legs]
    begins, ends = (np.array([leg[i] for leg in legs]) for i in (0, 1))
    return {
        t.number: float(np.clip(t.record.legs[-1][1] - begins, 0, ends - begins).sum())
        for t in trials
        if t.record.legs
    }


def records_of(data: SweepData, spent: dict[int, float]) -> list[tuple[float, ShownTrial]]:
    """Compute and trial of each new best value, in order."""
    sign, found = data.spec.objective.sign, list[tuple[float, ShownTrial]]()
    done = [
        t
        for t in data.trials
        if t.record.state is State.COMPLETED and t.record.value is not None and t.number in spent
    ]
    for trial in sorted(done, key=lambda t: spent[t.number]):
        value, best = trial.record.value, found[-1][1].record.value if found else None
        assert value is not None
        if best is None or sign * value > sign * best:
            found.append((spent[trial.number], trial))
    return found


def _sentence(data: SweepData, steps: list[tuple[float, ShownTrial]], total: float) -> str:
    at, best = steps[-1]
    value = best.record.value
    assert value is not None
    found = (
        f"The best value, {value:.4f} of {data.name_of(best)}, was there after {duration(at)} of {duration(total)} "
        f"of compute ({share(at, total)})"
    )
    half = [t for when, t in steps if when <= total / 2]
    if not half:
        return f"{found}; in the first half no trial had completed."
    before = half[-1].record.value
    assert before is not None
    gain = abs(value - before)
    error = best.record.standard_error
    if gain == 0:
        return f"{found}; the second half of the compute found nothing better."
    noise = "" if error is None or gain > 2 * error else ", which is within its noise"
    return f"{found}; the second half of the compute improved it by {gain:.4f}{noise}."


def _figure(
    data: SweepData,
    spent: dict[int, float],
    steps: list[tuple[float, ShownTrial]],
    total: float,
) -> Figure:
    unit, name = (60.0, "min") if total < 7200 else (3600.0, "h")
    metric = data.spec.objective.metric

    def at(trial: ShownTrial) -> float:
        return spent[trial.number] / unit

    def value(trial: ShownTrial) -> float | None:
        return trial.record.value if trial.record.value is not None else None

    def text(trial: ShownTrial) -> str:
        record = trial.record
        reached = "" if record.value is None else f" {record.value:.4f}"
        return plain(
            f"{data.name_of(trial)}, {record.state}:{reached} · {settings_of(trial)}"
        ).replace(" · ", "<br>")

    shown = [t for t in data.trials if t.number in spent and t.record.value is not None]
    best = steps[-1][1]
    line = go.Scatter(
        x=[*(when / unit for when, _ in steps), total / unit],
        y=[*(t.record.value for _, t in steps), best.record.value],
        mode="lines",
        line={"shape": "hv", "width": 2.5, "color": GREEN},
        name="best so far",
        hoverinfo="skip",
    )
    plot = figure(
        [line, *markers(shown, best, at, value, text)],
        xaxis={"title": {"text": f"compute, {name}"}, "rangemode": "tozero"},
        yaxis={"title": {"text": metric}},
    )
    _add_baselines(plot, data)
    return Figure("best_so_far", plot, f"Best {metric} so far over compute")


def _add_baselines(plot: go.Figure, data: SweepData) -> None:
    """A line for the value of each completed baseline; the name of the highest is above its line."""
    colour = KINDS["baseline"][0]
    done = [t.record for t in data.baselines if t.record.state is State.COMPLETED]
    values = {record.baseline: record.value for record in done if record.value is not None}
    for name, value in values.items():
        plot.add_hline(
            y=value,
            line={"color": colour, "dash": "dot", "width": 1.2},
            annotation={"text": plain(name), "font": {"color": colour}},
            annotation_position="top right" if value == max(values.values()) else "bottom right",
        )
