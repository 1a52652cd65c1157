"""How figures look: colours that colour-blind readers can tell apart, and one template for light and one for dark.

A figure holds the colours of its data only; text, lines and background come from the template, which the page
exchanges with the colour scheme of the reader. States differ by marker too, so that a print in grey is readable.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from typing import Any

import plotly.graph_objects as go

from sweeps.report.sweep_data import ShownTrial
from sweeps.states import State

BLUE, GREEN, RED, PURPLE, GREY, AMBER = (
    "#3d85c6",
    "#0f9d78",
    "#d9541e",
    "#9467bd",
    "#9aa0a8",
    "#d99a00",
)
"""After Okabe and Ito (2008), readable on white and on black."""
HEAT = [[0.0, "rgba(217,84,30,0)"], [0.5, "rgba(217,84,30,0.42)"], [1.0, "rgba(217,84,30,0.9)"]]
"""From nothing to red, on any background."""
SCALE = [[0.0, "#d7e6f4"], [0.35, "#8fbce0"], [0.7, "#3d85c6"], [1.0, "#0b3c6f"]]
"""From worse to better."""
LINE_SCALE = [[0.0, "#9aa0a8"], [0.5, "#3d85c6"], [1.0, "#0f9d78"]]
"""From worse to better, for lines on any background."""
TERMS = {"bbox": BLUE, "cls": GREEN, "dfl": AMBER, "supcon": PURPLE, "triplet": GREY}
"""Loss term -> colour."""
KINDS: dict[str, tuple[str, str]] = {
    "pruned": (GREY, "circle-open"),
    "other": (GREY, "triangle-up-open"),
    "completed": (BLUE, "circle"),
    "exploded": (RED, "x"),
    "baseline": (PURPLE, "diamond"),
    "best": (GREEN, "star"),
}
"""Kind of a trial -> colour and marker, in the order in which they are drawn."""
MANY = 400
"""Trials from which markers are small."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def kind_of(trial: ShownTrial, best: ShownTrial | None) -> str:
    """Kind of a trial in figures: the first that applies of best, exploded, baseline, and its state."""
    state = trial.record.state
    if trial is best:
        return "best"
    if trial.exploded:
        return "exploded"
    if trial.record.baseline:
        return "baseline"
    if state is State.COMPLETED:
        return "completed"
    return "pruned" if state in (State.PRUNED, State.PAUSED, State.RUNNING) else "other"


def by_kind(
    trials: Iterable[ShownTrial], best: ShownTrial | None
) -> list[tuple[str, list[ShownTrial]]]:
    """Kind -> its trials, without empty ones, in the order in which they are drawn."""
    found: dict[str, list[ShownTrial]] = {kind: [] for kind in KINDS}
    for trial in trials:
        found[kind_of(trial, best)].append(trial)
    return [(kind, some) for kind, some in found.items() if some]


def markers(
    trials: Iterable[ShownTrial],
    best: ShownTrial | None,
    x: Callable[[ShownTrial], Any],
    y: Callable[[ShownTrial], Any],
    text: Callable[[ShownTrial], str],
    **more: Any,
) -> list[go.Scatter]:
    """One trace of markers for each kind of trials.

    Args:
        trials: to draw.
        best: which of them is marked as the best.
        x: of a trial.
        y: of a trial.
        text: shown for a trial under the pointer; escaped.
        more: of every trace.
    """
    traces = []
    kinds = by_kind(trials, best)
    many = sum(len(some) for _, some in kinds) > MANY
    for kind, some in kinds:
        colour, symbol = KINDS[kind]
        rest = (9.0 if kind == "exploded" else 7.0) * (0.6 if many else 1.0)
        size = {"best": 14.0, "baseline": 10.0}.get(kind, rest)
        traces.append(
            go.Scatter(
                x=[x(t) for t in some],
                y=[y(t) for t in some],
                text=[text(t) for t in some],
                name=kind,
                legendgroup=kind,
                mode="markers",
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "size": size,
                    "line": {"width": 0.8 if many else 1.4, "color": colour},
                },
                hovertemplate="%{text}<extra></extra>",
                **more,
            )
        )
    return traces


def plain(text: object) -> str:
    """Text of users, as Plotly shows it: without a meaning for its tags."""
    return html.escape(str(text), quote=False)


def figure(traces: Iterable[Any] = (), **layout: Any) -> go.Figure:
    """A figure without a template of its own."""
    shape = {
        "margin": {"l": 56, "r": 16, "t": 36, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "title": None},
        "hovermode": "closest",
        "dragmode": False,
    }
    return go.Figure(list(traces), {"template": None, **shape, **layout})


def template(dark: bool) -> dict[str, Any]:
    """Plotly's template for one colour scheme."""
    text, soft, grid = (
        ("#d6dae0", "#9aa3ad", "#2c333b") if dark else ("#24292f", "#59636e", "#e6e9ed")
    )
    axis = {
        "gridcolor": grid,
        "linecolor": soft,
        "zeroline": False,
        "tickcolor": "rgba(0,0,0,0)",
        "tickfont": {"color": soft, "size": 11.5},
        "title": {"font": {"size": 12.5}, "standoff": 8},
        "ticks": "outside",
        "ticklen": 5,
        "automargin": True,
    }
    background = "#14181d" if dark else "#ffffff"
    layout = {
        "font": {"family": FONT, "size": 12.5, "color": text},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": axis,
        "yaxis": axis,
        "hoverlabel": {
            "bgcolor": background,
            "bordercolor": soft,
            "font": {"family": FONT, "color": text, "size": 12.5},
            "align": "left",
        },
        "legend": {"font": {"color": text}, "bgcolor": "rgba(0,0,0,0)"},
        "annotationdefaults": {"font": {"color": soft, "size": 12}, "showarrow": False},
        "shapedefaults": {"line": {"color": soft, "width": 1}},
        "coloraxis": {"colorbar": {"outlinewidth": 0}},
    }
    return {"layout": layout}


def sequence_opacity(count: int) -> float:
    """How opaque one of `count` lines is, so that many do not make a block of colour."""
    return min(0.55, max(0.12, 14 / max(1, count)))
