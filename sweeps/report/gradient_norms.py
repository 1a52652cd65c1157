"""Gradient norms of all trials, and how often each was clipped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import plotly.graph_objects as go

from sweeps.report.run_series import thin
from sweeps.report.scales import scales_of
from sweeps.report.section import Figure, Section
from sweeps.report.style import KINDS, by_kind, figure, markers, plain, sequence_opacity
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.wording import count, join, number, settings_of
from sweeps.session.display import format_number

POINTS = 36_000
"""Points of all lines together; more would make the page heavy."""
LEAST_POINTS, MOST_POINTS = 12, 1200
"""Points of one line."""
MARKED = 8
"""Exploded trials whose clip threshold is drawn, beside those of the best and the baselines."""
CLIP_KEY = "gradient_clip_norm"
MEANINGS = {
    "never": "never clipped: the threshold had no effect",
    "sometimes": "sometimes clipped: the only regime in which the threshold matters under AdamW",
    "always": "always clipped: AdamW ignores a constant factor, so that another threshold, if it too clips every "
    "step, changes next to nothing",
}
"""Regime -> what it means; as in the health report of a run."""


def norms_section(data: SweepData) -> Section:
    """Norms over steps, clip thresholds and regimes."""
    title = "Gradient norms and clipping"
    trials = [t for t in data.trials if t.series is not None and t.series.peak is not None]
    if not trials:
        return Section("norms", title, "No gradient norm was recorded.")
    figures = [_norms_figure(data, trials)]
    if CLIP_KEY in data.spec.space and any(t.regime for t in trials):
        figures.append(_regime_figure(data, trials))
    return Section(
        key="norms",
        title=title,
        sentence=_sentence(trials),
        figures=tuple(figures),
        caption="Global L2 norm of the unscaled gradients, before clipping. Long runs are thinned so that every "
        "spike stays. Dashed: the clip threshold of the best, of the baselines and of some exploded trials.",
        points=(*_regime_points(trials), *_spike_points(trials)),
    )


def _sentence(trials: list[ShownTrial]) -> str:
    healthy = [t.series.last_norm for t in trials if t.series and not t.exploded]
    norms = [norm for norm in healthy if norm is not None]
    peaks = [t.series.peak for t in trials if t.series and t.exploded and t.series.peak]
    said = []
    if norms:
        low, middle, high = np.quantile(norms, [0.1, 0.5, 0.9])
        said.append(
            f"trials that did not explode end at a norm of {number(middle)} in the median (80 % of them "
            f"between {number(low)} and {number(high)})"
        )
    if peaks:
        said.append(
            f"the {count(len(peaks), 'exploded one')} peaked at {number(float(np.median(peaks)))} in the median, "
            f"at {number(max(peaks))} at most"
        )
    regimes = Counter(regime for t in trials if (regime := t.regime))
    if regimes:
        parts = [f"{regimes[r]} {r}" for r in MEANINGS if regimes[r]]
        said.append(
            f"of {count(sum(regimes.values()), 'trial')}, {join(parts)} clipped their gradients"
        )
    text = "; ".join(said)
    return text[:1].upper() + text[1:] + "."


def _regime_points(trials: list[ShownTrial]) -> Iterable[str]:
    regimes = Counter(regime for t in trials if (regime := t.regime))
    for regime, meaning in MEANINGS.items():
        if some := regimes[regime]:
            yield f"{count(some, 'trial')} {'is' if some == 1 else 'are'} {meaning}."


def _spike_points(trials: list[ShownTrial]) -> Iterable[str]:
    """How often norm and loss jumped: the mean over the trials that exploded and those that did not."""
    for exploded, which in ((False, "did not explode"), (True, "exploded")):
        some = [t.series for t in trials if t.series and t.exploded is exploded]
        measured = [s for s in some if s.norm_spikes is not None and s.loss_spikes is not None]
        if not measured:
            continue
        norm, loss = (
            float(np.mean([getattr(s, name) for s in measured]))
            for name in ("norm_spikes", "loss_spikes")
        )
        largest = max((s.peak_rms for s in measured if s.peak_rms is not None), default=None)
        text = f"Spikes of the trials that {which}: {norm:.2%} of the steps in norm, {loss:.2%} in loss"
        yield f"{text}." if largest is None else f"{text}; largest g²/v {number(largest)}."


def _norms_figure(data: SweepData, trials: list[ShownTrial]) -> Figure:
    room = max(LEAST_POINTS, min(MOST_POINTS, POINTS // len(trials)))
    traces: list[go.Scatter] = []
    for kind, some in by_kind(trials, data.winner):
        traces += _lines(kind, some, room)
    traces += _thresholds(data, trials)
    axis = {"title": {"text": "gradient norm"}, "type": "log", "exponentformat": "power"}
    plot = figure(traces, xaxis={"title": {"text": "optimiser step"}}, yaxis={**axis, "dtick": 1})
    return Figure("gradient_norms", plot, "Gradient norm of every trial over steps, log scale", 440)


def _lines(kind: str, trials: list[ShownTrial], room: int) -> list[go.Scatter]:
    """All lines of one kind as one trace, with gaps between them."""
    bold = kind in ("best", "baseline")
    steps, norms, names = [], [], []
    for trial in trials:
        assert trial.series is not None
        points = MOST_POINTS if bold else room
        x, y = thin(trial.series.steps, trial.series.norms, points)
        steps += [*x.astype(int).tolist(), None]
        norms += [*(float(f"{value:.3g}") for value in y), None]
        names += [trial.number] * (len(x) + 1)
    opacity = 0.95 if bold else sequence_opacity(len(trials)) * (1.6 if kind == "exploded" else 1)
    colour = KINDS[kind][0]
    in_legend = go.Scatter(  # the lines are too faint for that
        x=[None], y=[None], mode="lines", name=kind, legendgroup=kind, line={"color": colour}
    )
    return [
        in_legend,
        go.Scatter(
            x=steps,
            y=norms,
            customdata=names,
            mode="lines",
            name=kind,
            legendgroup=kind,
            showlegend=False,
            line={"color": colour, "width": 2.2 if bold else 1.1},
            opacity=min(1.0, opacity),
            connectgaps=False,
            hovertemplate="trial %{customdata}, step %{x}: %{y:.3g}<extra></extra>",
        ),
    ]


def _thresholds(data: SweepData, trials: list[ShownTrial]) -> list[go.Scatter]:
    exploded = [t for t in trials if t.exploded][:MARKED]
    traces = []
    others = [t for t in [*data.baselines, *_only(data.winner)] if not t.exploded]
    for kind, some in by_kind([*exploded, *others], data.winner):
        steps: list[float | None] = []
        norms: list[float | None] = []
        for trial in some:
            if trial.clip_norm is not None and trial.series is not None:
                steps += [trial.series.steps[0], trial.series.steps[-1], None]
                norms += [trial.clip_norm, trial.clip_norm, None]
        traces.append(
            go.Scatter(
                x=steps,
                y=norms,
                mode="lines",
                line={"color": KINDS[kind][0], "dash": "dash", "width": 1.2},
                name=f"clip threshold, {kind}",
                showlegend=False,
                hovertemplate=f"clip threshold ({kind}): %{{y:.3g}}<extra></extra>",
            )
        )
    return traces


def _only(trial: ShownTrial | None) -> list[ShownTrial]:
    return [] if trial is None or trial.record.baseline else [trial]


def _regime_figure(data: SweepData, trials: list[ShownTrial]) -> Figure:
    scale = next(s for s in scales_of(data.spec) if s.key == CLIP_KEY)

    def fraction(trial: ShownTrial) -> float:
        return math.nan if trial.series is None else trial.series.clipped or 0.0

    def text(trial: ShownTrial) -> str:
        assert trial.series is not None
        peak = format_number(trial.series.peak, 3, significant=True)
        return (
            f"<b>{plain(data.name_of(trial))}</b>: {trial.regime} clipped "
            f"({fraction(trial):.0%} of steps), peak {peak}<br>{plain(settings_of(trial, [CLIP_KEY]))}"
        )

    measured = [t for t in trials if t.regime and CLIP_KEY in t.record.parameters]
    dots = markers(
        measured, data.winner, lambda t: scale.value(t.record.parameters), fraction, text
    )
    axis = {"title": {"text": "share of clipped steps"}, "range": [-0.06, 1.06]}
    plot = figure(
        dots,
        xaxis=scale.axis(),
        yaxis={**axis, "tickvals": [0, 0.5, 1], "ticktext": ["never", "half", "always"]},
    )
    return Figure("clipping", plot, "Share of clipped steps of every trial over its threshold", 320)
