"""`python -m sweeps.report NAME`: write the report of a sweep, one HTML file and its figures as PNG.

The page needs no network. It is written into the sweep's folder, and logged to its run in MLflow. A sweep that is
still running is shown as far as it is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from fsdet.command import ExitCode, FlagParser, run_command
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.session.display import print_line
from sweeps.storage.known_sweeps import add_storage_flag
from sweeps.storage.lookup import find_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return run_command(lambda: run(arguments), mistakes=(SweepError,), redact=without_password)


def run(arguments: Sequence[str] | None) -> ExitCode:
    """Write the report that the command line asks for."""
    parser = FlagParser("python -m sweeps.report", description=__doc__)
    parser.add_argument(
        "name",
        help="name of the sweep; where none has exactly this name, the latest numbered one of it",
    )
    add_storage_flag(parser)
    options = parser.parse_args(arguments)
    return show_report(options.name, options.storage)


def show_report(name: str, storage: str | None) -> ExitCode:
    """Write the report of a sweep, log it, and print where it is.

    Raises:
        SweepError: there is no such sweep, it cannot be read, or the report cannot be written.
    """
    folder, console = find_folder(name, storage), Console()
    from sweeps.report.write import (  # some seconds: only for a sweep that exists
        PAGE,
        log_to_store,
        print_report,
        shown_progress,
        write_report,
    )

    try:
        with shown_progress(console) as say:
            report = write_report(folder, say)
            say("report: logging it to MLflow")
            missing = log_to_store(folder, report)
    except OSError as error:
        raise SweepError(
            f"{folder.path / PAGE}: cannot be written ({error.strerror}); free the disk, or give yourself the right to "
            "write there"
        ) from None
    print_report(report, console)
    if missing:
        print_line(console, f"  not logged to MLflow: {missing}")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
