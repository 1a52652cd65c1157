"""Slices, contour and parallel coordinates: Optuna's own figures, on values that may be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.visualization import plot_contour, plot_parallel_coordinate, plot_slice
from plotly.colors import sample_colorscale

from sweeps.report.comparable import Comparable, Pairs, pairs_of, study_of
from sweeps.report.importance import Importance
from sweeps.report.rank_correlation import RankCorrelation, rank_correlation
from sweeps.report.scales import Scale, scales_of
from sweeps.report.section import Figure, Section
from sweeps.report.style import BLUE, GREY, LINE_SCALE, SCALE
from sweeps.report.sweep_data import SweepData
from sweeps.report.wording import join, share
from sweeps.session.display import short_name
from sweeps.session.summary import counts

CONTOUR = ("gradient_clip_norm", "dfl_weight")
"""The two settings of the contour, where both are searched."""
SLICES, AXES = 12, 8
"""Most settings that are shown as slices, and as parallel coordinates; the most important ones."""
FIELD = 150
"""Most trials between which the contour interpolates, on a grid of all their values."""
LINES = 200
"""Most trials that are shown as parallel coordinates."""
LEAST = 4
"""Trials below which nothing is drawn."""


def landscape_sections(
    data: SweepData, view: Comparable, ranked: Sequence[Importance]
) -> list[Section]:
    """Slices with the contour, then parallel coordinates.

    Args:
        data: the sweep.
        view: its values that may be compared.
        ranked: importances, the largest first.
    """
    if len(view.values) < LEAST:
        said = f"Too few trials to draw: {counts(data.records)}."
        return [
            Section("slices", "Slices and contour", said),
            Section("parallel", "Parallel coordinates", said),
        ]
    study = study_of(data, pairs_of(data, view))
    keys = ordered_keys(data, view, ranked)
    metric = data.spec.objective.metric
    name = metric if view.epoch is None else f"{metric}, epoch {view.epoch}"
    return [
        _slices(data, view, study, keys, name),
        _parallel(data, view, study, keys, name),
    ]


def ordered_keys(data: SweepData, view: Comparable, ranked: Sequence[Importance]) -> list[str]:
    """The searched settings that vary, the most important first."""
    pairs = pairs_of(data, view)
    keys = list(dict.fromkeys([*(one.key for one in ranked), *data.spec.distributions()]))
    return [key for key in keys if len({t.record.parameters.get(key) for t, _ in pairs}) > 1]


def correlations(data: SweepData, view: Comparable) -> dict[str, RankCorrelation]:
    """Range -> its rank correlation with the objective, as far as it can be computed."""
    pairs = pairs_of(data, view)
    values = [value for _, value in pairs]
    found = {}
    for scale in scales_of(data.spec):
        if scale.choices:
            continue
        given = [scale.value(t.record.parameters) for t, _ in pairs]
        if (one := rank_correlation(given, values)) is not None:
            found[scale.key] = one
    return found


def _slices(
    data: SweepData, view: Comparable, study: optuna.Study, keys: list[str], name: str
) -> Section:
    scales = {scale.key: scale for scale in scales_of(data.spec)}
    figures = [_slice(study, scales[key], name) for key in keys[:SLICES]]
    across = [key for key in CONTOUR if key in keys]
    pair = across if len(across) == len(CONTOUR) else keys[:2]
    if len(pair) == 2:
        some = study_of(data, _evenly(pairs_of(data, view), FIELD))
        figures.insert(0, _contour(some, [scales[key] for key in pair], name))
    return Section(
        key="slices",
        title="Slices and contour",
        sentence=_sentence(data, view),
        figures=tuple(figures),
        caption=f"{_capital(view.describe(data.spec.objective.metric))}. In a slice all other settings vary too: a "
        "cloud without a trend says that the others matter more. The contour interpolates between trials.",
    )


def _sentence(data: SweepData, view: Comparable) -> str:
    sign = data.spec.objective.sign
    found = {k: c for k, c in correlations(data, view).items() if c.p < 0.05 / len(data.spec.space)}
    if not found:
        return (
            "No single setting rises or falls with the objective beyond noise (rank correlations, corrected for "
            "their number)."
        )
    ordered = sorted(found.items(), key=lambda one: -abs(one[1].rho))
    said = [
        f"{'higher' if sign * c.rho > 0 else 'lower'} {short_name(key)} is better ({c.rho:+.2f})"
        for key, c in ordered
    ]
    return f"By rank correlation with the objective, over their whole ranges: {join(said)}."


def _slice(study: optuna.Study, scale: Scale, name: str) -> Figure:
    plot = _unstyled(plot_slice(study, params=[scale.key], target_name=name))
    plot.update_traces(
        marker={"color": BLUE, "showscale": False, "size": 7, "line": {"width": 0}},
        opacity=0.75,
        selector={"type": "scatter"},
    )
    plot.update_layout(showlegend=False, title=None, width=None)
    plot.update_xaxes(scale.axis() if not scale.choices else {"title": {"text": scale.title}})
    plot.update_yaxes(title={"text": name})
    alt = f"{name} over {scale.title}"
    return Figure(f"slice_{scale.key}", plot, alt, 290, half=True)


def _contour(study: optuna.Study, scales: Sequence[Scale], name: str) -> Figure:
    plot = _unstyled(plot_contour(study, params=[s.key for s in scales], target_name=name))
    plot.update_traces(
        colorscale=SCALE,
        reversescale=False,
        line={"width": 0.6, "color": "rgba(120,130,140,0.7)"},
        colorbar={"title": {"text": name.replace(", ", "<br>")}, "thickness": 10, "len": 0.8},
        selector={"type": "contour"},
    )
    plot.update_traces(
        marker={"color": GREY, "size": 6, "line": {"width": 1, "color": "#ffffff"}},
        selector={"type": "scatter"},
    )
    plot.update_layout(title=None)
    by_key = {scale.key: scale for scale in scales}
    for axis in (plot.layout.xaxis, plot.layout.yaxis):
        scale = by_key[axis.title.text]
        axis.title.text, axis.dtick = scale.title, scale.axis().get("dtick")
    alt = f"Contour of {name} over {join(s.title for s in scales)}"
    return Figure("contour", plot, alt, 440)


def _parallel(
    data: SweepData, view: Comparable, study: optuna.Study, keys: list[str], name: str
) -> Section:
    title = "Parallel coordinates"
    if len(keys) < 2:
        return Section("parallel", title, "Only one setting varies: see its slice.")
    shown, pairs = keys[:AXES], pairs_of(data, view)
    if len(pairs) > LINES:
        study = study_of(data, _some(data, pairs))
    figure = _lines(
        plot_parallel_coordinate(study, params=shown, target_name=name), data.spec.objective.sign
    )
    few = (
        ""
        if len(pairs) <= LINES
        else f" Shown are the best {LINES // 2} trials and {LINES // 2} others."
    )
    return Section(
        key="parallel",
        title=title,
        sentence=_best_quarter(data, view, shown),
        figures=(Figure("parallel", figure, f"{name} and settings of each trial as lines", 420),),
        caption=f"Each line is a trial, green for a better value.{few}",
    )


def _some(data: SweepData, pairs: Pairs) -> Pairs:
    """The best half of the lines that are drawn, and others at even distances in rank."""
    ordered = sorted(pairs, key=lambda one: -data.spec.objective.sign * one[1])
    best, rest = ordered[: LINES // 2], ordered[LINES // 2 :]
    return [*best, *_evenly(rest, LINES // 2)]


def _evenly(pairs: Pairs, most: int) -> Pairs:
    """At most so many, at even distances."""
    if len(pairs) <= most:
        return pairs
    return [pairs[place] for place in np.linspace(0, len(pairs) - 1, most).astype(int)]


def _lines(plot: go.Figure, sign: int) -> go.Figure:
    """Optuna's parallel coordinates with colours for light and dark, and short names."""
    plot = _unstyled(plot)
    lines = [trace for trace in plot.data if trace.mode == "lines" and trace.customdata is not None]
    for trace in lines:
        good = float(trace.y[0]) if sign > 0 else 1 - float(trace.y[0])
        (trace.line.color,) = sample_colorscale(LINE_SCALE, [good])
        trace.opacity = 0.35 + 0.5 * good
    plot.data = lines
    axis = plot.layout.xaxis
    axis.ticktext = [axis.ticktext[0], *(short_name(str(label)) for label in axis.ticktext[1:])]
    plot.update_layout(title=None, plot_bgcolor=None, margin={"l": 40, "r": 40, "t": 40, "b": 40})
    return plot


def _best_quarter(data: SweepData, view: Comparable, keys: list[str]) -> str:
    """In which part of their ranges the best quarter of trials lies."""
    sign = data.spec.objective.sign
    pairs = sorted(pairs_of(data, view), key=lambda one: -sign * one[1])
    best = [trial for trial, _ in pairs[: max(2, len(pairs) // 4)]]
    widths: list[tuple[float, str]] = []
    for scale in scales_of(data.spec):
        places = [scale.position(t.record.parameters) for t in best]
        found = [place for place in places if np.isfinite(place)]
        if scale.key in keys and found and not scale.choices:
            width = max(found) - min(found)
            ends = f"{scale.at(min(found)):.3g} to {scale.at(max(found)):.3g}"
            widths.append((width, f"{scale.title} ({ends}, {share(width, 1)} of its range)"))
    if not widths:
        return f"{len(best)} trials make up the best quarter."
    narrow = [text for width, text in sorted(widths)[:2] if width < 0.75]
    if not narrow:
        return f"The best quarter, {len(best)} trials, is spread over most of every range."
    return f"The best quarter, {len(best)} trials, agrees most on {join(narrow)}."


def _unstyled(plot: go.Figure) -> go.Figure:
    """A figure of Optuna with the page's margins and without a template of its own."""
    plot.layout.template = None
    plot.update_layout(
        margin={"l": 56, "r": 16, "t": 24, "b": 48}, hovermode="closest", dragmode=False
    )
    return plot


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
