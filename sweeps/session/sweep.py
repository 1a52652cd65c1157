"""Runs a sweep, new or resumed: opens the study, the parent run, and runs the trials."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from sweeps.config import SweepSpec
from sweeps.resources.machine import Cluster
from sweeps.search.sampler import build_sampler
from sweeps.search.stopping import StoppingCriteria, StopReason
from sweeps.session.display import Display
from sweeps.session.parent_run import (
    ParentCurves,
    end_parent_run,
    name_dataset,
    start_parent_run,
)
from sweeps.session.resume import (
    check_study,
    close_recorded,
    earlier_runs,
    unfinished,
)
from sweeps.session.session import Session, StudyRun, run_trials, trial_context
from sweeps.states import Outcome, State
from sweeps.storage.folder import ADDRESS
from sweeps.storage.known_sweeps import BEGAN
from sweeps.storage.lookup import find_folder
from sweeps.storage.portable_files import portable_names
from sweeps.study.location import begin_store, store_of
from sweeps.study.records import TrialRecord, to_records
from sweeps.study.store import LOST, StudyStore
from sweeps.study.study import baselines_left, create_study, warm_start


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
        address = session.machine.address if isinstance(session.machine, Cluster) else None
        folder.update_record(**{BEGAN: time.time(), ADDRESS: address})
        names = shared_names(spec, session)
        folder.save_spec(spec, names)
        earlier = to_records(study.get_trials(deepcopy=False), alive=False)
        tags = start_parent_run(tracker, spec, folder, runs)
        if session.train is None:
            name_dataset(tracker, spec)
        stopping = StoppingCriteria(spec, earlier, study.user_attrs.get("seconds", 0.0))
        run = StudyRun(
            spec=spec,
            study=study,
            store=store,
            context=trial_context(spec, folder, folder.trials_dir.name, names),
            stopping=stopping,
            tags=tags,
            callbacks=[ParentCurves(tracker, spec, earlier)],
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
            reason = stopping.reason
            outcome = Outcome(State.COMPLETED) if reason is None else reason.outcome
            end_parent_run(tracker, spec, folder, trials, outcome)
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
