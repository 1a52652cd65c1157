"""`python -m sweeps.best [NAME]`: show a sweep's best beside its baselines, write best.yaml and trials.csv.

Where the sweep was confirmed, its best is the confirmed winner.
"""

from __future__ import annotations

import argparse
import errno
import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from fsdet.command import ExitCode, FlagParser, run_command
from fsdet.json_output import add_json_flag, print_json
from sweeps.confirmation.report import confirmation_of, print_confirmation, write_winner
from sweeps.confirmation.results import CONFIRM_FILE, load_findings
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.session.plain_data import sweep_data, write_trials
from sweeps.session.summary import print_next_commands, print_summary, write_best
from sweeps.storage.known_sweeps import add_storage_flag, latest_sweep
from sweeps.storage.lookup import find_folder
from sweeps.study.location import store_of
from sweeps.study.study import read_trials


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    def body() -> int:
        options = parse(arguments)
        return show_best(options.name, options.storage, options.all, options.json)

    return run_command(body, mistakes=(SweepError,), redact=without_password)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = FlagParser("python -m sweeps.best", description=__doc__)
    parser.add_argument(
        "name",
        nargs="?",
        help="name of the sweep; where none has exactly this name, the latest numbered one of it; "
        "without a name the latest sweep",
    )
    add_storage_flag(parser)
    parser.add_argument("--all", action="store_true", help="show all trials")
    add_json_flag(parser)
    return parser.parse_args(arguments)


def show_best(
    name: str | None, storage: str | None, everything: bool = False, as_json: bool = False
) -> ExitCode:
    """Print the best of a sweep and write `best.yaml` and `trials.csv`.

    Args:
        name: of the sweep; None for the latest.
        storage: see `sweeps_root`.
        everything: whether all trials are shown.
        as_json: whether the sweep is printed as JSON instead.

    Raises:
        SweepError: there is no such sweep, or it cannot be read.
    """
    folder = latest_sweep(storage) if name is None else find_folder(name, storage)
    spec, trials = folder.load_spec(), read_trials(store_of(folder))
    confirmation = confirmation_of(spec, folder)
    path, code = None, ExitCode.OK
    try:
        write_trials(spec, folder, trials)
        path = (
            write_best(spec, folder, trials)
            if confirmation is None
            else write_winner(spec, folder, confirmation)
        )
        code = ExitCode.NOTHING_FOUND if path is None else ExitCode.OK
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        sys.stderr.write(  # it can be shown all the same
            f"{error.filename}: cannot be written ({error.strerror}); give yourself the right to write there to get "
            "best.yaml\n"
        )
    if as_json:
        findings = load_findings(folder.path / CONFIRM_FILE)
        print_json({**sweep_data(spec, folder, trials), "confirmation": findings})
        return code
    console = Console()
    print_summary(console, spec, folder, trials, everything)
    if confirmation is not None:
        print_confirmation(console, confirmation)
    if path is not None:
        print_next_commands(console, spec, folder)
        print(f"\nwritten: {path}, {folder.trials_file.name} beside it")
    return code


if __name__ == "__main__":
    sys.exit(main())
