"""Runs a sweep, or what is left of one: builds study, searcher, scheduler and recorder; Ray Tune
runs the trials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from sweeps.machine.machine import Machine
from sweeps.search.rungs import recall
from sweeps.search.sampler import build_sampler
from sweeps.search.scheduler import build_scheduler
from sweeps.search.searcher import StudySearcher
from sweeps.search.stops import EXIT_INTERRUPTED, EXIT_TERMINATED, Stop, Stops
from sweeps.session.display import Display
from sweeps.session.losses import check_study, earlier_runs
from sweeps.session.recorder import SWEEP_RUN, Recorder
from sweeps.session.resume import ended, finish_telling, left_to_run, reconcile_runs, unfinished
from sweeps.session.tuning import Session, run_trials
from sweeps.spec import SweepSpec
from sweeps.states import Outcome, State
from sweeps.storage.folder import SweepFolder, find_folder
from sweeps.storage.shipping import shipped
from sweeps.study.place import begin_store, recorded, store_of
from sweeps.study.store import LOST, StudyStore
from sweeps.study.study import TrialRecord, best_of, create_study, to_records, warm_up
from sweeps.tracking import STUDY_TAG, StoredRun, Tracker
from sweeps.trial.trial import Train, TrialPlan


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
    with ExitStack() as held:
        held.enter_context(folder.held())
        runs = earlier_runs(tracker, folder)
        store = begin_store(spec, folder)
        held.enter_context(store.held())
        store.mend()
        check_study(store, folder, runs)
        study = open_study(spec, store)
        places = shipped(spec, folder, machine.here)
        folder.save_spec(spec, places)
        earlier = to_records(study.get_trials(deepcopy=False), alive=False)
        stops = Stops(spec, earlier, study.user_attrs.get("seconds", 0.0))
        tags = start_parent_run(tracker, spec, folder, runs)
        numbers = {int(key): run.run_id for key, run in runs.items() if key}
        plan = TrialPlan(
            spec.public, folder.trials, folder.below("trials"), places, sweep=folder.sweep_id()
        )
        session = Session(folder, machine, tracker, stops, train)
        recorder = Recorder(plan, tags, tracker, display, stops, numbers, session.deaths)
        reconcile_runs(earlier, runs, folder.trials, recorder, tracker, spec.objective)
        display.known(earlier)
        again = [trial.number for trial in unfinished(study)]
        searcher = StudySearcher(study, spec, stops, store, again, recorder.ended, recorder.explain)
        try:
            run_rest(plan, session, study, searcher, recorder, display)
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
    except (*LOST, ValueError, KeyError):
        return []


def open_study(spec: SweepSpec, store: StudyStore) -> optuna.Study:
    """The study, new or as it was left, with a sampler that does not repeat itself."""
    study = create_study(store, spec, build_sampler(spec))
    if spec.warm_start is not None:
        warm_up(
            study, spec, spec.warm_start, store_of(find_folder(spec.warm_start, spec.storage.path))
        )
    finish_telling(study, spec)
    # those of a sweep that it starts warm from count too: with its seed, their suggestions came first
    before = sum(t.state != TrialState.WAITING for t in study.get_trials(deepcopy=False))
    study.sampler = build_sampler(spec, before)
    return study


def run_rest(
    plan: TrialPlan,
    session: Session,
    study: optuna.Study,
    searcher: StudySearcher,
    recorder: Recorder,
    display: Display,
) -> None:
    """Run what is left of the trials, with rungs as earlier sessions left them."""
    spec = plan.spec
    trials = left_to_run(study, spec)
    if trials == 0 or session.stops.stop is not None:
        return
    scheduler = build_scheduler(spec, longest_trial(spec))
    recall(scheduler, [*ended(study), *unfinished(study)])
    run_trials(plan, trials, session, searcher, scheduler, [recorder], display)


def longest_trial(spec: SweepSpec) -> int:
    """Epochs of the longest trial that the space allows."""
    return int(spec.largest("epochs"))


def start_parent_run(
    tracker: Tracker, spec: SweepSpec, folder: SweepFolder, runs: Mapping[str, StoredRun]
) -> dict[str, str]:
    """Begin the run under which the trials hang, or go on with it.

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
    more[STUDY_TAG] = recorded(folder)
    before = runs.get("")
    run_id = None if before is None else before.run_id
    tracker.start(SWEEP_RUN, folder.name, parameters, {**tags, **more}, run_id=run_id)
    tracker.flush()
    folder.update_record(run_id=tracker.run_id(SWEEP_RUN))
    return tags


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
