"""One session of Ray Tune: Ray is started, trials run until they are done or something stops them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ray import tune
from ray.tune.progress_reporter import ProgressReporter
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from sweeps.machine.cluster import running_ray
from sweeps.machine.machine import Machine
from sweeps.search.rungs import replace_spoiled_workers
from sweeps.search.stops import EXIT_STUDY_LOST, Stop, Stops, SweepStopped
from sweeps.session.display import Display
from sweeps.session.retry import RetryAlone, needs
from sweeps.session.signals import signals_to
from sweeps.storage.folder import SweepFolder
from sweeps.tracking import Tracker
from sweeps.trial.causes import Deaths
from sweeps.trial.trial import Train, TrialPlan, run_trial

RESTARTS = 1
"""Times that a trial goes on after its worker was lost or it ran out of memory. Other errors of the
trainer are not retried."""


@dataclass(frozen=True)
class Session:
    """What one process of a sweep works with."""

    folder: SweepFolder
    machine: Machine
    """How many CPUs and GPUs Ray may use."""
    tracker: Tracker
    stops: Stops
    train: Train | None = None
    """The trainer, if not `fsdet.train.train`."""
    deaths: Deaths = field(default_factory=Deaths)
    """Why workers ended."""


class Silent(ProgressReporter):  # type: ignore[misc]
    """Stands in for Ray's own progress report."""

    def should_report(self, *args: Any, **kwargs: Any) -> bool:  # noqa: ARG002
        return False

    def report(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def run_trials(
    plan: TrialPlan,
    count: int,
    session: Session,
    searcher: Searcher,
    scheduler: TrialScheduler,
    callbacks: list[tune.Callback],
    display: Display,
) -> None:
    """Let Ray Tune run `count` trials, until they are done or `session.stops` has a reason to stop.

    Args:
        plan: of the trials.
        count: of trials that `searcher` hands out.
        session: where, and what stops them.
        searcher: knows their settings.
        scheduler: stops those that are merely worse.
        callbacks: hear of everything.
        display: shown meanwhile.
    """
    folder, stops = session.folder, session.stops
    replace_spoiled_workers(scheduler)
    retry = RetryAlone(scheduler, searcher, needs_of(plan, session), session.deaths)
    shutil.rmtree(folder.ray, ignore_errors=True)
    try:
        with (
            signals_to(stops) as signals,
            running_ray(session.machine, plan.spec.resources, folder.ray_log),
            display,
        ):
            signals.install()  # again, since Ray takes SIGTERM for itself
            tuner = build_tuner(plan, count, session, searcher, scheduler, [*callbacks, retry])
            signals.in_loop = True
            tuner.fit()
    except SweepStopped:
        pass
    except Exception as error:
        # Tune cannot write its own files, or met with what the study had met before
        if stops.stop is None and "No space left" not in str(error):
            raise
        full = f"{folder.path}: the disk is full; make room, then resume"
        stops.request(Stop(full, EXIT_STUDY_LOST))


def build_tuner(
    plan: TrialPlan,
    count: int,
    session: Session,
    searcher: Searcher,
    scheduler: TrialScheduler,
    callbacks: list[tune.Callback],
) -> tune.Tuner:
    """The Ray Tuner. Its folders hold its own state only; trials have theirs."""
    train = session.train

    def trial(suggestion: dict[str, Any]) -> None:
        run_trial(plan, suggestion, tune.report, train)

    return tune.Tuner(
        tune.with_resources(trial, needs_of(plan, session)),
        tune_config=tune.TuneConfig(
            num_samples=count,
            search_alg=searcher,
            scheduler=scheduler,
            max_concurrent_trials=session.machine.capacity(plan.spec.resources),
            reuse_actors=True,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name=session.folder.ray.name,
            storage_path=str(session.folder.path),
            verbose=0,
            progress_reporter=Silent(),
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
        ),
    )


def needs_of(
    plan: TrialPlan, session: Session
) -> Callable[[dict[str, Any]], tune.PlacementGroupFactory]:
    """Suggestion -> what Ray must keep free for it."""
    return partial(needs, resources=plan.spec.resources, machine=session.machine)


def name_of(trial: Any) -> str:
    """What Ray Tune calls a trial."""
    return f"trial_{trial.config['number']:04d}"
