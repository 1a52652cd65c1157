"""`python -m fsdet.health RUN_DIR`: the health report of a run, computed from its files.

RUN_DIR is the folder of a run, the name of a sweep (its best trial), or a checkpoint file.
Exit code 0 if nothing failed, 3 if a line failed, 2 if RUN_DIR is not a run folder or cannot be read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column
from rich.text import Text

from fsdet.command import ExitCode, FlagParser, run_command
from fsdet.json_output import add_json_flag, print_json
from fsdet.tables import build_table, number_column, print_table

if TYPE_CHECKING:  # torch takes seconds to load, and --help needs none of it
    from fsdet.health.checklist import HealthReport
    from fsdet.health.run_record import Check

PLAIN_WIDTH = 160
"""Columns of the table without a terminal."""
MIN_WIDTH_FOR_BANDS = 120
"""Narrower terminals do not show the bands."""
STATUS_STYLES = {
    "pass": ("✓ pass", "green"),
    "warn": ("! warn", "yellow"),
    "fail": ("✗ fail", "bold red"),
    "skip": ("– skip", "dim"),
}
"""Status -> its text and its colour."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_command(lambda: run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Show the report of the command line's run; returns the exit code."""
    parser = FlagParser("python -m fsdet.health", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="checkpoint_dir of a run, or name of a sweep")
    add_json_flag(parser)
    options = parser.parse_args(arguments)
    return report_on(options.run_dir, options.json)


def report_on(run_dir: Path, as_json: bool = False) -> int:
    """Show the report of a run; returns the exit code."""
    from fsdet.checkpoint.lookup import find_run
    from fsdet.health.checklist import health_of_run

    report = health_of_run(find_run(run_dir, "RUN_DIR"))
    if as_json:
        print_json(report)
    else:
        show(report)
    return ExitCode.EXPLODED if report.failed else ExitCode.OK


def show(report: HealthReport) -> None:
    """Print the checklist, the dead tensors and the verdict; colours on a terminal only."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    wide = console.width >= MIN_WIDTH_FOR_BANDS
    names = [Column(heading, no_wrap=True) for heading in ("status", "line")]
    numbers = map(number_column, ("value", "band") if wide else ("value",))
    table = build_table(*names, *numbers, "message")
    for check in report.checks:
        status, line, value, band, message = cells(check)
        table.add_row(status, line, value, *([band] if wide else []), message)
    print_table(console, table)
    for name in report.dead:
        console.print(f"dead: {escape(name)}", style="red")
    style = "bold red" if report.failed else "bold"
    console.print(f"\n{escape(report.verdict)}", style=style)


def cells(check: Check) -> tuple[Text, str, str, str, str]:
    """One line of the table."""
    word, colour = STATUS_STYLES[check.status]
    value = "" if check.value is None else f"{check.value:.4g}"
    band = "" if check.band is None else f"{check.band[0]:g} … {check.band[1]:g}"
    return Text(word, colour), check.name, value, band, check.message


if __name__ == "__main__":
    sys.exit(main())
