"""Runs the jobs of a confirmation with Ray Tune, each in its own folder, and keeps how they ended.

The machinery is that of the trials, without sampler and scheduler: the same worker, the same
checkpoints, the same stall limit. A job whose result is there is not run again; one that was cut
off goes on from its newest checkpoint. A failed one is tried again by the next session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from rich.console import Console

from sweeps.confirmation.candidates import Job
from sweeps.confirmation.measured import FOLDER, RESULT, SeedResult, load_result, save_result
from sweeps.search.scheduler import BASELINE, OBJECTIVE
from sweeps.session.display import Display, build_display
from sweeps.session.orchestrator import longest_trial
from sweeps.session.recorder import SWEEP_RUN, Recorder
from sweeps.session.resume import recorded_reports
from sweeps.session.tuning import Session, run_trials
from sweeps.states import Outcome, State, outcome_of
from sweeps.storage.mirror import Mirror
from sweeps.study.study import TrialRecord
from sweeps.trial.trial import TrialPlan
from sweeps.trial.watchdog import STALL

KEPT = (State.COMPLETED, State.INFEASIBLE)
"""Ends that say something about the configuration: such a job is not run again."""


@dataclass(frozen=True)
class JobPlan(TrialPlan):
    """What all jobs share; they are numbered as they stand in `jobs`."""

    jobs: tuple[Job, ...] = ()

    def key(self, number: int) -> str:
        """Name of the folder of a job."""
        return self.jobs[number].key

    def label(self, number: int) -> str:
        """A job, in words."""
        return self.jobs[number].label

    def recall(self) -> None:
        """Bring the results that an earlier driver left in the storage."""
        there = Mirror(self.url).names() if self.url is not None else set()
        for number, job in enumerate(self.jobs):
            if f"{job.key}/{RESULT}" in there and self.result(number) is None:
                self.fetch(number, [RESULT])

    def result(self, number: int) -> SeedResult | None:
        """How a job ended; None if it has not, or other settings have left the result there."""
        return load_result(self.run_dir(number), self.settings(self.jobs[number].parameters))

    def keep(self, number: int, result: SeedResult) -> None:
        """Write down how a job ended."""
        save_result(self.run_dir(number), result, self.settings(self.jobs[number].parameters))
        if self.url is not None:
            path = self.run_dir(number) / RESULT
            Mirror(self.url).push(path, f"{self.key(number)}/{RESULT}")

    def left(self) -> list[int]:
        """Jobs that say nothing yet."""
        ends = {number: self.result(number) for number in range(len(self.jobs))}
        return [number for number, end in ends.items() if end is None or end.state not in KEPT]


class JobSearcher(Searcher):  # type: ignore[misc]
    """Hands out jobs and hears of their ends.

    Args:
        plan: of all jobs.
        numbers: those to run.
        on_end: called with number, outcome and last report.
        explain: why the worker of a job died, as far as it is known.
    """

    def __init__(
        self,
        plan: JobPlan,
        numbers: Sequence[int],
        on_end: Callable[[int, Outcome, Mapping[str, Any]], None],
        explain: Callable[[int], str],
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode=plan.spec.objective.mode)
        self._plan = plan
        self._waiting = list(numbers)
        self._on_end = on_end
        self._explain = explain
        self._open: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Only what a searcher is made of by Ray: it pickles one copy, which nobody reads."""
        return {"_metric": self._metric, "_mode": self._mode}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        number = self._open[trial_id] = self._waiting.pop(0)
        job = self._plan.jobs[number]
        return {"number": number, BASELINE: job.label, "parameters": job.parameters}

    def retried(self, trial_id: str, why: str) -> None:
        """A job ran out of memory and starts again, alone. A later session tries it afresh."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self._open.pop(trial_id, None)
        if number is None:  # Ray may report the end of a failing trial twice
            return
        why = self._explain(number) if error else ""
        self._on_end(number, outcome_of(result, error, why), result or {})

    def close(self) -> None:
        """Jobs that have not ended are interrupted."""
        for number in self._open.values():
            self._on_end(number, Outcome(State.INTERRUPTED, "the confirmation ended first"), {})
        self._open.clear()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: results are on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: results are on disk."""


class JobRecorder(Recorder):
    """Tells tracker and display of jobs. The trials' runs are closed, so that their keys are free."""

    @property
    def plan(self) -> JobPlan:
        """Of all jobs."""
        assert isinstance(self._plan, JobPlan)
        return self._plan

    def begin_run(
        self,
        number: int,
        baseline: str | None,  # noqa: ARG002
        parameters: dict[str, Any],
    ) -> None:
        """Begin the MLflow run of a job, or go on with that of an earlier session."""
        job = self.plan.jobs[number]
        config = self._plan.spec.config(parameters, self._plan.run_dir(number))
        tags = {
            "sweep.trial": job.key,
            "sweep.confirms": job.candidate.trial,
            "sweep.baseline": job.candidate.baseline,
            "sweep.set_back": job.candidate.factor,
            "state": "running",
        }
        self._tracker.start(
            key=str(number),
            name=f"confirm {job.label}",
            parameters=config.model_dump(mode="json"),
            tags={**self._tags, **tags},
            parent=SWEEP_RUN,
            run_id=self._runs.get(number),
        )

    def catch_up(self, number: int, end: SeedResult) -> None:
        """Write the run of a job that an earlier session ended but did not live to tell."""
        parameters = self.plan.jobs[number].parameters
        own = self.fetch(number, parameters)
        self.begin_run(number, None, parameters)
        run_dir, objective = self.plan.run_dir(number), self.plan.spec.objective
        for report in recorded_reports(run_dir, objective) if own else ():
            self._tracker.log(str(number), report)
        self.end_run(number, Outcome(end.state, end.reason), own)


def run_jobs(plan: JobPlan, session: Session, console: Console) -> list[SeedResult | None]:
    """Run what is left of the jobs; `session.stops` says whether it was cut off.

    Returns:
        how each job ended; None for those that have not.
    """
    plan.recall()
    numbers = plan.left()
    recorder, display = build_recorder(plan, session, console)
    display.known(records_of(plan))

    def on_end(number: int, outcome: Outcome, last: Mapping[str, Any]) -> None:
        result = to_result(outcome, last)
        if outcome.state is not State.INTERRUPTED:
            plan.keep(number, result)
        value = result.metrics.get(plan.spec.objective.metric)
        session.stops.ended(number, outcome, value)
        recorder.ended(number, outcome)

    searcher = JobSearcher(plan, numbers, on_end, recorder.explain)
    try:
        if numbers:
            for number in numbers:
                (plan.run_dir(number) / STALL).unlink(missing_ok=True)  # may hang no more
            run_trials(plan, len(numbers), session, searcher, FIFOScheduler(), [recorder], display)
    finally:
        searcher.close()
    return [plan.result(number) for number in range(len(plan.jobs))]


def to_result(outcome: Outcome, last: Mapping[str, Any]) -> SeedResult:
    """The end of a job, with the metrics of its last report, which Ray hands over flat."""
    prefix = "metrics/"
    metrics = {k.removeprefix(prefix): v for k, v in last.items() if k.startswith(prefix)}
    measured = metrics if outcome.state is State.COMPLETED else {}
    best_epoch = last.get("best_epoch") if measured else None
    return SeedResult(outcome.state, outcome.reason, measured, best_epoch)


def records_of(plan: JobPlan) -> list[TrialRecord]:
    """The jobs that earlier sessions ended, for the display."""
    metric = plan.spec.objective.metric
    ends = {number: plan.result(number) for number in range(len(plan.jobs))}
    return [
        TrialRecord(
            number,
            end.state,
            plan.jobs[number].parameters,
            end.metrics.get(metric),
            baseline=plan.jobs[number].label,
            reason=end.reason,
        )
        for number, end in ends.items()
        if end is not None and end.state in KEPT
    ]


def build_recorder(
    plan: JobPlan, session: Session, console: Console
) -> tuple[JobRecorder, Display]:
    """Recorder and display; the tracker is brought up to what earlier sessions did."""
    spec = plan.spec
    sweep_id = f"{session.folder.load_record().get('sweep_id')}.{FOLDER}"
    stored = session.tracker.stored_runs(sweep_id)
    keys = {job.key: number for number, job in enumerate(plan.jobs)}
    runs = {keys[key]: run.run_id for key, run in stored.items() if key in keys}
    display = build_display(
        len(plan.jobs),
        longest_trial(spec),
        spec.objective.metric,
        spec.objective.mode,
        console,
        noun="run",
    )
    tags = {"sweep.name": session.folder.name, "sweep.id": sweep_id}
    recorder = JobRecorder(
        plan, tags, session.tracker, display, session.stops, runs, session.deaths
    )
    for key, number in keys.items():
        end, run = plan.result(number), stored.get(key)
        if end is not None and end.state in KEPT and (run is None or run.running):
            recorder.catch_up(number, end)
    return recorder, display
