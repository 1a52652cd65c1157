"""Runs a sweep: builds study, searcher, scheduler and recorder; Ray Tune runs the trials."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.progress_reporter import ProgressReporter

from sweeps.cluster import local_ray
from sweeps.display import Display
from sweeps.folder import SweepFolder
from sweeps.machine import Machine
from sweeps.recorder import SWEEP_RUN, Recorder
from sweeps.sampler import build_sampler
from sweeps.scheduler import build_scheduler
from sweeps.searcher import StudySearcher
from sweeps.spec import SweepSpec
from sweeps.states import Outcome, State
from sweeps.study import TrialRecord, best_of, create_study, to_records
from sweeps.tracking import Tracker
from sweeps.trial import Train, TrialPlan, run_trial

RESTARTS = 1
"""Times that a trial goes on after its worker was lost. Errors of the trainer are not retried."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found."""

    trials: list[TrialRecord]
    interrupted: bool
    """By Ctrl-C; the trials that did end are valid."""
    seconds: float
    """Wall time, Ray's start included."""


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
    """Run all trials of `spec`, to the end or until Ctrl-C.

    Args:
        spec: checked.
        folder: new and empty.
        machine: how many CPUs and GPUs Ray may use.
        tracker: open; it stays open.
        display: shows what happens.
        train: the trainer, if not `fsdet.train.train`.
    """
    began = time.monotonic()
    folder.save_spec(spec)
    start_parent_run(tracker, spec, folder)
    study = create_study(folder.study, spec, build_sampler(spec.sampler))
    plan = TrialPlan(spec, folder.trials)
    recorder = Recorder(plan, folder.name, tracker, display)
    searcher = StudySearcher(study, spec.distributions(), spec.objective.mode, recorder.ended)
    concurrent = machine.capacity(spec.resources)
    outcome = Outcome(State.FAILED, "the sweep itself failed")
    try:
        with local_ray(machine, spec.resources, folder.ray_log), display:
            tuner = build_tuner(plan, folder, concurrent, searcher, recorder, train)
            tuner.fit()
            # Ray takes Ctrl-C for itself and returns as if all were done: count what is missing
            lost = searcher.close()
            trials = to_records(study.get_trials(deepcopy=False))
        interrupted = lost > 0 or len(trials) < spec.trials
        outcome = Outcome(State.INTERRUPTED if interrupted else State.COMPLETED)
    except KeyboardInterrupt:
        outcome = Outcome(State.INTERRUPTED, "interrupted")
        raise
    finally:
        searcher.close()
        end_parent_run(tracker, spec, to_records(study.get_trials(deepcopy=False)), outcome)
    return SweepResult(trials, interrupted, time.monotonic() - began)


def build_tuner(
    plan: TrialPlan,
    folder: SweepFolder,
    concurrent: int,
    searcher: StudySearcher,
    recorder: Recorder,
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
            num_samples=spec.trials,
            search_alg=searcher,
            scheduler=build_scheduler(spec.scheduler, spec.objective, longest_trial(spec)),
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial_{trial.config['number']:04d}",
            trial_dirname_creator=lambda trial: f"trial_{trial.config['number']:04d}",
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder.path),
            verbose=0,
            progress_reporter=Silent(),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
        ),
    )


def longest_trial(spec: SweepSpec) -> int:
    """Epochs of the longest trial that the space allows."""
    parameter = spec.space.get("epochs")
    ends = parameter.ends if parameter is not None else (None,)
    others = {key: p.ends[-1] for key, p in spec.space.items()}
    return max(
        spec.config({**others, **({} if end is None else {"epochs": end})}).epochs for end in ends
    )


def start_parent_run(tracker: Tracker, spec: SweepSpec, folder: SweepFolder) -> None:
    """The run under which the trials hang."""
    searched = {f"space.{key}": parameter.ends for key, parameter in spec.space.items()}
    parameters = {
        "trials": spec.trials,
        "objective": spec.objective.metric,
        "sampler": spec.sampler.name,
        "sampler.seed": spec.sampler.seed,
        "scheduler": spec.scheduler.name,
        **searched,
        **spec.settings,
    }
    tags = {"sweep.name": folder.name, "sweep.file": spec.source, "state": "running"}
    tracker.start(SWEEP_RUN, folder.name, parameters, tags)


def end_parent_run(
    tracker: Tracker, spec: SweepSpec, trials: list[TrialRecord], outcome: Outcome
) -> None:
    """Close the parent run with the best value and how many trials ended how."""
    counts = {f"trials/{s}": float(sum(t.state is s for t in trials)) for s in State}
    best = best_of(trials, spec.objective.mode)
    if best is not None and best.value is not None:
        counts[f"best/{spec.objective.metric}"] = best.value
    tracker.end(SWEEP_RUN, outcome, metrics=counts)
