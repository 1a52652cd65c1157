"""Runs the best configurations and the baselines again, on classes and at seeds that chose nothing.

The search keeps the best of many values measured once, which flatters it. Here each of a few
configurations is run at the same fresh seeds and measured once, at its end, on the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from sweeps.confirmation.candidates import (
    Candidate,
    ablations_of,
    candidates_of,
    jobs_of,
    seeds_of,
)
from sweeps.confirmation.jobs import JobPlan, run_jobs
from sweeps.confirmation.measured import (
    FILE,
    FOLDER,
    Confirmation,
    Measured,
    SeedResult,
    save_confirmation,
)
from sweeps.confirmation.winner import write_winner
from sweeps.confirmation.words import conclusions, plan_of_confirmation, print_confirmation
from sweeps.machine.machine import Machine
from sweeps.search.stops import EXIT_NONE_COMPLETED, Stop, Stops
from sweeps.session.display import say
from sweeps.session.recorder import SWEEP_RUN
from sweeps.session.summary import print_next, resume_command
from sweeps.session.tuning import Session
from sweeps.spec import SweepSpec
from sweeps.states import Outcome, State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.shipping import shipped
from sweeps.study.study import TrialRecord
from sweeps.tracking import Tracker
from sweeps.trial.trial import Train


@dataclass(frozen=True)
class Confirmed:
    """How a confirmation ended."""

    confirmation: Confirmation | None
    """None if it was cut off before all configurations were measured."""
    stop: Stop | None
    """Why it was cut off."""


def confirm_best(
    spec: SweepSpec,
    folder: SweepFolder,
    trials: Sequence[TrialRecord],
    machine: Machine,
    tracker: Tracker,
    console: Console,
    train: Train | None = None,
) -> int:
    """Confirm the best of the search and print what came of it; returns the exit code. See `confirm`."""
    say(console, f"\n{plan_of_confirmation(spec)}")
    done = confirm(spec, folder, trials, machine, tracker, console, train)
    if done.confirmation is not None:
        print_confirmation(console, done.confirmation)
        print_next(console, spec, folder)
        return 0 if done.confirmation.winner is not None else EXIT_NONE_COMPLETED
    assert done.stop is not None
    say(console, f"\nthe confirmation ended before all of its runs: {done.stop.reason}")
    say(console, f"to go on: {resume_command(spec, folder)}")
    return done.stop.exit_code


def confirm(
    spec: SweepSpec,
    folder: SweepFolder,
    trials: Sequence[TrialRecord],
    machine: Machine,
    tracker: Tracker,
    console: Console,
    train: Train | None = None,
) -> Confirmed:
    """Confirm the best of `trials` and the baselines; what an earlier session has done is kept.

    Writes `confirm.json` and the winner's `best.yaml`.

    Args:
        spec: checked, with `confirm`.
        folder: of the sweep.
        trials: of the search.
        machine: how many CPUs and GPUs Ray may use.
        tracker: the one that holds the sweep's run.
        console: for the display.
        train: the trainer, if not `fsdet.train.train`.
    """
    assert spec.confirm is not None
    jobs_spec, seeds = spec.public.for_confirmation, seeds_of(spec, spec.confirm)
    session = Session(folder, machine, tracker, Stops(jobs_spec), train)
    with folder.held():
        (folder.path / FILE).unlink(missing_ok=True)  # more trials or seeds may be asked for now
        chosen = candidates_of(spec, spec.confirm, trials)
        measured = measure(jobs_spec, chosen, seeds, session, console)
        metric, mode = jobs_spec.objective.metric, jobs_spec.objective.mode
        found = Confirmation(metric, mode, tuple(seeds), tuple(measured))
        if session.stops.stop is None and spec.ablate:
            found = replace(found, ablation=tuple(ablate(jobs_spec, found, session, console)))
        if session.stops.stop is not None:
            return Confirmed(None, session.stops.stop)
        keep(spec, found, session)
    return Confirmed(found, None)


def measure(
    spec: SweepSpec,
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    session: Session,
    console: Console,
) -> list[Measured]:
    """Run every candidate at every seed."""
    jobs = jobs_of(candidates, seeds)
    folder = session.folder
    places = shipped(spec, folder, session.machine.here)
    plan = JobPlan(spec, folder.path / FOLDER, folder.below(FOLDER), places, tuple(jobs))
    ends: dict[Candidate | str, dict[int, SeedResult]] = {c.folder: {} for c in candidates}
    for job, end in zip(jobs, run_jobs(plan, session, console), strict=True):
        if end is not None:
            ends[job.candidate.folder][job.seed] = end
        elif session.stops.stop is None:
            log = session.folder.ray_log
            session.stops.request(Stop(f"Ray Tune ended before its jobs; see {log}", 1))
    return [Measured(candidate, ends[candidate.folder]) for candidate in candidates]


def ablate(
    spec: SweepSpec, confirmation: Confirmation, session: Session, console: Console
) -> list[Measured]:
    """Set the winner's settings back to those of the best baseline, one at a time."""
    winner, base = confirmation.winner, confirmation.best_baseline
    if winner is None or base is None or winner is base:
        return []
    factors = ablations_of(spec, winner.candidate, base.candidate)
    return measure(spec, factors, confirmation.seeds, session, console)


def keep(spec: SweepSpec, confirmation: Confirmation, session: Session) -> None:
    """Write the files, and add the findings to the sweep's run."""
    folder, winner = session.folder, confirmation.winner
    words = conclusions(confirmation)
    path = folder.path / FILE
    save_confirmation(path, confirmation, words)
    folder.push(path)
    metrics = {}
    if winner is not None:
        write_winner(spec, folder, confirmation)
        found = confirmation.estimate(winner)
        assert found is not None
        metrics = {f"confirmed/{confirmation.metric}": found.mean}
    outcome = Outcome(State.COMPLETED, words[0])
    session.tracker.end(SWEEP_RUN, outcome, [path, folder.best], metrics)
