"""The live table of a running sweep, with a progress bar below it, for terminals of 60 columns and more.

State, trial and metric are always shown in full; where there is no room for all columns, settings are left out first.
Within an epoch it shows what the trials have written to their own folders, and for trials on other machines without a
shared folder what they reported last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fsdet.durations import duration
from sweeps.config import SweepSpec
from sweeps.session.display import (
    Display,
    PlainDisplay,
    Row,
    format_number,
    format_setting,
    short_name,
    write_line,
)
from sweeps.session.norm_curve import WIDTH, StepTail
from sweeps.states import State
from sweeps.trial.messages import TrialEnd, TrialRequest

COLOURS = {
    State.RUNNING: "cyan",
    State.COMPLETED: "green",
    State.PAUSED: "blue",
    State.PRUNED: "yellow",
    State.INFEASIBLE: "red",
    State.FAILED: "bold red",
    State.INTERRUPTED: "dim",
}
GAP = 2
"""Spaces between two columns."""
FOLLOW_SECONDS = 1.0
"""Time between two looks into the folders of running trials."""
SHOW_CURSOR = "\x1b[?25h"


@dataclass(frozen=True)
class Column:
    """One column of the live table."""

    heading: str
    """Its words stand one below the other in the columns of settings."""
    cells: list[Text]
    right: bool = True

    @property
    def width(self) -> int:
        """Characters that it needs."""
        lines = [*self.heading.split("\n"), *(cell.plain for cell in self.cells)]
        return max(cell_len(line) for line in lines)


class LiveDisplay(Display):
    """A live table with a progress bar below it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._began = time.monotonic()
        self._tails: dict[int, StepTail] = {}
        self._followed = 0.0
        self._message = ""
        self._live = Live(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show_message(self, text: str) -> None:
        if self._live.is_started and not self._message:
            self._message = text
        else:  # the process may end right after this
            write_line(SHOW_CURSOR * self._live.is_started + text)

    def on_start(self, request: TrialRequest) -> None:
        super().on_start(request)
        self._tails[request.number] = StepTail(request.config.checkpoint_dir)

    def on_end(self, end: TrialEnd) -> None:
        super().on_end(end)
        self._tails.pop(end.number, None)

    def follow(self) -> None:
        """Read what running trials have written to their folders since the last time."""
        for number, tail in list(self._tails.items()):
            row = self.rows[number]
            for step, norm in tail.read():
                if row.curve is not None:
                    row.curve.add(step, norm)

    def render(self) -> Group:
        """Table, counts, the latest explosion and the bar."""
        now = time.monotonic()
        if now - self._followed >= FOLLOW_SECONDS:
            self._followed = now
            self.follow()
        below = self._below(now - self._began)
        table, hidden = self._table(room=self.console.height - len(below) - 2)
        counts = self.counts() or "starting the workers"
        more = f"; {hidden} settings do not fit" if hidden else ""
        text = counts + more if len(counts + more) <= self.console.width else counts
        return Group(table, Text(text, "dim", no_wrap=True, overflow="ellipsis"), *below)

    def _below(self, seconds: float) -> list[RenderableType]:
        lines: list[RenderableType] = []
        row = self.latest_explosion
        if row is not None:
            text = f"exploded: {self.noun} {row.label}, {row.reason}"
            lines.append(Text(text, "red", no_wrap=True, overflow="ellipsis"))
        if self._message:
            lines.append(Text(self._message, "bold yellow", no_wrap=True, overflow="ellipsis"))
        return [*lines, self._bar(seconds)]

    def _bar(self, seconds: float) -> Table:
        done = self.done()
        here = done - self.earlier
        text = f"{done:.1f} of {self.trials} {self.noun}s, {duration(seconds)}"
        left = self.trials - done
        if here >= 1 and left >= 1:  # how many are promoted at the end is not known before
            text += f", about {duration(seconds / here * left)} left"
        bar = Table.grid(padding=(0, 1))
        width = max(4, min(40, self.console.width - len(text) - 2))
        bar.add_row(ProgressBar(total=self.trials, completed=done, width=width), text)
        return bar

    def _table(self, room: int) -> tuple[Table, int]:
        """The table in at most `room` lines, and how many settings it leaves out for want of width."""
        columns, _ = self._fitting(self._shown_rows(room - 1))
        heading = 1 + max(column.heading.count("\n") for column in columns)
        rows = self._shown_rows(room - heading)
        columns, hidden = self._fitting(rows)
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, GAP, 0, 0))
        for column in columns:
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                no_wrap=True,
                vertical="bottom",
            )
        best = self.best()
        for number, row in enumerate(rows):
            cells = [column.cells[number] for column in columns]
            table.add_row(*cells, style="bold" if row is best else None)
        return table, hidden

    def _fitting(self, rows: Sequence[Row]) -> tuple[list[Column], int]:
        """The columns that the terminal has room for, and how many settings are left out."""
        needed, optional = self._measured(rows)
        others = [*optional, *self._settings(rows)]
        room = self.console.width - sum(column.width + GAP for column in needed) + GAP
        widths = accumulate(column.width + GAP for column in others)
        fit = sum(width <= room for width in widths)
        shown, hidden = others[:fit], len(others) - max(fit, len(optional))
        trial, state, value = needed
        return [trial, state, *shown[:1], value, *shown[1:]], hidden

    def _measured(self, rows: Sequence[Row]) -> tuple[list[Column], list[Column]]:
        """Columns that are always shown, and those that go after the settings, the first one last."""
        best, plain = self.best(), self.console.options.ascii_only
        mark = " *" if plain else " ★"

        def column(heading: str, text: Callable[[Row], str | Text], right: bool = True) -> Column:
            texts = map(text, rows)
            cells = [Text(one) if isinstance(one, str) else one for one in texts]
            return Column(heading, cells, right)

        def state(row: Row) -> Text:
            return Text(str(row.state) + " (retried)" * row.retried, COLOURS[row.state])

        def epoch(row: Row) -> str:
            running = row.state is State.RUNNING
            done = f"{row.progress:.1f}" if running else str(row.epoch)
            return f"{done}/{self.epochs}"

        needed = [
            column(self.noun, lambda row: row.label + mark * (row is best), right=False),
            column("state", state, right=False),
            column(self.objective.metric, lambda row: format_number(row.value, 4)),
        ]
        curve = column("norm".ljust(WIDTH), lambda row: Text(str(row.curve or ""), "cyan"), False)
        peak = column("peak norm", lambda row: format_number(peak_norm(row), 3, significant=True))
        return needed, [column("epoch", epoch), *([] if plain else [curve]), peak]

    def _settings(self, rows: Sequence[Row]) -> list[Column]:
        keys = dict.fromkeys(key for row in rows for key in row.parameters)
        return [
            Column(
                short_name(key).replace(" ", "\n"),
                [Text(format_setting(row.parameters.get(key, "-"))) for row in rows],
            )
            for key in keys
        ]

    def _shown_rows(self, room: int) -> list[Row]:
        """As many as there is room for: the best first, the others by number; running ones before those that ended."""
        best = self.best()

        def key(row: Row) -> tuple[bool, bool, bool, int]:
            running, complete = row.state is State.RUNNING, row.state is State.COMPLETED
            return row is not best, not running, not complete, -row.number

        shown = sorted(self.rows.values(), key=key)[: max(room, 2)]
        return sorted(shown, key=lambda row: (row is not best, row.number))


def peak_norm(row: Row) -> float | None:
    """The largest finite gradient norm that is known of a trial."""
    found = [row.peak_norm, None if row.curve is None else row.curve.peak]
    return max((norm for norm in found if norm is not None), default=None)


def build_display(
    spec: SweepSpec, console: Console, trials: int | None = None, noun: str = "trial"
) -> PlainDisplay | LiveDisplay:
    """The live display on a terminal, the plain one elsewhere; see `Display`."""
    kind = LiveDisplay if console.is_interactive else PlainDisplay
    return kind(spec, console, trials, noun)
