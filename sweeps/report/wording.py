"""Numbers, lists and trials in words, as the sentences of a report use them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sweeps.report.sweep_data import ShownTrial
from sweeps.session.display import format_setting, short_name

MANY = 8
"""Settings that are listed for a trial."""


def join(words: Iterable[object]) -> str:
    """`a, b and c`."""
    found = [str(word) for word in words]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def count(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def number(value: float) -> str:
    """Three significant digits, without an exponent: `0.123`, `42,100`."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"


def share(part: float, whole: float) -> str:
    """A share in percent; small ones are not called nothing."""
    if not whole:
        return "0 %"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 1 or part == 0 else "under 1 %"


def settings_of(trial: ShownTrial, first: Sequence[str] = ()) -> str:
    """`clip norm 3.2, dfl weight 0.5`; those in `first` come first."""
    given = trial.record.parameters
    keys = [*(key for key in first if key in given), *(key for key in given if key not in first)]
    shown = [f"{short_name(key)} {format_setting(given[key])}" for key in keys[:MANY]]
    return ", ".join(shown)
