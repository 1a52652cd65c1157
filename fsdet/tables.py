"""Tables on the terminal: no lines, a bold header, and numbers that are never cut."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

GAP = 2
"""Spaces between two columns."""


def number_column(heading: str) -> Column:
    """A column of numbers: to the right, on one line."""
    return Column(heading, justify="right", no_wrap=True)


class PlainTable(Table):
    """A table whose cells are shown as they are: `[red]` in a name is no markup."""

    def add_row(self, *cells: RenderableType | None, **more: Any) -> None:
        """Add a row."""
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), **more)


def build_table(*columns: str | Column, wrap: bool = True) -> Table:
    """An empty table.

    Args:
        columns: a plain string is the heading of a column of text.
        wrap: whether text may take several lines where the console is narrow.
    """
    built = [Column(Text(c), no_wrap=not wrap) if isinstance(c, str) else c for c in columns]
    return PlainTable(*built, box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))


def print_table(console: Console, table: Table) -> None:
    """Print a table as wide as the console, or wider where columns that must not wrap need it."""
    needed = needed_width(console, table)
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)


def needed_width(console: Console, table: Table) -> int:
    """Characters that a table of `build_table` needs in a line."""
    widths = (_least_width(console, column) for column in table.columns)
    return sum(widths) + GAP * (len(table.columns) - 1)


def _least_width(console: Console, column: Column) -> int:
    """Characters that a column needs: its longest line, or its longest word where it may wrap."""
    wide = console.options.update(width=10_000)
    measured = [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)]
    return max(one.maximum if column.no_wrap else one.minimum for one in measured)
