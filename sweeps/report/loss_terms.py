"""The share of each loss term in the loss and in the gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from sweeps.report.section import Figure, Section
from sweeps.report.style import GREY, TERMS, figure, plain
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.trial_table import in_order
from sweeps.report.wording import join, share
from sweeps.states import State

ROWS = 10
"""Trials shown beside the best and the baselines, at most."""
APART = 2.0
"""Factor between the two shares of a term from which they are called different."""


def terms_section(data: SweepData) -> Section:
    """What each term of the loss contributes."""
    title = "Share of loss and gradient per term"
    trials = shown_trials(data)
    if not trials:
        return Section("terms", title, "No trial recorded the shares of its loss terms.")
    figures = [_bars(data, trials, "loss", lambda t: t.series.loss_shares if t.series else {})]
    with_gradient = [t for t in trials if t.series and t.series.gradient_shares]
    if with_gradient:
        figures.append(
            _bars(
                data,
                with_gradient,
                "gradient",
                lambda t: t.series.gradient_shares if t.series else {},
            )
        )
    return Section(
        key="terms",
        title=title,
        sentence=_sentence(data, trials[0]),
        figures=tuple(figures),
        caption="The best and the baselines on top, then other trials in their rank. Shares of the loss are medians "
        "over the last steps; those of the gradient are of the norms of each term alone, at the last step at which "
        "they were measured. A term can be a large part of the loss and a small one of the gradient.",
    )


def shown_trials(data: SweepData) -> list[ShownTrial]:
    """The best, the baselines, then others in their rank, as far as their shares are known."""
    others = [t for t in in_order(data) if t.record.state is not State.FAILED]
    first = [*([data.winner] if data.winner else []), *data.baselines]
    ranked = [*first, *(t for t in others if t not in first)]
    unique = list({t.number: t for t in ranked}.values())
    known = [t for t in unique if t.series and t.series.loss_shares]
    return known[: len(first) + ROWS]


def _sentence(data: SweepData, trial: ShownTrial) -> str:
    assert trial.series is not None
    loss, gradient = trial.series.loss_shares, trial.series.gradient_shares

    def listed(shares: Mapping[str, float]) -> str:
        ordered = sorted(shares.items(), key=lambda one: -one[1])
        return join(f"{term} {share(part, 1)}" for term, part in ordered)

    said = f"In {data.name_of(trial)} the loss is {listed(loss)}"
    if not gradient:
        return f"{said}; shares of the gradient were not measured."
    apart = [
        f"{term} has {share(gradient[term], 1)} of the gradient with {share(part, 1)} of the loss"
        for term, part in loss.items()
        if term in gradient
        and min(part, gradient[term]) > 0
        and max(part, gradient[term]) / min(part, gradient[term]) > APART
    ]
    if apart:
        return f"{said}; {join(apart)}."
    return f"{said}, and each has about the same share of the gradient."


def _bars(
    data: SweepData,
    trials: list[ShownTrial],
    of: str,
    shares: Callable[[ShownTrial], Mapping[str, float]],
) -> Figure:
    rows = list(reversed(trials))
    names = [plain(_label(data, t)) for t in rows]
    terms = list(dict.fromkeys(term for t in trials for term in shares(t)))
    bars = [
        go.Bar(
            y=list(range(len(rows))),
            x=[shares(t).get(term) for t in rows],
            orientation="h",
            name=term,
            marker={"color": TERMS.get(term, GREY)},
            hovertemplate=f"{plain(term)}: %{{x:.0%}}<extra></extra>",
        )
        for term in terms
    ]
    plot = figure(
        bars,
        barmode="stack",
        bargap=0.28,
        xaxis={"title": {"text": f"share of the {of}"}, "tickformat": ".0%", "range": [0, 1]},
        yaxis={"tickvals": list(range(len(rows))), "ticktext": names, "showgrid": False},
    )
    plot.update_layout(legend={"traceorder": "normal"})
    key = f"{of}_terms"
    return Figure(key, plot, f"Share of each term in the {of}", 130 + 24 * len(rows), half=True)


def _label(data: SweepData, trial: ShownTrial) -> str:
    name = data.name_of(trial)
    if trial is data.winner:
        return f"{name} (best)"
    return f"{name} (exploded)" if trial.exploded else name
