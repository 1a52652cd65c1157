"""`Session`: the folder, machine and tracker of one process of a sweep; runs the trials of a study."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import optuna

from fsdet.command import ExitCode
from sweeps.config import SweepSpec
from sweeps.errors import SweepError
from sweeps.ray_tune.tuner import TuneJob, build_tuner
from sweeps.resources.machine import Machine
from sweeps.resources.ray_access import check_room
from sweeps.resources.ray_runtime import running_ray
from sweeps.resources.ray_watch import watched_servers
from sweeps.search.searcher import StudySearcher
from sweeps.search.stopping import StoppingCriteria, StopReason, SweepStopped
from sweeps.session.callbacks import TrackerCallback
from sweeps.session.display import Display, print_line
from sweeps.session.effect_check import EffectCheck
from sweeps.session.resume import reconcile_runs
from sweeps.session.signals import handle_signals
from sweeps.session.summary import resume_command
from sweeps.session.trials import SessionTrials
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.study.records import Preset, TrialRecord
from sweeps.study.store import StudyStore
from sweeps.tracking import StoredRun, Tracker
from sweeps.trial.messages import TrialCallback
from sweeps.trial.trial import Train, TrialContext

log = logging.getLogger(__name__)

FLUSH_SECONDS = 4
"""Time to flush the tracking store when Ray has died."""


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
    tags: Mapping[str, str]
    """Of all runs in the tracker."""
    callbacks: Sequence[TrialCallback] = ()
    """Called besides the tracker's and the display's."""
    earlier: Sequence[TrialRecord] = ()
    """Trials that earlier sessions began."""
    runs: Mapping[str, StoredRun] = field(default_factory=dict)
    """Tag `sweep.trial` -> run of an earlier session."""
    unfinished: Sequence[int] = ()
    """Trials to resume."""
    presets: Sequence[Preset] = ()
    """Trials with given settings that have not begun."""
    suggestions: int = 0
    """Further trials to suggest."""

    @property
    def is_done(self) -> bool:
        """Whether no trial is left to begin, to resume or to promote."""
        paused = any(trial.state is State.PAUSED for trial in self.earlier)
        return not (self.unfinished or self.presets or self.suggestions > 0 or paused)


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
        run.study,
        run.spec,
        run.context,
        run.store,
        stopping,
        unfinished=run.unfinished,
        presets=run.presets,
        suggestions=run.suggestions,
    )
    check = EffectCheck(stopping)
    callbacks: list[TrialCallback] = [check, callback, *run.callbacks, display]
    trials = SessionTrials(searcher, stopping, callbacks, run.context)
    try:
        if not run.is_done and stopping.reason is None:
            tune(run, session, trials, display)
        if run.spec.ladders:
            print_line(display.console, f"rungs: {searcher.rungs()}")
        if stopping.reason is None and not trials.is_open:
            trials.prune_paused()
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
    job = TuneJob(
        context=run.context,
        resources=spec.resources,
        machine=session.machine,
        folder=folder,
        train=session.train,
    )
    try:
        with (
            handle_signals(stopping, display.show_message) as signals,
            running_ray(session.machine, spec.resources, folder.ray_log, session.tracker.paused),
            watched_servers(partial(leave_without_ray, spec, session, display)),
            display,
        ):
            signals.install()  # again, since Ray installs its own handler for SIGTERM
            tuner = build_tuner(job, trials)
            signals.in_loop = True
            tuner.fit()
    except SweepStopped:
        pass
    except Exception as error:
        # Tune cannot write its own files, or hit the error that has already stopped the sweep
        if stopping.reason is None and "No space left" not in str(error):
            raise
        log.info("while the sweep was stopping", exc_info=error)
        stopping.request(full_disk(folder.path))


def full_disk(folder: Path) -> StopReason:
    """Whose disk is full: that of the sweep's `folder`, or that of Ray's files."""
    try:
        check_room(folder)
    except SweepError:
        text = f"{folder}: the disk is full; make room, then resume"
        return StopReason(text, ExitCode.STUDY_LOST)
    text = (
        "the disk of Ray's files is full; set RAY_TMPDIR to a folder on another disk, then resume"
    )
    return StopReason(text, ExitCode.NOTHING_FOUND)


def leave_without_ray(spec: SweepSpec, session: Session, display: Display, server: str) -> None:
    """End this process at once, as a second Ctrl-C does: without its servers, Ray's loop waits for ever.

    Args:
        spec: of the study.
        session: whose Ray has died.
        display: shows the reason.
        server: name of the server that died.
    """
    display.show_message(
        "Ray has died; leaving"
    )  # a live table shows only the first message within it
    display.show_message(
        f"{server}, a server of Ray, was killed or has crashed, so no trial can go on; to resume the sweep: "
        f"{resume_command(spec, session.folder)}"
    )
    session.tracker.flush(FLUSH_SECONDS)
    os._exit(ExitCode.NOTHING_FOUND)
