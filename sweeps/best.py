"""`python -m sweeps.best NAME`: show a sweep's best beside its baselines, write best.yaml.

Where the sweep was confirmed, its best is the confirmed winner.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from fsdet.command import ExitCode, run_command
from sweeps.confirmation.report import confirmation_of, print_confirmation, write_winner
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.session.summary import print_next_commands, print_summary, write_best
from sweeps.storage.folder import find_folder
from sweeps.study.location import store_of
from sweeps.study.study import read_trials


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parser = argparse.ArgumentParser(prog="python -m sweeps.best", description=__doc__)
    parser.add_argument(
        "name",
        help="name of the sweep; where none has exactly this name, the latest numbered one of it",
    )
    parser.add_argument(
        "--storage", metavar="PATH", help="the storage.path of the sweep's YAML, where it has one"
    )
    parser.add_argument("--all", action="store_true", help="show all trials")
    options = parser.parse_args(arguments)
    return run_command(
        lambda: show_best(options.name, options.storage, options.all),
        mistakes=(SweepError,),
        redact=without_password,
    )


def show_best(name: str, storage: str | None, everything: bool = False) -> ExitCode:
    """Print the best of a sweep, or all of its trials, and write `best.yaml`.

    Raises:
        SweepError: there is no such sweep, or it cannot be read.
    """
    folder = find_folder(name, storage)
    spec, trials = folder.load_spec(), read_trials(store_of(folder))
    confirmation = confirmation_of(spec, folder)
    path = write_best(spec, folder, trials)
    print_summary(Console(), spec, folder, trials, everything)
    if confirmation is not None:
        path = write_winner(spec, folder, confirmation)
        print_confirmation(Console(), confirmation)
    if path is None:
        return ExitCode.NOTHING_FOUND
    print_next_commands(Console(), spec, folder)
    print(f"\nwritten: {path}")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
