"""`python -m sweeps.sync NAME`: write to MLflow what is missing there of a sweep.

A tracking server may be away when a sweep ends. Everything that a trial measures is in its folder too; this command
compares the study and the folders with the runs in MLflow, and writes the rest.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from fsdet.command import ExitCode, FlagParser, run_command
from sweeps.config import SweepSpec
from sweeps.confirmation.confirm import log_confirmation
from sweeps.confirmation.report import confirmation_of
from sweeps.confirmation.results import CONFIRM_FOLDER
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.session.callbacks import TrackerCallback
from sweeps.session.parent_run import end_parent_run, start_parent_run
from sweeps.session.resume import earlier_runs, is_current, reconcile_runs
from sweeps.session.session import trial_context
from sweeps.states import ENDED, Outcome, State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.known_sweeps import add_storage_flag
from sweeps.storage.lookup import find_folder
from sweeps.study.location import store_of
from sweeps.study.records import TrialRecord
from sweeps.study.study import read_trials
from sweeps.tracking import StoredRun, Tracker, recorded_uri


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return run_command(lambda: run(arguments), mistakes=(SweepError,), redact=without_password)


def run(arguments: Sequence[str] | None) -> ExitCode:
    """Write what is missing of the command line's sweep."""
    parser = FlagParser("python -m sweeps.sync", description=__doc__)
    parser.add_argument("name", help="name of the sweep")
    add_storage_flag(parser)
    options = parser.parse_args(arguments)
    return sync(options.name, options.storage)


def sync(name: str, storage: str | None = None) -> ExitCode:
    """Write what is missing of a sweep; returns the exit code.

    Raises:
        SweepError: there is no such sweep, it runs now, or the store cannot be opened.
    """
    folder = find_folder(name, storage)
    spec = folder.load_spec()
    uri = recorded_uri(folder.load_record().get("uri"), spec.tracking, folder.name)
    with folder.locked():
        tracker = Tracker(uri, spec.tracking.experiment)
        try:
            count = write_missing(spec, folder, tracker)
        finally:
            missing = tracker.close()
    if missing:
        raise SweepError(
            f"{tracker.public_uri}: {missing} writes are still missing; run this again when it answers"
        )
    done = f"{count} runs were written" if count else "no run was missing"
    print(f"sweep {folder.name}: {done} in {tracker.public_uri}")
    return ExitCode.OK


def write_missing(spec: SweepSpec, folder: SweepFolder, tracker: Tracker) -> int:
    """Queue the runs that are missing or open, and the sweep's own; returns their number without the latter."""
    runs = earlier_runs(tracker, folder)
    store = store_of(folder)
    trials = read_trials(store)
    tags = start_parent_run(tracker, spec, folder, runs)
    count = write_trials(spec, folder, tracker, trials, folder.trials_dir.name, runs, tags)
    confirmation = confirmation_of(spec, folder)
    if spec.confirm is not None and (folder.path / CONFIRM_FOLDER).is_dir():
        sweep_id = f"{tags['sweep.id']}.{CONFIRM_FOLDER}"
        count += write_trials(
            spec.for_confirmation,
            folder,
            tracker,
            read_trials(store.beside(CONFIRM_FOLDER)),
            CONFIRM_FOLDER,
            tracker.stored_runs(sweep_id),
            {**tags, "sweep.id": sweep_id},
        )
    if confirmation is not None:
        log_confirmation(spec, confirmation, folder, tracker, trials)
    else:
        done = all(trial.state in ENDED for trial in trials)
        outcome = Outcome(State.COMPLETED if done else State.INTERRUPTED)
        end_parent_run(tracker, spec, folder, trials, outcome)
    return count


def write_trials(
    spec: SweepSpec,
    folder: SweepFolder,
    tracker: Tracker,
    trials: Sequence[TrialRecord],
    name: str,
    runs: dict[str, StoredRun],
    tags: dict[str, str],
) -> int:
    """Queue the runs of the trials of one study; returns their number.

    Args:
        spec: of the study.
        folder: of the sweep.
        tracker: with the parent run open.
        trials: of the study.
        name: of the folder of all trials.
        runs: tag `sweep.trial` -> run in the tracker.
        tags: of all runs.
    """
    context = trial_context(spec, folder, name, {})
    run_ids = {key: run.run_id for key, run in runs.items()}
    callback = TrackerCallback(context, tags, tracker, run_ids)
    reconcile_runs(trials, runs, spec, context, callback, tracker)
    return sum(not is_current(trial, runs.get(trial.run_key)) for trial in trials)


if __name__ == "__main__":
    sys.exit(main())
