"""What a sweep found: written, printed, confirmed; and the exit code that says so."""

from __future__ import annotations

from rich.console import Console

from sweeps.confirmation.confirm import confirm
from sweeps.confirmation.words import print_confirmation
from sweeps.machine.machine import Machine
from sweeps.session.orchestrator import SweepResult
from sweeps.session.plan import plan_of_confirmation, say
from sweeps.session.stops import EXIT_NONE_COMPLETED
from sweeps.session.summary import print_next, print_summary, resume_command, write_best
from sweeps.spec import SweepSpec
from sweeps.storage.folder import SweepFolder
from sweeps.storage.mirror import StorageError
from sweeps.study.study import best_of
from sweeps.tracking import Tracker
from sweeps.trial.trial import Train


def conclude(spec: SweepSpec, folder: SweepFolder, result: SweepResult, console: Console) -> int:
    """Write and print what the sweep found; returns the exit code."""
    stop = result.stop
    best = best_of(result.trials, spec.objective.mode)
    try:
        write_best(spec, folder, result.trials)
    except OSError as error:
        say(console, f"{folder.best}: cannot be written ({error.strerror})")
    except StorageError as error:
        say(console, str(error))
    print_summary(console, spec, folder, result.trials)
    if stop is not None:
        say(console, f"\nthe sweep ended before all of its {spec.trials} trials: {stop.reason}")
        say(console, f"to go on: {resume_command(spec, folder)}")
        if stop.exit_code:
            return stop.exit_code
    if best is None:
        return EXIT_NONE_COMPLETED
    if spec.confirm is None:
        print_next(console, spec, folder)
    return 0


def confirm_best(
    spec: SweepSpec,
    folder: SweepFolder,
    result: SweepResult,
    machine: Machine,
    tracker: Tracker,
    console: Console,
    train: Train | None,
) -> int:
    """Confirm the best of the search and print what came of it; returns the exit code."""
    say(console, f"\n{plan_of_confirmation(spec)}")
    done = confirm(spec, folder, result.trials, machine, tracker, console, train)
    if done.confirmation is not None:
        print_confirmation(console, done.confirmation)
        print_next(console, spec, folder)
        return 0 if done.confirmation.winner is not None else EXIT_NONE_COMPLETED
    assert done.stop is not None
    say(console, f"\nthe confirmation ended before all of its runs: {done.stop.reason}")
    say(console, f"to go on: {resume_command(spec, folder)}")
    return done.stop.exit_code
