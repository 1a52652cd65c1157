"""The trials of a sweep as a table: the five best and the baselines, or all of them; and why trials exploded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Column, Table

from fsdet.tables import build_table, needed_width, number_column, print_table
from sweeps.config import SweepSpec
from sweeps.session.display import (
    format_number,
    format_setting,
    format_settings,
    print_line,
    short_name,
)
from sweeps.states import State
from sweeps.study.records import TrialRecord, ranked

TOP = 5
"""Trials that are shown besides the baselines."""
SHOWN = 4
"""Kinds of explosions that are named, the most frequent ones."""


def print_results(
    console: Console, spec: SweepSpec, trials: Sequence[TrialRecord], everything: bool
) -> None:
    """Print the table, as wide as it is; on a terminal without the settings that it has no room for.

    Args:
        console: to print to.
        spec: of the sweep.
        trials: of all sessions.
        everything: whether all trials are shown, each with the reason of its end.
    """
    rows = list(all_rows(spec, trials) if everything else best_rows(spec, trials))
    keys = list(spec.space)
    table = result_table(spec, rows, keys, everything)
    if console.is_terminal and needed_width(console, table) > console.width:
        while needed_width(console, table := stacked(spec, rows, keys)) > console.width and keys:
            keys.pop()
    print_table(console, table)
    done = ranked(trials, spec.objective)
    if done and len(keys) < len(spec.space):
        settings = format_settings(spec.search_space.complete(done[0].parameters))
        print_line(console, f"  settings of the best: {settings}")


def best_rows(spec: SweepSpec, trials: Sequence[TrialRecord]) -> Iterator[tuple[str, TrialRecord]]:
    """The five best, then the baselines that are not among them; each with its heading."""
    top = ranked(trials, spec.objective)[:TOP]
    for place, trial in enumerate(top, 1):
        rank = "best" if place == 1 else str(place)
        yield f"{rank}, {trial.baseline}" if trial.baseline else rank, trial
    yield from ((t.baseline, t) for t in trials if t.baseline and t not in top)


def all_rows(spec: SweepSpec, trials: Sequence[TrialRecord]) -> Iterator[tuple[str, TrialRecord]]:
    """All trials: the completed ones by value, then the others by number."""
    done = ranked(trials, spec.objective)
    for trial in (*done, *(trial for trial in trials if trial not in done)):
        best = "best" if done and trial is done[0] else ""
        yield ", ".join(filter(None, (best, trial.baseline))), trial


def stacked(spec: SweepSpec, rows: Sequence[tuple[str, TrialRecord]], keys: Sequence[str]) -> Table:
    """The table with the words of its headings one below the other, to be narrow."""
    table = result_table(spec, rows, keys, reasons=False)
    for column in table.columns:
        column.header = str(column.header).replace(" ", "\n").replace("\n±\n", " ± ")
        column.vertical = "bottom"
    return table


def result_table(
    spec: SweepSpec,
    rows: Sequence[tuple[str, TrialRecord]],
    keys: Sequence[str],
    reasons: bool = False,
) -> Table:
    """One row a trial.

    Args:
        spec: of the sweep.
        rows: heading and trial.
        keys: settings to show.
        reasons: whether the last column says why a trial ended early.
    """
    columns = ["", "trial", "state", f"{spec.objective.metric} ± SE", "epoch", "swap gap"]
    searched: list[str | Column] = [number_column(short_name(key)) for key in keys]
    table = build_table(*columns, *searched, *(["reason"] if reasons else []), wrap=False)
    for name, trial in rows:
        settings = spec.search_space.complete(trial.parameters)
        values = [format_setting(settings.get(key, "-")) for key in keys]
        gap = format_number(trial.metrics.get("val/swap_gap"), 4)
        epoch = "-" if trial.best_epoch is None else str(trial.best_epoch)
        reason = [trial.reason.partition(":")[0]] if reasons else []
        cells = (name, str(trial.number), str(trial.state), format_value(trial), epoch, gap)
        table.add_row(*cells, *values, *reason)
    return table


def format_value(trial: TrialRecord) -> str:
    """Value at the best epoch and its standard error over episodes."""
    if trial.value is None:
        return "-"
    error = "" if trial.standard_error is None else f" ± {trial.standard_error:.4f}"
    return format_number(trial.value, 4) + error


def explosion_lines(trials: Sequence[TrialRecord]) -> list[str]:
    """Why trials exploded, by rule and module, the most frequent first; empty if none did."""
    kinds: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for trial in trials:
        if trial.state is State.INFEASIBLE:
            found = re.match(r"step (\d+), (.+?)(?::|$)", trial.reason)
            kind, step = (found[2], int(found[1])) if found else (trial.reason, 0)
            kinds[kind].append((trial.number, step))
    lines = []
    for kind, ends in sorted(kinds.items(), key=lambda item: -len(item[1]))[:SHOWN]:
        first, last = min(step for _, step in ends), max(step for _, step in ends)
        steps = f"at step {first}" if first == last else f"at steps {first} to {last}"
        numbers = [str(number) for number, _ in ends[:TOP]] + ["…"] * (len(ends) > TOP)
        who = "trial" if len(ends) == 1 else f"{len(ends)} trials:"
        lines.append(f"exploded by {kind}, {steps}: {who} {', '.join(numbers)}")
    if len(kinds) > SHOWN:
        lines.append(f"exploded otherwise: {len(kinds) - SHOWN} more kinds, see --all")
    return lines
