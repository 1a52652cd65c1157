"""`python -m sweeps.list`: the sweeps of this folder, the latest first: state, trials, the best, when."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from fsdet.command import ExitCode, FlagParser, run_command
from fsdet.json_output import add_json_flag, print_json
from fsdet.tables import build_table, number_column, print_table
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.session.display import format_number
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.known_sweeps import add_storage_flag, sweeps_by_time
from sweeps.storage.lookup import sweeps_root
from sweeps.study.location import store_of
from sweeps.study.records import TrialRecord, best_of
from sweeps.study.study import read_trials


@dataclass(frozen=True)
class ListedSweep:
    """One sweep, as it is listed."""

    name: str
    state: str
    """`running`, `done`, `stopped` before all of its trials, or `unreadable`."""
    trials: int = 0
    """Trials that have begun."""
    of: int = 0
    """Trials that were asked for."""
    counts: dict[str, int] = field(default_factory=dict)
    """State -> number of trials."""
    metric: str = ""
    best: float | None = None
    best_trial: int | None = None
    latest: float = 0.0
    """When its latest session began, in seconds since 1970."""
    folder: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_command(lambda: run(arguments), mistakes=(SweepError,), redact=without_password)


def run(arguments: Sequence[str] | None) -> ExitCode:
    """Print all sweeps as the command line says."""
    parser = FlagParser("python -m sweeps.list", description=__doc__)
    add_storage_flag(parser)
    add_json_flag(parser)
    options = parser.parse_args(arguments)
    return show_list(options.storage, options.json)


def show_list(storage: str | None, as_json: bool) -> ExitCode:
    """Print all sweeps; returns the exit code.

    Raises:
        SweepError: the storage cannot be read.
    """
    sweeps = [describe_sweep(folder, latest) for folder, latest in sweeps_by_time(storage)]
    if as_json:
        print_json(sweeps)
        return ExitCode.OK
    if not sweeps:
        print(f"no sweeps in {storage or sweeps_root()}; `python -m sweeps.run FILE` starts one")
        return ExitCode.OK
    columns = (
        "sweep",
        "state",
        number_column("trials"),
        "best",
        number_column("exploded"),
        "latest",
    )
    table = build_table(*columns, wrap=False)
    for one in sweeps:
        best = f"{one.metric} {format_number(one.best, 4)} (trial {one.best_trial})"
        table.add_row(
            one.name,
            one.state,
            f"{one.trials}/{one.of}",
            "-" if one.best is None else best,
            str(one.counts.get(State.INFEASIBLE, 0)),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.latest)),
        )
    print_table(Console(), table)
    return ExitCode.OK


def describe_sweep(folder: SweepFolder, latest: float) -> ListedSweep:
    """What is listed of a sweep."""
    listed = ListedSweep(
        folder.name, "unreadable", latest=latest, folder=folder.url or str(folder.path)
    )
    try:
        spec, store = folder.load_spec(), store_of(folder)
        trials = read_trials(store) if store.exists() else []
    except (SweepError, ValueError, OSError):
        return listed
    best = best_of(trials, spec.objective)
    return replace(
        listed,
        state="running" if store.is_locked() else state_of(trials, spec.trials),
        trials=len(trials),
        of=spec.trials,
        counts=dict(Counter(str(trial.state) for trial in trials)),
        metric=spec.objective.metric,
        best=None if best is None else best.value,
        best_trial=None if best is None else best.number,
    )


def state_of(trials: Sequence[TrialRecord], asked: int) -> str:
    """The state of a sweep that no process runs."""
    left = (State.INTERRUPTED, State.PAUSED, State.RUNNING)
    done = len(trials) >= asked and not any(trial.state in left for trial in trials)
    return "done" if done else "stopped"


if __name__ == "__main__":
    sys.exit(main())
