"""Builds the Ray Tuner: its trainable, resources, searcher, scheduler and callback."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from ray import tune
from ray.tune.progress_reporter import ProgressReporter

from sweeps.config import Resources
from sweeps.ray_tune import internals
from sweeps.ray_tune.adapters import (
    REQUEST,
    RayCallback,
    RayScheduler,
    RaySearcher,
    Retries,
    Trials,
    WorkerFailures,
    request_of,
    to_result,
)
from sweeps.resources.machine import Machine
from sweeps.secrets import SECRETS
from sweeps.storage.folder import SweepFolder
from sweeps.trial.messages import TrialReport, TrialRequest
from sweeps.trial.trial import Train, TrialContext, run_trial

RESTARTS = 1
"""Times that a trial is restarted after its worker died or it ran out of memory. Other errors of the trainer
are not retried."""
NEVER = "1e9"
"""Seconds between two snapshots."""
GPU_WORDS = ("CUDA", "CUBLAS", "CUDNN", "HIP")
"""One of these is in the reason of a trial that ran out of GPU memory; otherwise it was main memory."""


@dataclass(frozen=True)
class TuneJob:
    """The trials for Ray Tune to run, and the resources for them."""

    context: TrialContext
    """Of the trials."""
    resources: Resources
    """Of a trial."""
    machine: Machine
    """How many CPUs and GPUs Ray may use."""
    folder: SweepFolder
    """Of the sweep."""
    train: Train | None = None
    """The trainer, if not `fsdet.train.train`."""


def build_tuner(job: TuneJob, trials: Trials) -> tune.Tuner:
    """The Ray Tuner. Its folder holds only its own state; trials have folders of their own."""
    internals.hide_from_workers(SECRETS)  # every node has credentials of its own
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = (
        NEVER  # of Ray's snapshot of all trials, which nothing reads
    )
    shutil.rmtree(job.folder.ray_dir, ignore_errors=True)
    failures = WorkerFailures()
    retries = Retries(trials, needs_of(job), failures)
    searcher = RaySearcher(trials, retries, failures)
    return tune.Tuner(
        tune.with_resources(trainable(job), resources_of(needs_of(job))),
        tune_config=tune.TuneConfig(
            num_samples=-1,  # until the searcher has finished
            search_alg=searcher,
            scheduler=RayScheduler(retries),
            max_concurrent_trials=job.machine.capacity(job.resources),
            reuse_actors=True,
            trial_name_creator=ray_name,
            trial_dirname_creator=ray_name,
        ),
        run_config=tune.RunConfig(
            name=job.folder.ray_dir.name,
            storage_path=str(job.folder.path),
            verbose=0,
            progress_reporter=Silent(),
            callbacks=[RayCallback(trials, searcher, retries)],
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
        ),
    )


def trainable(job: TuneJob) -> Callable[[dict[str, Any]], None]:
    """The function that Ray Tune runs in a worker."""
    context, train = job.context, job.train

    def trial(config: dict[str, Any]) -> None:
        def send(report: TrialReport) -> None:
            tune.report(to_result(report))

        run_trial(context, config[REQUEST].value, send, train)

    return trial


def needs_of(job: TuneJob) -> Callable[[TrialRequest | None], tune.PlacementGroupFactory]:
    """Function from a request to the resources that Ray must reserve; Ray also calls it with None, for any trial."""
    resources, machine = job.resources, job.machine

    def needs(request: TrialRequest | None) -> tune.PlacementGroupFactory:
        cpus, gpus = resources.cpus, resources.gpu_share
        if request is not None and request.retried:
            on_card = gpus and any(word in request.retried for word in GPU_WORDS)
            cpus, gpus = cpus if on_card else machine.cpus, math.ceil(gpus)
        return resources_for(float(cpus), float(gpus))

    return needs


@cache
def resources_for(cpus: float, gpus: float) -> tune.PlacementGroupFactory:
    """Resources on one node; all trials with the same needs share them."""
    return tune.PlacementGroupFactory([{"CPU": cpus} | ({"GPU": gpus} if gpus else {})])


def resources_of(
    needs: Callable[[TrialRequest | None], tune.PlacementGroupFactory],
) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """The same, from the config of a trial of Ray Tune."""
    return lambda config: needs(config[REQUEST].value if REQUEST in config else None)


def ray_name(trial: Any) -> str:
    """Name of a trial in Ray Tune."""
    return f"trial_{request_of(trial).number:04d}"


class Silent(ProgressReporter):  # type: ignore[misc]
    """Disables Ray's progress report."""

    def should_report(self, *args: Any, **kwargs: Any) -> bool:  # noqa: ARG002
        return False

    def report(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""
