"""Runs a sweep, or what is left of one: builds study, searcher, scheduler and recorder; Ray Tune
runs the trials."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from ray import tune
from ray.tune.progress_reporter import ProgressReporter
from ray.tune.schedulers import TrialScheduler

from sweeps.cluster import local_ray
from sweeps.display import Display
from sweeps.folder import SweepFolder, find_folder
from sweeps.machine import Machine
from sweeps.recorder import SWEEP_RUN, Recorder
from sweeps.resume import ended, finish_telling, left_to_run, reconcile_runs, unfinished
from sweeps.rungs import Recall, recall, replace_spoiled_workers
from sweeps.sampler import build_sampler
from sweeps.scheduler import build_scheduler
from sweeps.searcher import StudySearcher
from sweeps.signals import signals_to
from sweeps.spec import SweepSpec
from sweeps.states import Outcome, State
from sweeps.stops import EXIT_INTERRUPTED, EXIT_TERMINATED, Stop, Stops, SweepStopped
from sweeps.study import TrialRecord, best_of, create_study, curve_of, mend, to_records, warm_up
from sweeps.tracking import StoredRun, Tracker
from sweeps.trial import Train, TrialPlan, run_trial

RESTARTS = 1
"""Times that a trial goes on after its worker was lost. Errors of the trainer are not retried."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found."""

    trials: list[TrialRecord]
    """Of all sessions."""
    stop: Stop | None
    """Why it ended early; None if all trials are done."""
    seconds: float
    """Wall time of this session, Ray's start included."""

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended it."""
        return self.stop is not None and self.stop.exit_code in (
            EXIT_INTERRUPTED,
            EXIT_TERMINATED,
        )


class Silent(ProgressReporter):  # type: ignore[misc]
    """Stands in for Ray's own progress report."""

    def should_report(self, *args: Any, **kwargs: Any) -> bool:  # noqa: ARG002
        return False

    def report(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def run_sweep(
    spec: SweepSpec,
    folder: SweepFolder,
    machine: Machine,
    tracker: Tracker,
    display: Display,
    train: Train | None = None,
) -> SweepResult:
    """Run all trials of `spec` that have not ended, until there is a reason to stop.

    Args:
        spec: checked.
        folder: new and empty, or of the sweep to go on with.
        machine: how many CPUs and GPUs Ray may use.
        tracker: open; it stays open.
        display: shows what happens.
        train: the trainer, if not `fsdet.train.train`.

    Raises:
        SweepError: another process runs this sweep, or there is no sweep to start warm from.
    """
    began = time.monotonic()
    with folder.held():
        study = open_study(spec, folder)
        folder.save_spec(spec)
        earlier = to_records(study.get_trials(deepcopy=False), alive=False)
        stops = Stops(spec, earlier, study.user_attrs.get("seconds", 0.0))
        tags, runs = start_parent_run(tracker, spec, folder)
        numbers = {int(key): run.run_id for key, run in runs.items() if key}
        plan = TrialPlan(spec, folder.trials)
        recorder = Recorder(plan, tags, tracker, display, stops, numbers)
        reconcile_runs(earlier, runs, folder.trials, recorder, tracker)
        display.known(earlier)
        again = [trial.number for trial in unfinished(study)]
        searcher = StudySearcher(
            study, spec, stops, folder.study, again, recorder.ended, recorder.explain
        )
        try:
            fit(plan, folder, machine, study, searcher, recorder, stops, display, train)
            if (
                searcher.close(stops.stop.reason if stops.stop else "Ray Tune ended")
                and not stops.stop
            ):
                stops.request(Stop(f"Ray Tune ended before its trials; see {folder.ray_log}", 1))
        except BaseException as error:
            stops.request(Stop(f"{type(error).__name__}: {error}", 1))
            searcher.close()
            raise
        finally:
            trials = records_of(study)
            end_parent_run(tracker, spec, trials, stops.stop)
    return SweepResult(trials, stops.stop, time.monotonic() - began)


def records_of(study: optuna.Study) -> list[TrialRecord]:
    """All trials of a sweep that has ended; none where the study is gone."""
    try:
        return to_records(study.get_trials(deepcopy=False), alive=False)
    except (OSError, ValueError, KeyError):
        return []


def open_study(spec: SweepSpec, folder: SweepFolder) -> optuna.Study:
    """The study, new or as it was left, with a sampler that does not repeat itself."""
    mend(folder.study)
    study = create_study(folder.study, spec, build_sampler(spec))
    if spec.warm_start is not None:
        warm_up(study, spec, spec.warm_start, find_folder(spec.warm_start).study)
    finish_telling(study, spec)
    before = len(to_records(study.get_trials(deepcopy=False)))
    study.sampler = build_sampler(spec, before)
    return study


def fit(
    plan: TrialPlan,
    folder: SweepFolder,
    machine: Machine,
    study: optuna.Study,
    searcher: StudySearcher,
    recorder: Recorder,
    stops: Stops,
    display: Display,
    train: Train | None,
) -> None:
    """Let Ray Tune run what is left, until it is done or `stops` has a reason to stop."""
    spec = plan.spec
    trials = left_to_run(study, spec)
    if trials == 0 or stops.stop is not None:
        return
    scheduler = build_scheduler(spec, longest_trial(spec))
    recall(scheduler, ended(study))
    replace_spoiled_workers(scheduler)
    curves = {trial.number: curve_of(trial) for trial in unfinished(study)}
    shutil.rmtree(folder.ray, ignore_errors=True)
    try:
        with (
            signals_to(stops) as signals,
            local_ray(machine, spec.resources, folder.ray_log),
            display,
        ):
            signals.install()
            tuner = build_tuner(
                plan,
                folder,
                trials,
                machine.capacity(spec.resources),
                searcher,
                scheduler,
                [recorder, Recall(scheduler, curves)],
                train,
            )
            signals.in_loop = True
            tuner.fit()
    except SweepStopped:
        pass
    except Exception as error:
        # Tune cannot write its own files, or met with what the study had met before
        if stops.stop is None and "No space left" not in str(error):
            raise
        stops.request(Stop(f"{folder.path}: the disk is full; make room, then resume", 5))


def build_tuner(
    plan: TrialPlan,
    folder: SweepFolder,
    trials: int,
    concurrent: int,
    searcher: StudySearcher,
    scheduler: TrialScheduler,
    callbacks: list[tune.Callback],
    train: Train | None,
) -> tune.Tuner:
    """The Ray Tuner. Its folders hold its own state only; trials have theirs."""
    spec = plan.spec

    def trial(suggestion: dict[str, Any]) -> None:
        run_trial(plan, suggestion, tune.report, train)

    resources = {"cpu": spec.resources.cpus, "gpu": spec.resources.gpus}
    return tune.Tuner(
        tune.with_resources(trial, resources),
        tune_config=tune.TuneConfig(
            num_samples=trials,
            search_alg=searcher,
            scheduler=scheduler,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial_{trial.config['number']:04d}",
            trial_dirname_creator=lambda trial: f"trial_{trial.config['number']:04d}",
        ),
        run_config=tune.RunConfig(
            name=folder.ray.name,
            storage_path=str(folder.path),
            verbose=0,
            progress_reporter=Silent(),
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
        ),
    )


def longest_trial(spec: SweepSpec) -> int:
    """Epochs of the longest trial that the space allows."""
    return int(spec.largest("epochs"))


def start_parent_run(
    tracker: Tracker, spec: SweepSpec, folder: SweepFolder
) -> tuple[dict[str, str], Mapping[str, StoredRun]]:
    """Begin the run under which the trials hang, or go on with it.

    Returns:
        the tags of all runs of this sweep, and its runs of earlier sessions by trial's number.
    """
    record = folder.load_record()
    sweep_id = record.get("sweep_id") or uuid.uuid4().hex
    # first: by this id the runs are found again
    folder.update_record(uri=tracker.public_uri, sweep_id=sweep_id)
    runs = tracker.stored_runs(sweep_id) if "sweep_id" in record else {}
    searched = {f"space.{key}": parameter.ends for key, parameter in spec.space.items()}
    parameters = {
        "objective": spec.objective.metric,
        "sampler": spec.sampler.name,
        "sampler.seed": spec.sampler.seed,
        "scheduler": spec.scheduler.name,
        **searched,
        **spec.settings,
    }
    tags = {"sweep.name": folder.name, "sweep.id": sweep_id}
    more = {"sweep.file": spec.source, "sweep.trials": spec.trials, "state": "running"}
    before = runs.get("")
    run_id = None if before is None else before.run_id
    tracker.start(SWEEP_RUN, folder.name, parameters, {**tags, **more}, run_id=run_id)
    tracker.flush()
    folder.update_record(run_id=tracker.run_id(SWEEP_RUN))
    return tags, runs


def end_parent_run(
    tracker: Tracker, spec: SweepSpec, trials: list[TrialRecord], stop: Stop | None
) -> None:
    """Close the parent run with the best value and how many trials ended how."""
    counts = {f"trials/{s}": float(sum(t.state is s for t in trials)) for s in State}
    best = best_of(trials, spec.objective.mode)
    if best is not None and best.value is not None:
        counts[f"best/{spec.objective.metric}"] = best.value
    outcome = Outcome(State.COMPLETED) if stop is None else stop.outcome
    tracker.end(SWEEP_RUN, outcome, metrics=counts)
