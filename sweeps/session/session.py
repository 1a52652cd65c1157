"""`Session`: the folder, machine and tracker of one process of a sweep; runs the trials of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna

from fsdet.command import ExitCode
from sweeps.config import SweepSpec
from sweeps.ray_tune.schedulers import build_scheduler, restore_rungs
from sweeps.ray_tune.tuner import TuneJob, build_tuner
from sweeps.resources.machine import Machine
from sweeps.resources.ray_runtime import running_ray
from sweeps.search.searcher import StudySearcher
from sweeps.search.stopping import StoppingCriteria, StopReason, SweepStopped
from sweeps.session.callbacks import TrackerCallback
from sweeps.session.display import Display
from sweeps.session.resume import reconcile_runs
from sweeps.session.signals import handle_signals
from sweeps.session.trials import SessionTrials
from sweeps.storage.folder import SweepFolder
from sweeps.study.store import StudyStore
from sweeps.study.study import WARM_START, Preset, TrialRecord, curve_of
from sweeps.tracking import StoredRun, Tracker
from sweeps.trial.trial import Train, TrialContext


@dataclass(frozen=True)
class Session:
    """One process of a sweep."""

    folder: SweepFolder
    machine: Machine
    """How many CPUs and GPUs Ray may use."""
    tracker: Tracker
    """Open; it stays open."""
    train: Train | None = None
    """The trainer, if not `fsdet.train.train`."""


@dataclass(frozen=True)
class StudyRun:
    """The trials of a study that one session is to run."""

    spec: SweepSpec
    study: optuna.Study
    store: StudyStore
    """Of the study; locked."""
    context: TrialContext
    stopping: StoppingCriteria
    count: int
    """Trials to run."""
    tags: Mapping[str, str]
    """Of all runs in the tracker."""
    earlier: Sequence[TrialRecord] = ()
    """Trials that earlier sessions began."""
    runs: Mapping[str, StoredRun] = field(default_factory=dict)
    """Tag `sweep.trial` -> run of an earlier session."""
    unfinished: Sequence[int] = ()
    """Trials to resume."""
    presets: Sequence[Preset] = ()
    """Trials with given settings that have not begun."""


def trial_context(
    spec: SweepSpec, folder: SweepFolder, name: str, names: Mapping[str, str]
) -> TrialContext:
    """What the trials of a study share.

    Args:
        spec: of the study.
        folder: of the sweep.
        name: of the folder of all trials, in that of the sweep.
        names: path on this machine -> name by which every machine finds the file.
    """
    return TrialContext(
        objective=spec.objective,
        folder=folder.path / name,
        sweep_id=folder.sweep_id(),
        url=folder.url_of(name),
        names=names,
        stall_minutes=spec.stall_minutes,
        gpu_share=spec.resources.gpu_share,
    )


def run_trials(run: StudyRun, session: Session, display: Display) -> None:
    """Run the remaining trials of a study, until all have ended or `run.stopping` has a reason to stop.

    First the tracker is brought up to date with what earlier sessions did.
    """
    stopping = run.stopping
    run_ids = {key: stored.run_id for key, stored in run.runs.items()}
    callback = TrackerCallback(run.context, run.tags, session.tracker, run_ids)
    reconcile_runs(run.earlier, run.runs, run.spec, run.context, callback, session.tracker)
    display.add_ended(run.earlier)
    searcher = StudySearcher(
        run.study, run.spec, run.context, run.store, stopping, run.unfinished, run.presets
    )
    trials = SessionTrials(searcher, stopping, [callback, display], run.context)
    try:
        if run.count and stopping.reason is None:
            tune(run, session, trials, display)
        reason = stopping.reason.text if stopping.reason else "Ray Tune ended"
        if trials.close(reason) and not stopping.reason:
            log = session.folder.ray_log
            text = f"Ray Tune ended before its trials; see {log}"
            stopping.request(StopReason(text, ExitCode.NOTHING_FOUND))
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        stopping.request(StopReason(text, ExitCode.NOTHING_FOUND))
        trials.close()
        raise


def tune(run: StudyRun, session: Session, trials: SessionTrials, display: Display) -> None:
    """Run the trials with Ray Tune."""
    spec, folder, stopping = run.spec, session.folder, run.stopping
    scheduler = build_scheduler(spec)
    restore_rungs(scheduler, earlier_curves(run.study))
    job = TuneJob(
        context=run.context,
        count=run.count,
        mode=spec.objective.mode,
        resources=spec.resources,
        machine=session.machine,
        folder=folder,
        train=session.train,
    )
    try:
        with (
            handle_signals(stopping) as signals,
            running_ray(session.machine, spec.resources, folder.ray_log),
            display,
        ):
            signals.install()  # again, since Ray installs its own handler for SIGTERM
            tuner = build_tuner(job, trials, scheduler)
            signals.in_loop = True
            tuner.fit()
    except SweepStopped:
        pass
    except Exception as error:
        # Tune cannot write its own files, or hit the error that has already stopped the sweep
        if stopping.reason is None and "No space left" not in str(error):
            raise
        text = f"{folder.path}: the disk is full; make room, then resume"
        stopping.request(StopReason(text, ExitCode.STUDY_LOST))


def earlier_curves(study: optuna.Study) -> dict[int, dict[int, float]]:
    """Number of a trial -> epoch -> objective, for all trials of this sweep that have begun."""
    trials = study.get_trials(deepcopy=False)
    return {trial.number: curve_of(trial) for trial in trials if WARM_START not in trial.user_attrs}
