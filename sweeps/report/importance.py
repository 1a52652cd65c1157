"""Which settings matter: Optuna's importances (PED-ANOVA) with their uncertainty and the level that chance reaches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator

from sweeps.report.comparable import Comparable, Pairs, pairs_of, study_of
from sweeps.report.section import Figure, Section
from sweeps.report.style import AMBER, BLUE, GREY, figure
from sweeps.report.sweep_data import SweepData
from sweeps.report.wording import join, share
from sweeps.session.display import short_name

TITLE = "Importance of the settings"
LEAST = 10
"""Values below which importances are not computed."""
REPEATS = (10, 40)
"""Least and most halves of the trials, and shuffles."""
WORK = 20_000
"""Trials of all halves and shuffles together."""
BEST = 0.25
"""Fraction of the trials that counts as the best. Optuna's default of 0.1 leaves too few of some dozen trials."""
NORMAL = 1.645
"""Standard errors to either side of a 90 % interval."""
CHANCE = 0.95
"""Quantile over the shuffles: importance that a setting without any effect stays below."""


@dataclass(frozen=True)
class Importance:
    """Of one setting, as shares of the sum over all settings."""

    key: str
    value: float
    low: float
    high: float
    chance: float
    """What a setting without effect reaches in one of twenty sweeps."""

    @property
    def beyond_chance(self) -> bool:
        """Whether the setting matters, as far as these trials can tell."""
        return self.value > self.chance


def importance_section(data: SweepData, view: Comparable, found: Sequence[Importance]) -> Section:
    """Importances with intervals, and what cannot be told apart from chance."""
    described = view.describe(data.spec.objective.metric)
    if not found:
        return Section(
            "importance",
            TITLE,
            f"Too few trials to say which settings matter: {described}; {LEAST} are needed at least, some ten for each "
            "setting to rely on.",
        )
    return Section(
        key="importance",
        title=TITLE,
        sentence=_sentence(found, view),
        figures=(_figure(found),),
        caption=f"PED-ANOVA, the default of Optuna, on {described}: how far the best quarter differs in each "
        "setting from all. Lines: 90 % intervals. Ticks: what a setting without any effect reaches in "
        "one of twenty sweeps, from shuffled values.",
    )


def importances(data: SweepData, view: Comparable) -> list[Importance]:
    """Of every searched setting that applies to all trials, the largest first; empty with too few trials.

    The spread is that over random halves of the trials, which is the standard error over all of them (the delete-d
    jackknife of Shao and Wu, 1989). Samples with repeats would not do: PED-ANOVA estimates densities, and takes
    repeated values for narrow peaks.
    """
    pairs = pairs_of(data, view)
    if len(pairs) < LEAST or len({value for _, value in pairs}) < 2:
        return []
    chance = np.random.default_rng(0)
    repeats = int(np.clip(WORK // len(pairs), *REPEATS))
    values = evaluate(data, pairs)
    total = sum(values.values())
    if not total:
        return []
    halves = [shares(evaluate(data, _half(pairs, chance))) for _ in range(repeats)]
    shuffled = [evaluate(data, _shuffled(pairs, chance)) for _ in range(repeats)]
    found = []
    for key, value in shares(values).items():
        width = NORMAL * float(np.std([one.get(key, 0.0) for one in halves]))
        limit = float(np.quantile([one.get(key, 0.0) for one in shuffled], CHANCE)) / total
        low, high = max(0.0, value - width), min(1.0, value + width)
        found.append(Importance(key, value, low, high, limit))
    return sorted(found, key=lambda one: -one.value)


def _half(pairs: Pairs, chance: np.random.Generator) -> Pairs:
    chosen = chance.choice(len(pairs), size=len(pairs) // 2, replace=False)
    return [pairs[i] for i in sorted(chosen)]


def _shuffled(pairs: Pairs, chance: np.random.Generator) -> Pairs:
    order = chance.permutation(len(pairs))
    return [(trial, pairs[i][1]) for (trial, _), i in zip(pairs, order, strict=True)]


def shares(values: Mapping[str, float]) -> Mapping[str, float]:
    """Values as shares of their sum."""
    total = sum(values.values()) or 1.0
    return {key: value / total for key, value in values.items()}


def evaluate(data: SweepData, pairs: Pairs) -> Mapping[str, float]:
    """Setting -> its importance, not normalised: chance gives little of that, but shares of that add up to 1 too."""
    study = study_of(data, pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # a choice that only one of the compared trials has
        warnings.filterwarnings("ignore", message="Some regimes")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST)
        return optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)


def _sentence(found: Sequence[Importance], view: Comparable) -> str:
    first = found[0]
    matter = [one for one in found if one.beyond_chance]
    rest = [short_name(one.key) for one in found if not one.beyond_chance]
    word = " (few trials: read this with care)" if view.few else ""
    if not matter:
        return (
            f"No setting matters beyond what chance gives in this sweep{word}: the ranges are flat, or the trials "
            "too few."
        )
    said = (
        f"{short_name(first.key)} matters most, with {share(first.value, 1)} of the total "
        f"[{share(first.low, 1)} to {share(first.high, 1)}]"
        if first.beyond_chance
        else f"{join(short_name(one.key) for one in matter)} matter beyond chance"
    )
    more = [short_name(one.key) for one in matter if one is not first]
    if first.beyond_chance and more:
        said += f"; {join(more)} {'matters' if len(more) == 1 else 'matter'} beyond chance too"
    if rest:
        said += f"; {join(rest)} cannot be told from a setting without effect"
    return f"{said[:1].upper()}{said[1:]}{word}."


def _figure(found: Sequence[Importance]) -> Figure:
    rows = list(reversed(found))
    names = [short_name(one.key) for one in rows]
    bars = go.Bar(
        x=[one.value for one in rows],
        y=names,
        orientation="h",
        marker={"color": [BLUE if one.beyond_chance else GREY for one in rows]},
        error_x={
            "symmetric": False,
            "array": [max(0.0, one.high - one.value) for one in rows],
            "arrayminus": [max(0.0, one.value - one.low) for one in rows],
            "thickness": 1.6,
            "width": 4,
            "color": GREY,
        },
        name="importance",
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
    )
    ticks = go.Scatter(
        x=[one.chance for one in rows],
        y=names,
        mode="markers",
        marker={
            "symbol": "line-ns",
            "size": 18,
            "line": {"width": 2.5, "color": AMBER},
        },
        name="chance alone",
        hovertemplate="chance alone reaches %{x:.0%}<extra></extra>",
    )
    plot = figure(
        [bars, ticks],
        bargap=0.4,
        xaxis={"title": {"text": "share of the total importance"}, "tickformat": ".0%"},
        yaxis={"showgrid": False},
    )
    plot.update_xaxes(rangemode="tozero")
    said = ", ".join(f"{one.key} {one.value:.0%}" for one in found)
    return Figure("importance", plot, f"Importance of each setting: {said}", 130 + 34 * len(rows))
