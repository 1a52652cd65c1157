"""How far a step moves the weights of each module, against the module's multiplier of the learning rate."""

from __future__ import annotations

import math

import numpy as np

from fsdet.config import MULTIPLIERS, HealthConfig
from sweeps.report.rank_correlation import rank_correlation
from sweeps.report.scales import Scale, scales_of
from sweeps.report.section import Figure, Section
from sweeps.report.style import AMBER, figure, markers, plain
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.wording import join, settings_of

TITLE = "Update ratio per module"
PROPORTIONAL = (0.75, 1.25)
"""Slopes in logarithms that count as proportional."""


def updates_section(data: SweepData) -> Section:
    """Update ratios over multipliers."""
    scales = {s.key: s for s in scales_of(data.spec)}
    searched = {m: scales[key] for m, key in MULTIPLIERS.items() if key in scales}
    if not searched:
        return Section("updates", TITLE, "No multiplier of a module's learning rate was searched.")
    measured = {m: s for m, s in searched.items() if _points(data, m, s)[0]}
    if not measured:
        return Section("updates", TITLE, "No update ratio was recorded.")
    low, high = HealthConfig().health_update
    return Section(
        key="updates",
        title=TITLE,
        sentence=_sentence(data, measured),
        figures=tuple(_figure(data, module, scale) for module, scale in measured.items()),
        caption="Norm of an update over the norm of the weights, median of the last measured steps; both axes are "
        f"logarithmic. Outside the lines at {low:g} and {high:g} weights hardly move, or move too fast. A trial "
        "that was paused early is measured early, while the learning rate was still high.",
    )


def _points(data: SweepData, module: str, scale: Scale) -> tuple[list[ShownTrial], list[float]]:
    trials, ratios = [], []
    for trial in data.trials:
        ratio = None if trial.series is None else trial.series.update_ratios.get(module)
        if ratio and math.isfinite(scale.value(trial.record.parameters)):
            trials.append(trial)
            ratios.append(ratio)
    return trials, ratios


def slope_of(x: list[float], y: list[float]) -> float | None:
    """By which power `y` grows with `x`; None if they are not related beyond chance."""
    positive = [(a, b) for a, b in zip(x, y, strict=True) if a > 0 and b > 0]
    found = rank_correlation([a for a, _ in positive], [b for _, b in positive])
    if found is None or found.p > 0.05:
        return None
    a, b = (np.log([pair[i] for pair in positive]) for i in (0, 1))
    return float(np.polyfit(a, b, 1)[0])


def _sentence(data: SweepData, measured: dict[str, Scale]) -> str:
    slopes = {}
    for module, scale in measured.items():
        trials, ratios = _points(data, module, scale)
        slopes[module] = slope_of([scale.value(t.record.parameters) for t in trials], ratios)
    low, high = PROPORTIONAL
    groups = {
        "in proportion to the multiplier": [m for m, s in slopes.items() if s and low < s < high],
        "with the multiplier, but less than in proportion": [
            m for m, s in slopes.items() if s and 0 < s <= low
        ],
        "faster than the multiplier": [m for m, s in slopes.items() if s and s >= high],
        "not with the multiplier, as far as this sweep can tell": [
            m for m, s in slopes.items() if s is None or s <= 0
        ],
    }
    said = []
    for how, modules in groups.items():
        names = join(module.replace("_", " ") for module in modules)
        whose, verb = ("that", "grows") if len(modules) == 1 else ("those", "grow")
        if any(slopes[m] for m in modules):
            said.append(f"{whose} of {names} {verb} {how} (slope {_slopes(slopes, modules)})")
        elif modules:
            does = "does" if len(modules) == 1 else "do"
            said.append(f"{whose} of {names} {does} not grow {how[4:]}")
    return f"Update ratios: {'; '.join(said)}."


def _slopes(slopes: dict[str, float | None], modules: list[str]) -> str:
    return ", ".join(f"{slopes[module]:.2f}" for module in modules)


def _figure(data: SweepData, module: str, scale: Scale) -> Figure:
    trials, ratios = _points(data, module, scale)
    by_number = {t.number: r for t, r in zip(trials, ratios, strict=True)}

    def text(trial: ShownTrial) -> str:
        given = settings_of(trial, [scale.key]).partition(",")[0]
        return (
            f"<b>{plain(data.name_of(trial))}</b>: {by_number[trial.number]:.2g}<br>{plain(given)}"
        )

    dots = markers(
        trials,
        data.winner,
        lambda t: scale.value(t.record.parameters),
        lambda t: by_number[t.number],
        text,
    )
    axis = {"type": "log", "exponentformat": "power", "dtick": 1}
    plot = figure(
        dots,
        xaxis=scale.axis(),
        yaxis={**axis, "title": {"text": module.replace("_", " ")}},
        showlegend=False,
    )
    for edge in HealthConfig().health_update:
        plot.add_hline(y=edge, line={"color": AMBER, "width": 1, "dash": "dot"})
    alt = f"Update ratio of {module} over {scale.title}"
    return Figure(f"updates_{module}", plot, alt, 300, half=True)
