"""How far each setting can be raised before a training becomes unstable, found by `sampler: bisection`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from fsdet.evaluation.intervals import half_width
from sweeps.confirmation.statistics import ALPHA, Difference, holm, paired
from sweeps.report.section import Figure, Rows, Section
from sweeps.report.style import AMBER, BLUE, GREEN, GREY, PURPLE, RED, figure, plain
from sweeps.report.sweep_data import SweepData
from sweeps.report.wording import join
from sweeps.search.bisection import (
    Bracket,
    Line,
    find_bracket,
    judged,
    lines_of,
    ranges_of_baseline,
)
from sweeps.session.display import format_setting, short_name

SEED = "seed"
"""The choice over which a stable range is averaged."""
COLOURS = (BLUE, RED, GREEN, PURPLE, AMBER, GREY)


@dataclass(frozen=True)
class StableRange:
    """The largest stable value of one setting, over seeds."""

    key: str
    label: str
    """The other choices, in words."""
    seeds: int
    value: float
    """Geometric mean over seeds of the middle of what is left of each line; the mean on a linear scale."""
    low: float
    """Lower end of its 95 % interval; with one seed that of the line."""
    high: float
    beyond: int
    """Seeds at which even the end of the range is stable: the value is then too low."""
    width: float
    """How much the widest line is still open: the ratio of its ends, or their difference on a linear scale."""
    log: bool
    """Whether the range is on a logarithmic scale."""
    middles: Mapping[int, float]
    """Seed -> middle of its line, on the scale of the range."""

    def compared(self, other: StableRange) -> Difference | None:
        """With the same setting at another choice, by seed, on the scale of the range.

        None with too few seeds, with itself, and where all lines of both are stable to the end of the range.
        """
        if self is other or self.beyond + other.beyond == self.seeds + other.seeds:
            return None
        return paired(self.middles, other.middles)


def stable_ranges(data: SweepData) -> list[StableRange]:
    """Every setting at every combination of choices, as far as trials have gone along its lines."""
    spec = data.spec
    distributions = spec.distributions()
    ended = judged(data.records, spec)
    ranges = ranges_of_baseline(spec)
    groups: dict[tuple[str, str], dict[int, Bracket]] = {}
    for line in lines_of(distributions):
        bracket = find_bracket(line, distributions[line.key], ranges, ended)
        if math.isfinite(bracket.width):
            seed = dict(line.choices).get(SEED, 0)
            groups.setdefault((line.key, label_of(line)), {})[seed] = bracket
    return [summarise(key, label, brackets) for (key, label), brackets in groups.items()]


def label_of(line: Line) -> str:
    """The choices of a line without the seed."""
    return ", ".join(plain(value) for key, value in line.choices if key != SEED) or "all"


def summarise(key: str, label: str, by_seed: Mapping[int, Bracket]) -> StableRange:
    """One setting over seeds."""
    brackets = list(by_seed.values())
    log = brackets[0].log
    scale, back = (math.log, math.exp) if log else (float, float)
    middles = [scale(middle(bracket)) for bracket in brackets]
    mean = statistics.fmean(middles)
    if len(middles) > 1:
        ends = (mean - half_width(middles), mean + half_width(middles))
    else:
        ends = (scale(brackets[0].stable), scale(brackets[0].unstable or brackets[0].end))
    widest = max(bracket.width for bracket in brackets)
    return StableRange(
        key=key,
        label=label,
        seeds=len(middles),
        value=back(mean),
        low=back(ends[0]),
        high=back(ends[1]),
        beyond=sum(bracket.unstable is None for bracket in brackets),
        width=back(widest) if log else widest,
        log=log,
        middles=dict(zip(by_seed, middles, strict=True)),
    )


def middle(bracket: Bracket) -> float:
    """The best guess of where a training becomes unstable."""
    return bracket.end if bracket.unstable is None else bracket.next


def stable_sections(data: SweepData) -> list[Section]:
    """The section; none for a sweep that does not bisect, or has not got far enough."""
    if data.spec.sampler.name != "bisection":
        return []
    found = stable_ranges(data)
    if not found:
        return []
    return [
        Section(
            key="stable-range",
            title="How far can each setting be raised?",
            sentence=" ".join(
                filter(None, (_sentence(found), _meaning(data), _beyond_noise(found)))
            ),
            figures=(_figure(found),),
            caption="The largest stable value: mean over seeds (geometric on a logarithmic scale) with its 95 % "
            "interval. A triangle marks settings of which even the end of the range is stable at some seed. Higher "
            "is more robust.",
            table=Rows(
                (
                    *("setting", "at", "largest stable value", "95 % interval", "seeds"),
                    *("still open", "against the first, by seed"),
                ),
                tuple(_row(one, first_of(one, found)) for one in found),
            ),
        )
    ]


def _meaning(data: SweepData) -> str:
    """What counts as stable in this sweep."""
    worst, objective = data.spec.sampler.worst, data.spec.objective
    if worst is None:
        return "Stable is what does not explode."
    side = "at least" if objective.sign > 0 else "at most"
    return f"Stable is what does not explode and ends with {objective.metric} of {side} {worst:g}."


def _sentence(found: Sequence[StableRange]) -> str:
    parts = []
    for key in dict.fromkeys(one.key for one in found):
        of_key = sorted((one for one in found if one.key == key), key=lambda one: one.value)
        first, last = of_key[0], of_key[-1]
        if first is last:
            parts.append(f"{short_name(key)} up to {_shown(first)}")
        else:
            parts.append(
                f"{short_name(key)} from {_shown(first)} ({first.label}) to {_shown(last)} ({last.label})"
            )
    return f"A training stays stable with {join(parts)}."


def _shown(one: StableRange) -> str:
    return f"{'at least ' if one.beyond else ''}{format_setting(one.value)}"


def first_of(one: StableRange, found: Sequence[StableRange]) -> StableRange:
    """The same setting at the first choice."""
    return next(other for other in found if other.key == one.key)


def _beyond_noise(found: Sequence[StableRange]) -> str:
    """How many differ from the first choice of their setting; empty with too few seeds."""
    compared = [one.compared(first_of(one, found)) for one in found]
    differences = [one for one in compared if one is not None]
    if not differences:
        return ""
    count = sum(p < ALPHA for p in holm([d.p for d in differences]))
    return (
        f"At the same seeds {count or 'none'} of {len(differences)} differ from '{found[0].label}' "
        "beyond noise."
    )


def _against(one: StableRange, first: StableRange) -> str:
    """Ratio or difference with its interval; a dash where there is none."""
    difference = one.compared(first)
    if difference is None:
        return "—"
    side = "at least " if one.beyond > first.beyond else "at most " if first.beyond else ""
    found = difference.estimate
    shown = [math.exp(x) if one.log else x for x in (found.mean, found.low, found.high)]
    middle_, low, high = (f"{x:.2f}" for x in shown)
    ends = "" if math.isnan(found.half) else f" [{low}, {high}]"
    return f"{side}{middle_} times{ends}" if one.log else f"{side}{middle_} more{ends}"


def _row(one: StableRange, first: StableRange) -> tuple[str, ...]:
    interval = f"{format_setting(one.low)} to {format_setting(one.high)}"
    opened = f"{one.width:.2g}" if one.width else "no"
    return (
        short_name(one.key),
        one.label,
        _shown(one),
        interval,
        str(one.seeds),
        opened,
        _against(one, first),
    )


def _figure(found: Sequence[StableRange]) -> Figure:
    labels = list(dict.fromkeys(one.label for one in found))
    scale = {"type": "log", "dtick": 1} if all(one.log for one in found) else {}
    traces = [_trace(found, label, COLOURS[n % len(COLOURS)]) for n, label in enumerate(labels)]
    plot = figure(
        traces,
        scattermode="group",
        scattergap=0.4,
        xaxis={"type": "category"},
        yaxis={"title": {"text": "largest stable value"}, **scale},
    )
    said = "; ".join(f"{short_name(one.key)} {one.label} {_shown(one)}" for one in found)
    return Figure("stable-range", plot, f"Largest stable values: {said}", 420)


def _trace(found: Sequence[StableRange], label: str, colour: str) -> go.Scatter:
    some = [one for one in found if one.label == label]
    error: dict[str, Any] = {
        "symmetric": False,
        "array": [one.high - one.value for one in some],
        "arrayminus": [one.value - one.low for one in some],
        "width": 4,
        "thickness": 1.6,
    }
    return go.Scatter(
        x=[short_name(one.key) for one in some],
        y=[one.value for one in some],
        error_y=error,
        name=label,
        mode="markers",
        marker={
            "color": colour,
            "size": 9,
            "symbol": ["triangle-up" if one.beyond else "circle" for one in some],
        },
        hovertemplate=f"{label}, %{{x}}: %{{y:.3g}}<extra></extra>",
    )
