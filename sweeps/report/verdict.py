"""The verdict: what to use, how sure that is against each baseline, and what more trials would change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from sweeps.confirmation.report import caveat_lines, chance_lines, failure_lines, verdict_line
from sweeps.confirmation.results import CandidateResult, Confirmation
from sweeps.report.section import Figure, Section
from sweeps.report.style import BLUE, GREEN, GREY, PURPLE, RED, figure, plain
from sweeps.report.sweep_data import SweepData
from sweeps.report.wording import count
from sweeps.session.certainty import more_trials, verdicts
from sweeps.session.summary import advice
from sweeps.study.records import TrialRecord, noise_of_difference

ROW, FRAME = 44, 110
"""Pixels of a row of a forest plot, and of all around the rows."""


@dataclass(frozen=True)
class ForestRow:
    """A mean or a difference with its interval."""

    label: str
    mean: float
    half: float
    """Half the width of the interval; NaN without one."""
    colour: str
    note: str = ""
    """Written beside it."""
    points: tuple[float, ...] = ()
    """The single values."""


def verdict_section(data: SweepData) -> Section:
    """The first section of a report."""
    confirmation = data.confirmation
    if confirmation is not None and confirmation.feasible:
        return _confirmed(data, confirmation)
    return _unconfirmed(data)


def _confirmed(data: SweepData, confirmation: Confirmation) -> Section:
    lines = [*chance_lines(confirmation), *failure_lines(confirmation.configurations)]
    shown = [m for m in confirmation.configurations if m in confirmation.feasible]
    values = [_value_row(confirmation, m) for m in reversed(shown)]
    seeds = count(len(confirmation.seeds), "fresh seed")
    return Section(
        key="verdict",
        title="Verdict",
        sentence=as_sentence(verdict_line(confirmation)),
        figures=(
            forest("verdict_values", confirmation.metric, values),
            *_differences(confirmation),
        ),
        caption=f"Means over {seeds} on the test split and their differences, with 95 % intervals (Student's t); "
        "small dots are the seeds. " + " ".join(map(as_sentence, caveat_lines(confirmation))),
        points=tuple(map(as_sentence, [*lines, *_more(data)])),
        commands=_commands(data),
    )


def _value_row(confirmation: Confirmation, measured: CandidateResult) -> ForestRow:
    found = confirmation.estimate(measured)
    assert found is not None  # it is feasible
    winner = measured is confirmation.winner
    colour = GREEN if winner else PURPLE if measured.candidate.baseline else BLUE
    values = measured.values(confirmation.metric)
    points = tuple(values[seed] for seed in confirmation.common_seeds)
    return ForestRow(
        measured.candidate.label, found.mean, found.half, colour, "winner" * winner, points
    )


def _differences(confirmation: Confirmation) -> list[Figure]:
    colours = {"better": GREEN, "worse": RED, "within noise": GREY}
    rows = [
        ForestRow(
            f"{c.first.label} − {c.second.label}",
            c.difference.estimate.mean,
            c.difference.estimate.half,
            colours[c.verdict],
            c.verdict,
        )
        for c in reversed(confirmation.comparisons)
    ]
    name = f"difference in {confirmation.metric}"
    return [forest("verdict_differences", name, rows, zero=True)] if rows else []


def _unconfirmed(data: SweepData) -> Section:
    best = data.best
    if best is None:
        return Section(
            "verdict", "Verdict", as_sentence(advice(data.spec, data.records)), commands=()
        )
    record, metric = best.record, data.spec.objective.metric
    said = verdicts(data.spec, data.records)
    error = (
        ""
        if record.standard_error is None
        else f" ± {record.standard_error:.4f} (standard error over episodes)"
    )
    sentence = (
        f"The best is {data.name_of(best)} with {metric} {record.value:.4f}{error}; it is unconfirmed: "
        "one seed, and the best of several trials."
    )
    measured = [t.record for t in data.baselines if t.record.value is not None and t is not best]
    return Section(
        key="verdict",
        title="Verdict",
        sentence=sentence,
        figures=_search_figures(data, record, measured),
        caption="Values of the search, with two standard errors over episodes to either side. They know nothing of "
        "the spread over seeds, and the best of several is too high on average: a confirmation settles both.",
        points=tuple(map(as_sentence, said)),
        commands=_commands(data),
    )


def _search_figures(
    data: SweepData, best: TrialRecord, baselines: Sequence[TrialRecord]
) -> tuple[Figure, ...]:
    metric = data.spec.objective.metric
    rows = [_search_row(record, PURPLE, record.baseline or "") for record in reversed(baselines)]
    values = forest("verdict_values", metric, [*rows, _search_row(best, GREEN, _label(best))])
    differences = [_search_difference(best, base) for base in reversed(baselines)]
    if not differences:
        return (values,)
    name = f"difference in {metric}"
    return values, forest("verdict_differences", name, differences, zero=True)


def _label(record: TrialRecord) -> str:
    return record.baseline or f"trial {record.number}"


def _search_row(record: TrialRecord, colour: str, label: str) -> ForestRow:
    assert record.value is not None
    error = math.nan if record.standard_error is None else 2 * record.standard_error
    return ForestRow(label, record.value, error, colour)


def _search_difference(best: TrialRecord, base: TrialRecord) -> ForestRow:
    assert best.value is not None
    assert base.value is not None
    gain, noise = best.value - base.value, noise_of_difference(best, base)
    beyond = noise is not None and abs(gain) > noise
    note = "beyond noise, unconfirmed" if beyond else "within noise"
    return ForestRow(
        f"{_label(best)} − {base.baseline}",
        gain,
        math.nan if noise is None else noise,
        GREEN if beyond else GREY,
        note if noise is not None else "noise not known",
    )


def forest(key: str, title: str, rows: Sequence[ForestRow], zero: bool = False) -> Figure:
    """A forest plot: one row for each mean, the last row on top.

    Args:
        key: of the figure.
        title: of the axis.
        rows: from below.
        zero: whether zero is marked, as of differences.
    """
    labels = [plain(row.label) for row in rows]
    plot = figure(
        showlegend=False,
        xaxis={"title": {"text": title}},
        yaxis={"showgrid": False, "range": [-0.7, len(rows) - 0.3], "tickvals": [], "side": "left"},
    )
    plot.update_yaxes(tickvals=list(range(len(rows))), ticktext=labels)
    for place, row in enumerate(rows):
        for trace in _row_traces(place, row):
            plot.add_trace(trace)
    if zero:
        plot.add_vline(x=0, line={"dash": "dot", "width": 1.5})
    said = "; ".join(f"{row.label} {row.mean:.4f} {row.note}".strip() for row in reversed(rows))
    return Figure(key, plot, f"{title}: {said}", FRAME + ROW * max(2, len(rows)), half=True)


def _row_traces(place: int, row: ForestRow) -> list[go.Scatter]:
    interval = None if math.isnan(row.half) else {"array": [row.half], "thickness": 2, "width": 5}
    ends = "" if interval is None else f" [{row.mean - row.half:.4f}, {row.mean + row.half:.4f}]"
    points = go.Scatter(
        x=row.points,
        y=[place] * len(row.points),
        mode="markers",
        marker={"color": row.colour, "size": 5, "opacity": 0.45},
        hoverinfo="x",
    )
    mean = go.Scatter(
        x=[row.mean],
        y=[place],
        error_x=interval,
        mode="markers+text",
        text=[row.note],
        textposition="top center",
        textfont={"color": row.colour},
        marker={"color": row.colour, "size": 11, "symbol": "diamond"},
        hovertemplate=f"{plain(row.label)}<br>{row.mean:.4f}{ends}<extra></extra>",
    )
    return [points, mean]


def _more(data: SweepData) -> list[str]:
    more = more_trials(data.records, data.spec.objective)
    return [] if more is None else [more]


def _commands(data: SweepData) -> tuple[tuple[str, str], ...]:
    """What to type to be surer: more trials, a confirmation, the winner again."""
    others = [one for one in data.commands if "confirm" in one[0] or "sweeps.rerun" in one[0]]
    return (*_more_command(data), *others)


def _more_command(data: SweepData) -> list[tuple[str, str]]:
    """The command that runs as many trials again; none with too few to say what they would change."""
    own = [t for t in data.records if t.baseline is None]
    if not data.resume or more_trials(own, data.spec.objective) is None:
        return []
    command = f"{data.resume} --trials {len(data.records) + len(own)}"
    return [(command, f"search on with another {len(own)} trials")]


def as_sentence(line: str) -> str:
    """A line as it is printed, with a capital and a full stop."""
    return line[:1].upper() + line[1:] + ("" if line.endswith((".", ":")) else ".")
