"""The map of explosions: where in the search space trials explode, and how."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Risk:
    """The settings over which the map is drawn, and the trials on it."""

    scales: list[Scale]
    """All searched settings."""
    positions: np.ndarray
    """(trials, settings) of the trials that were judged."""
    outcomes: np.ndarray
    """(trials,) 1 for an exploded one."""
    map: RiskMap
    split: Split | None

    @property
    def key(self) -> str | None:
        """The setting that predicts explosions best; None if none does."""
        if self.split is None or not self.map.predicts:
            return None
        return self.scales[self.split.column].key


def find_risk(data: SweepData) -> Risk | None:
    """What explosions depend on; None if no trial exploded."""
    outcomes = np.array([t.exploded for t in data.judged], float)
    if not outcomes.any():
        return None
    scales = scales_of(data.spec)
    positions = np.array([[s.position(t.record.parameters) for s in scales] for t in data.judged])
    found = find_map(positions, outcomes)
    return Risk(scales, positions, outcomes, found, find_split(positions, outcomes, found.columns))


def explosion_section(data: SweepData, risk: Risk | None) -> Section:
    """Where trials explode, why, at which step and in which module."""
    judged = data.judged
    exploded = [t for t in judged if t.exploded]
    if risk is None:
        none = (
            f"None of {count(len(judged), 'trial')} exploded"
            if judged
            else "No trial has trained yet"
        )
        return Section("explosions", TITLE, f"{none}, so there is no map to draw.")
    draw = _map if len(risk.map.columns) == 2 else _curve
    return Section(
        key="explosions",
        title=TITLE,
        sentence=_sentence(judged, exploded, risk),
        figures=(draw(data, judged, risk),),
        caption="Colour: share of trials nearby that exploded; blank where none was tried. A pruned trial counts as "
        "not exploded, as far as it trained. Reason, step and module of a trial are under the pointer.",
        points=_points(exploded),
    )


def _sentence(
    judged: list[ShownTrial],
    exploded: list[ShownTrial],
    risk: Risk,
) -> str:
    steps = [t.explosion.step for t in exploded if t.explosion is not None]
    when = f", at step {statistics.median(steps):.0f} in the median" if steps else ""
    start = f"{len(exploded)} of {count(len(judged), 'trial')} exploded{when}"
    names = join(risk.scales[c].title for c in risk.map.columns)
    if risk.key is None or risk.split is None:
        return (
            f"{start}; no setting predicts them better than their overall share of "
            f"{share(len(exploded), len(judged))} does; the map over {names} comes closest."
        )
    verb = "predict" if len(risk.map.columns) > 1 else "predicts"
    text = _split_text(risk.scales[risk.split.column], risk.split)
    return f"{start}; {names} {verb} them best: {text}."


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
        said = [(part, join(groups[side])) for part, side in sides]
    else:
        edge_text = format_setting(scale.at(split.threshold))
        said = [(part, f"{side} {edge_text}") for part, side in sides]
    (most, first), (least, second) = said
    return f"{most[0]} of {most[1]} exploded with {scale.title} {first}, {least[0]} of {least[1]} with {second}"


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


def _map(data: SweepData, judged: list[ShownTrial], risk: Risk) -> Figure:
    across, up = (risk.scales[column] for column in risk.map.columns)
    (places_x, x), (places_y, y) = across.grid(GRID), up.grid(GRID)
    at = np.array([(px, py) for py in places_y for px in places_x])
    positions = risk.positions[:, risk.map.columns]
    p, near = probability(at, positions, risk.outcomes, risk.map.bandwidth)
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


def _curve(data: SweepData, judged: list[ShownTrial], risk: Risk) -> Figure:
    """Over the only setting that is searched."""
    (scale,) = risk.scales
    places, x = scale.grid(4 * GRID)
    p, _ = probability(places[:, None], risk.positions, risk.outcomes, risk.map.bandwidth)
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
