"""Runs a sweep, new or resumed: opens the study, the parent run, and runs the trials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from sweeps.config import SweepSpec
from sweeps.search.sampler import build_sampler
from sweeps.search.stopping import StoppingCriteria, StopReason
from sweeps.session.callbacks import SWEEP_RUN
from sweeps.session.display import Display
from sweeps.session.resume import (
    check_study,
    close_recorded,
    earlier_runs,
    unfinished,
)
from sweeps.session.session import Session, StudyRun, run_trials, trial_context
from sweeps.states import Outcome, State
from sweeps.storage.folder import SweepFolder, find_folder
from sweeps.storage.known_sweeps import BEGAN
from sweeps.storage.portable_files import portable_names
from sweeps.study.location import begin_store, recorded_study, store_of
from sweeps.study.store import LOST, StudyStore
from sweeps.study.study import (
    TrialRecord,
    baselines_left,
    best_of,
    create_study,
    to_records,
    warm_start,
)
from sweeps.tracking import STUDY_TAG, StoredRun, Tracker


@dataclass(frozen=True)
class SweepResult:
    """The results of a sweep."""

    trials: list[TrialRecord]
    """Of all sessions."""
    stop: StopReason | None
    """Why it ended early; None if all trials are done."""


def run_sweep(spec: SweepSpec, session: Session, display: Display) -> SweepResult:
    """Run all trials of `spec` that have not ended, until there is a reason to stop.

    Args:
        spec: checked.
        session: its folder is new and empty, or of the sweep to resume.
        display: shows the progress.

    Raises:
        SweepError: another process runs this sweep, or there is no sweep `warm_start`.
    """
    folder, tracker = session.folder, session.tracker
    with ExitStack() as locks:
        locks.enter_context(folder.locked())
        runs = earlier_runs(tracker, folder)
        store = begin_store(spec, folder)
        locks.enter_context(store.locked())
        store.repair()
        check_study(store, folder, runs)
        study = open_study(spec, store)
        folder.update_record(**{BEGAN: time.time()})
        names = shared_names(spec, session)
        folder.save_spec(spec, names)
        earlier = to_records(study.get_trials(deepcopy=False), alive=False)
        stopping = StoppingCriteria(spec, earlier, study.user_attrs.get("seconds", 0.0))
        run = StudyRun(
            spec=spec,
            study=study,
            store=store,
            context=trial_context(spec, folder, folder.trials_dir.name, names),
            stopping=stopping,
            tags=start_parent_run(tracker, spec, folder, runs),
            earlier=earlier,
            runs=runs,
            unfinished=[trial.number for trial in unfinished(study)],
            presets=(presets := baselines_left(study, spec)),
            suggestions=max(0, spec.trials - len(earlier) - len(presets)),
        )
        try:
            run_trials(run, session, display)
        finally:
            trials = final_records(study)
            end_parent_run(tracker, spec, trials, stopping.reason)
    return SweepResult(trials, stopping.reason)


def shared_names(spec: SweepSpec, session: Session) -> dict[str, str]:
    """Path on this machine -> portable name; files are copied to the storage."""
    folder = session.folder
    shared = spec.storage.path is not None or not session.machine.here
    return portable_names(spec, folder.path, folder.url, shared)


def final_records(study: optuna.Study) -> list[TrialRecord]:
    """All trials at the end of a session; empty if the study was lost."""
    try:
        return to_records(study.get_trials(deepcopy=False), alive=False)
    except (*LOST, ValueError, KeyError):
        return []


def open_study(spec: SweepSpec, store: StudyStore) -> optuna.Study:
    """The study, new or resumed, with a sampler that does not repeat its suggestions."""
    study = create_study(store, spec, build_sampler(spec))
    if (name := spec.warm_start) is not None:
        warm_start(study, spec, name, store_of(find_folder(name, spec.storage.path)))
    close_recorded(study, spec)
    # copied trials count too: with the same seed, the sampler would suggest them again
    before = sum(t.state != TrialState.WAITING for t in study.get_trials(deepcopy=False))
    study.sampler = build_sampler(spec, before)
    return study


def start_parent_run(
    tracker: Tracker, spec: SweepSpec, folder: SweepFolder, runs: Mapping[str, StoredRun]
) -> dict[str, str]:
    """Start the parent run of the trials' runs, or continue it.

    Args:
        tracker: open.
        spec: of the sweep.
        folder: of the sweep.
        runs: see `earlier_runs`.

    Returns:
        the tags of all runs of this sweep.
    """
    folder.update_record(uri=tracker.public_uri)
    searched = {f"space.{key}": parameter.ends for key, parameter in spec.space.items()}
    parameters = {
        "objective": spec.objective.metric,
        "sampler": spec.sampler.name,
        "sampler.seed": spec.sampler.seed,
        "scheduler": spec.scheduler.name,
        **searched,
        **spec.settings,
    }
    tags = {"sweep.name": folder.name, "sweep.id": folder.sweep_id()}
    more = {"sweep.file": spec.source, "sweep.trials": spec.trials, "state": "running"}
    more[STUDY_TAG] = recorded_study(folder)
    before = runs.get("")
    run_id = None if before is None else before.run_id
    tracker.start(SWEEP_RUN, folder.name, parameters, {**tags, **more}, run_id=run_id)
    tracker.flush()
    folder.update_record(run_id=tracker.run_id(SWEEP_RUN))
    return tags


def end_parent_run(
    tracker: Tracker, spec: SweepSpec, trials: list[TrialRecord], stop: StopReason | None
) -> None:
    """Close the parent run with the best value and the number of trials in each state."""
    counts = {f"trials/{s}": float(sum(t.state is s for t in trials)) for s in State}
    best = best_of(trials, spec.objective)
    if best is not None and best.value is not None:
        counts[f"best/{spec.objective.metric}"] = best.value
    outcome = Outcome(State.COMPLETED) if stop is None else stop.outcome
    tracker.end(SWEEP_RUN, outcome, metrics=counts)
