"""The map of explosions: where in the search space trials explode, and how."""

from __future__ import annotations

import statistics
from collections import Counter

import numpy as np
import plotly.graph_objects as go

from sweeps.report.risk import RiskMap, Split, find_map, find_split, probability
from sweeps.report.scales import Scale, scales_of
from sweeps.report.section import Figure, Section
from sweeps.report.style import HEAT, RED, figure, markers, plain
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.wording import count, join, settings_of, share
from sweeps.session.display import format_setting

TITLE = "The map of explosions"
GRID = 48
"""Points of the map along each setting."""
LEAST = 0.15
"""Weight of trials nearby below which the map stays blank: nothing was tried there."""


def explosion_section(data: SweepData) -> Section:
    """Where trials explode, why, at which step and in which module."""
    judged = data.judged
    exploded = [t for t in judged if t.exploded]
    if not exploded:
        none = (
            f"None of {count(len(judged), 'trial')} exploded"
            if judged
            else "No trial has trained yet"
        )
        return Section("explosions", TITLE, f"{none}, so there is no map to draw.")
    scales = scales_of(data.spec)
    positions = np.array([[s.position(t.record.parameters) for s in scales] for t in judged])
    outcomes = np.array([t.exploded for t in judged], float)
    found = find_map(positions, outcomes)
    split = find_split(positions, outcomes, found.columns)
    shown = [scales[c] for c in found.columns]
    sentence = _sentence(judged, exploded, scales, found, split)
    draw = _map if len(shown) == 2 else _curve
    return Section(
        key="explosions",
        title=TITLE,
        sentence=sentence,
        figures=(draw(data, judged, shown, positions[:, found.columns], outcomes, found),),
        caption="Colour: share of trials nearby that exploded; blank where none was tried. A pruned trial counts as "
        "not exploded, as far as it trained. Reason, step and module of a trial are under the pointer.",
        points=_points(exploded),
    )


def _sentence(
    judged: list[ShownTrial],
    exploded: list[ShownTrial],
    scales: list[Scale],
    found: RiskMap,
    split: Split | None,
) -> str:
    steps = [t.explosion.step for t in exploded if t.explosion is not None]
    when = f", at step {statistics.median(steps):.0f} in the median" if steps else ""
    start = f"{len(exploded)} of {count(len(judged), 'trial')} exploded{when}"
    names = join(scales[c].title for c in found.columns)
    if not found.predicts or split is None:
        return (
            f"{start}; no setting predicts them better than their overall share of "
            f"{share(len(exploded), len(judged))} does; the map over {names} comes closest."
        )
    scale = scales[split.column]
    return f"{start}; {names} predict them best: {_split_text(scale, split)}."


def _split_text(scale: Scale, split: Split) -> str:
    sides = [(split.above, "above"), (split.below, "at most")]
    if split.below[0] * split.above[1] > split.above[0] * split.below[1]:
        sides.reverse()
    if scale.choices:
        edge = int(scale.at(split.threshold))
        groups = {
            "above": scale.choices[edge + 1 :],
            "at most": scale.choices[: edge + 1],
        }
        said = [(part, f"with {scale.title} {join(groups[side])}") for part, side in sides]
    else:
        edge_text = format_setting(scale.at(split.threshold))
        said = [(part, f"with {scale.title} {side} {edge_text}") for part, side in sides]
    (most, first), (least, second) = said
    return f"{first} {most[0]} of {most[1]} exploded, {second} {least[0]} of {least[1]}"


def _points(exploded: list[ShownTrial]) -> tuple[str, ...]:
    known = [t.explosion for t in exploded if t.explosion is not None]
    found = []
    for name, counted in (
        ("Module in which the norm grew most", Counter(e.module or "unknown" for e in known)),
        ("Rule that fired", Counter(e.rule for e in known)),
    ):
        if counted:
            found.append(
                f"{name}: " + ", ".join(f"{k} {n}" for k, n in counted.most_common()) + "."
            )
    return tuple(found)


def hover(data: SweepData, trial: ShownTrial, first: list[str]) -> str:
    """Name, settings, and for an exploded trial reason, step and module."""
    lines = [f"<b>{plain(data.name_of(trial))}</b>, {trial.record.state}"]
    if trial.explosion is not None:
        e = trial.explosion
        lines += [f"step {e.step}, {plain(e.rule)} in {plain(e.module)}", plain(e.detail)]
    lines.append(plain(settings_of(trial, first)))
    return "<br>".join(lines)


def _map(
    data: SweepData,
    judged: list[ShownTrial],
    scales: list[Scale],
    positions: np.ndarray,
    exploded: np.ndarray,
    found: RiskMap,
) -> Figure:
    across, up = scales
    (places_x, x), (places_y, y) = across.grid(GRID), up.grid(GRID)
    at = np.array([(px, py) for py in places_y for px in places_x])
    p, near = probability(at, positions, exploded, found.bandwidth)
    p[near < LEAST] = np.nan
    heat = go.Heatmap(
        x=x,
        y=y,
        z=np.round(p.reshape(len(y), len(x)), 3).tolist(),
        zmin=0,
        zmax=1,
        zsmooth=False if across.choices or up.choices else "best",
        colorscale=HEAT,
        colorbar={
            "title": {"text": "probability<br>to explode"},
            "tickformat": ".0%",
            "thickness": 10,
            "len": 0.8,
        },
        hoverinfo="skip",
    )
    keys = [across.key, up.key]
    dots = markers(
        [t for t in judged if all(key in t.record.parameters for key in keys)],
        data.winner,
        lambda t: across.value(t.record.parameters),
        lambda t: up.value(t.record.parameters),
        lambda t: hover(data, t, keys),
    )
    plot = figure([heat, *dots], xaxis=across.axis(), yaxis=up.axis())
    plot.update_xaxes(showgrid=False)
    plot.update_yaxes(showgrid=False)
    alt = f"Probability to explode over {across.title} and {up.title}, with all trials"
    return Figure("explosions", plot, alt, 460)


def _curve(
    data: SweepData,
    judged: list[ShownTrial],
    scales: list[Scale],
    positions: np.ndarray,
    exploded: np.ndarray,
    found: RiskMap,
) -> Figure:
    """Over the only setting that is searched."""
    (scale,) = scales
    places, x = scale.grid(4 * GRID)
    p, _ = probability(places[:, None], positions, exploded, found.bandwidth)
    line = go.Scatter(
        x=x,
        y=p,
        mode="lines",
        line={"color": RED, "width": 2.5},
        name="probability to explode",
        hoverinfo="skip",
    )
    dots = markers(
        judged,
        data.winner,
        lambda t: scale.value(t.record.parameters),
        lambda t: float(t.exploded),
        lambda t: hover(data, t, [scale.key]),
    )
    axis = {"title": {"text": "probability to explode"}, "range": [-0.05, 1.05]}
    plot = figure([line, *dots], xaxis=scale.axis(), yaxis={**axis, "tickformat": ".0%"})
    return Figure("explosions", plot, f"Probability to explode over {scale.title}")
