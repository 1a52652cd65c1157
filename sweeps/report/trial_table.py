"""The table of trials."""

from __future__ import annotations

from typing import Any

from sweeps.report.section import Section, SortableTable
from sweeps.report.style import kind_of
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.wording import join
from sweeps.session.display import short_name
from sweeps.session.summary import counts
from sweeps.states import State

ORDER = (
    State.COMPLETED,
    State.RUNNING,
    State.PAUSED,
    State.INTERRUPTED,
    State.PRUNED,
    State.INFEASIBLE,
    State.FAILED,
)
"""Order of the states in the table."""


def table_section(data: SweepData) -> Section:
    """All trials, the best first."""
    objective = data.spec.objective
    table = SortableTable(
        columns=(
            ("trial", "number"),
            ("name", "text"),
            ("state", "text"),
            (objective.metric, "number"),
            ("± SE", "number"),
            ("best epoch", "number"),
            ("swap gap", "number"),
            ("peak norm", "number"),
            ("clipped %", "number"),
            ("norm spikes %", "number"),
            ("loss spikes %", "number"),
            ("peak g²/v", "number"),
            *((short_name(key), "number") for key in data.spec.space),
            ("seconds", "number"),
            ("why it ended", "text"),
        ),
        rows=tuple(_row(data, trial) for trial in in_order(data)),
        classes=tuple(kind_of(trial, data.winner) for trial in in_order(data)),
    )
    return Section("trials", "Trials", _sentence(data), table=table)


def in_order(data: SweepData) -> list[ShownTrial]:
    """Completed trials by their value, then the others by state and value."""
    sign = data.spec.objective.sign

    def key(trial: ShownTrial) -> tuple[int, int, float, int]:
        record = trial.record
        epoch = max(trial.curve, default=0)
        value = 0.0 if record.value is None else record.value
        first = 0 if record.state is State.COMPLETED else -epoch
        return ORDER.index(record.state), first, -sign * value, record.number

    return sorted(data.trials, key=key)


def _row(data: SweepData, trial: ShownTrial) -> tuple[Any, ...]:
    record, series = trial.record, trial.series
    settings = data.spec.search_space.complete(record.parameters)
    return (
        record.number,
        record.title,
        str(record.state),
        rounded(record.value),
        rounded(record.standard_error, 2),
        record.best_epoch,
        rounded(record.metrics.get("val/swap_gap"), 3),
        None if series is None else rounded(series.peak, 3),
        _percent(None if series is None else series.clipped),
        _percent(None if series is None else series.norm_spikes),
        _percent(None if series is None else series.loss_spikes),
        None if series is None else rounded(series.peak_rms, 3),
        *(_cell(settings.get(key)) for key in data.spec.space),
        round(record.seconds, 1),
        record.reason,
    )


def rounded(value: float | None, digits: int = 4) -> float | None:
    """A number with so many significant digits."""
    return None if value is None else float(f"{value:.{digits}g}")


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    return rounded(value, 3) if isinstance(value, int | float) else str(value)


def _sentence(data: SweepData) -> str:
    said = counts(data.records)
    best = data.best
    if best is None:
        return f"{said}; none has a final value yet."
    text = f"{said}; the best of the search is {data.name_of(best)} with {best.record.value:.4f}"
    behind = [
        f"{data.name_of(t)} at {place + 1}"
        for place, t in enumerate(in_order(data))
        if t.record.baseline and t.record.state is State.COMPLETED and t is not best
    ]
    completed = sum(t.record.state is State.COMPLETED for t in data.trials)
    return f"{text}; of the {completed} completed, {join(behind)}." if behind else f"{text}."
