"""Runs the best configurations and the baselines again, on classes and at seeds that played no part in the search.

The best of many values that were measured once is biased upwards. Here each of a few configurations is
run at the same fresh seeds and measured once, at its end, on the test split. Every run is a trial of a
second study of the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import optuna
from rich.console import Console

from fsdet.command import ExitCode
from sweeps.config import SweepSpec
from sweeps.confirmation.candidates import (
    Candidate,
    ablations_of,
    candidates_of,
    preset_of,
    presets_of,
    seeds_of,
)
from sweeps.confirmation.report import (
    conclusions,
    plan_of_confirmation,
    print_confirmation,
    write_winner,
)
from sweeps.confirmation.results import (
    CONFIRM_FILE,
    CONFIRM_FOLDER,
    CandidateResult,
    Confirmation,
    save_confirmation,
)
from sweeps.search.sampler import build_sampler
from sweeps.search.stopping import StoppingCriteria, StopReason
from sweeps.session.callbacks import SWEEP_RUN
from sweeps.session.display import print_line
from sweeps.session.live_display import build_display
from sweeps.session.parent_run import end_parent_run
from sweeps.session.resume import close_recorded, unfinished
from sweeps.session.session import Session, StudyRun, run_trials, trial_context
from sweeps.session.summary import print_next_commands, resume_command
from sweeps.session.sweep import shared_names
from sweeps.states import Outcome, State
from sweeps.storage.folder import SweepFolder
from sweeps.study.location import begin_store
from sweeps.study.records import Preset, TrialRecord, to_records
from sweeps.study.store import StudyStore
from sweeps.study.study import create_study
from sweeps.tracking import Tracker
from sweeps.trial.watchdog import STALL

CONCLUSIVE = (State.COMPLETED, State.INFEASIBLE)
"""States that characterise the configuration: a later session does not repeat such a run."""


@dataclass(frozen=True)
class Confirmed:
    """How a confirmation ended."""

    confirmation: Confirmation | None
    """None if it was stopped before all configurations were measured."""
    stop: StopReason | None
    """Why it was stopped; None if it was not."""


@dataclass(frozen=True)
class ConfirmationStudy:
    """The study of all runs of a confirmation, open for one session."""

    spec: SweepSpec
    """As the confirmation runs it."""
    seeds: Sequence[int]
    study: optuna.Study
    store: StudyStore
    session: Session
    stopping: StoppingCriteria
    console: Console


def confirm_best(
    spec: SweepSpec, session: Session, trials: Sequence[TrialRecord], console: Console
) -> ExitCode:
    """Confirm the best of the search and print the result; returns the exit code. See `confirm`."""
    print_line(console, f"\n{plan_of_confirmation(spec)}")
    done = confirm(spec, session, trials, console)
    if done.confirmation is not None:
        print_confirmation(console, done.confirmation)
        print_next_commands(console, spec, session.folder)
        return ExitCode.OK if done.confirmation.winner is not None else ExitCode.NOTHING_FOUND
    assert done.stop is not None
    print_line(console, f"\nthe confirmation ended before all of its runs: {done.stop.text}")
    print_line(console, f"to resume it: {resume_command(spec, session.folder)}")
    return done.stop.exit_code


def confirm(
    spec: SweepSpec, session: Session, trials: Sequence[TrialRecord], console: Console
) -> Confirmed:
    """Confirm the best of `trials` and the baselines; runs that earlier sessions completed count.

    Writes `confirm.json` and the winner's `best.yaml`.

    Args:
        spec: checked, with `confirm`.
        session: its tracker holds the sweep's run.
        trials: of the search.
        console: for the display.
    """
    assert spec.confirm is not None
    folder = session.folder
    with ExitStack() as locks:
        locks.enter_context(folder.locked())
        store = begin_store(spec, folder)
        locks.enter_context(store.locked())
        folder.remove(CONFIRM_FILE)  # this time with more trials or seeds
        opened = open_confirmation(spec, session, store, console)
        measured = measure(opened, candidates_of(spec, spec.confirm, trials))
        objective = opened.spec.objective
        seeds = tuple(opened.seeds)
        found = Confirmation(objective.metric, objective.mode, seeds, tuple(measured))
        if opened.stopping.reason is None and spec.ablate:
            found = replace(found, ablation=tuple(ablate(opened, found)))
        if opened.stopping.reason is not None:
            return Confirmed(None, opened.stopping.reason)
        save(spec, found, session, list(trials))
    return Confirmed(found, None)


def open_confirmation(
    spec: SweepSpec, session: Session, store: StudyStore, console: Console
) -> ConfirmationStudy:
    """The study of a confirmation, new or to be resumed.

    Args:
        spec: of the sweep.
        session: of the sweep.
        store: of the sweep's study; locked.
        console: for the display.
    """
    assert spec.confirm is not None
    runs_spec, beside = spec.for_confirmation, store.beside(CONFIRM_FOLDER)
    study = create_study(beside, runs_spec, build_sampler(runs_spec))
    close_recorded(study, runs_spec)
    stopping = StoppingCriteria(runs_spec)
    seeds = seeds_of(spec, spec.confirm)
    return ConfirmationStudy(runs_spec, seeds, study, beside, session, stopping, console)


def measure(opened: ConfirmationStudy, candidates: Sequence[Candidate]) -> list[CandidateResult]:
    """Run every candidate at every seed."""
    presets = {preset.key: preset for preset in presets_of(candidates, opened.seeds)}
    run_presets(opened, presets)
    records = records_of(opened.study, presets)
    return [
        CandidateResult(
            candidate,
            {
                seed: records[key]
                for seed in opened.seeds
                if (key := preset_of(candidate, seed).key) in records
            },
        )
        for candidate in candidates
    ]


def run_presets(opened: ConfirmationStudy, presets: dict[str, Preset]) -> None:
    """Run those of `presets` that have no conclusive result yet."""
    spec, session, study = opened.spec, opened.session, opened.study
    folder = session.folder
    records = records_of(study, presets)
    running = {trial.number for trial in unfinished(study)}
    resumed = [r.number for r in records.values() if r.number in running]
    earlier = [r for r in records.values() if r.state in CONCLUSIVE or r.number in running]
    begun = {record.folder for record in earlier}
    remaining = [preset for key, preset in presets.items() if key not in begun]
    context = trial_context(spec, folder, CONFIRM_FOLDER, shared_names(spec, session))
    for key in presets.keys() - {r.folder for r in earlier if r.state in CONCLUSIVE}:
        (context.run_dir(key) / STALL).unlink(missing_ok=True)  # a stalled run gets another try
    sweep_id = f"{folder.sweep_id()}.{CONFIRM_FOLDER}"
    run = StudyRun(
        spec=spec,
        study=study,
        store=opened.store,
        context=context,
        stopping=opened.stopping,
        tags={"sweep.name": folder.name, "sweep.id": sweep_id},
        earlier=earlier,
        # a new confirmation has no runs, and need not wait for a server that is away
        runs=session.tracker.stored_runs(sweep_id) if study.get_trials(deepcopy=False) else {},
        unfinished=resumed,
        presets=remaining,
    )
    run_trials(run, session, build_display(spec, opened.console, len(presets), noun="run"))


def records_of(study: optuna.Study, presets: dict[str, Preset]) -> dict[str, TrialRecord]:
    """Key -> the latest run of each of `presets`; one with other settings does not count.

    Labels are not compared: if the winner differs from the baseline in one setting only, setting that back
    gives the baseline, under another label.
    """
    records = to_records(study.get_trials(deepcopy=False), alive=False)
    return {r.folder: r for r in records if _has_settings(r.preset, presets.get(r.folder))}


def _has_settings(run: Preset | None, wanted: Preset | None) -> bool:
    if run is None or wanted is None:
        return False
    return (run.parameters, run.overrides) == (wanted.parameters, wanted.overrides)


def ablate(opened: ConfirmationStudy, confirmation: Confirmation) -> list[CandidateResult]:
    """Set the winner's settings back to those of the best baseline, one at a time."""
    winner, base = confirmation.winner, confirmation.best_baseline
    if winner is None or base is None or winner is base:
        return []
    return measure(opened, ablations_of(opened.spec, winner.candidate, base.candidate))


def save(
    spec: SweepSpec, confirmation: Confirmation, session: Session, trials: list[TrialRecord]
) -> None:
    """Write the files, and log the findings; `trials`: of the search."""
    folder = session.folder
    path = folder.path / CONFIRM_FILE
    save_confirmation(path, confirmation, conclusions(confirmation))
    folder.upload(path)
    write_winner(spec, folder, confirmation)
    log_confirmation(spec, confirmation, folder, session.tracker, trials)


def log_confirmation(
    spec: SweepSpec,
    confirmation: Confirmation,
    folder: SweepFolder,
    tracker: Tracker,
    trials: list[TrialRecord],
) -> None:
    """Add the findings to the sweep's run and to those of the trials.

    Args:
        spec: of the sweep.
        confirmation: complete.
        folder: of the sweep.
        tracker: its runs are written or queued.
        trials: of the search.
    """
    findings, winner = conclusions(confirmation), confirmation.winner
    outcome = Outcome(State.COMPLETED, findings[0])
    number = None if winner is None else winner.candidate.trial
    end_parent_run(tracker, spec, folder, trials, outcome, findings, number)
    tracker.add_files(SWEEP_RUN, [folder.path / CONFIRM_FILE])
    if winner is not None:
        tracker.add_metrics(SWEEP_RUN, estimates(confirmation, winner), 0)
    for measured in confirmation.configurations:
        if measured.candidate.trial is not None:
            link_runs(tracker, confirmation, measured, str(measured.candidate.trial))


def estimates(confirmation: Confirmation, measured: CandidateResult) -> dict[str, float]:
    """Metric -> mean and ends of its 95 % interval over seeds."""
    found = confirmation.estimate(measured)
    name = f"confirmed/{confirmation.metric}"
    if found is None:
        return {}
    values = {name: found.mean, f"{name}/low": found.low, f"{name}/high": found.high}
    return {key: value for key, value in values.items() if math.isfinite(value)}


def link_runs(
    tracker: Tracker, confirmation: Confirmation, measured: CandidateResult, trial: str
) -> None:
    """Show the confirmed value at a trial's run, and link it and its confirmation's runs to each other."""
    tracker.add_metrics(trial, estimates(confirmation, measured), 0)
    for seed in measured.results:
        run = preset_of(measured.candidate, seed).key
        tracker.link(trial, run, f"confirmation at seed {seed}")
        tracker.link(run, trial, f"trial {trial} of the search")
