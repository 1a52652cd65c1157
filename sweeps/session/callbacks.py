"""`TrackerCallback`: logs each trial to a run of the tracker."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdet.report import DETECTIONS_FILE, EVALUATIONS_FILE, FIRST_STEP_FILE, STEPS_FILE
from sweeps.session.display import format_number, format_setting, short_name
from sweeps.states import Outcome, State
from sweeps.study.records import RETRIED, TrialRecord
from sweeps.tracking import Tracker
from sweeps.trial.failures import OUT_OF_MEMORY, first_line
from sweeps.trial.identity import CURE, TRIAL_FILE, mismatch, settings_of
from sweeps.trial.messages import TrialEnd, TrialReport, TrialRequest
from sweeps.trial.trial import TrialContext

log = logging.getLogger(__name__)

SWEEP_RUN = "sweep"
"""Key of the parent run in the tracker."""
ARTIFACTS = (
    *("config.yaml", "training_debug.log", STEPS_FILE),
    *("health.json", FIRST_STEP_FILE, DETECTIONS_FILE),
)
"""Files of a trial that are logged as artifacts; only a complete one has the picture."""
ENVIRONMENT = {"device", "threads", "num_workers"}
"""Settings that say where a trial runs."""
NAMED_SETTINGS = 2
"""Searched settings in the name of a run; the others are columns."""
NAME_LENGTH = 60
"""Characters of a reason in the name of a run."""
SET_ASIDE = "set_aside"
"""Tag of a run: files in the trial's folder from which it did not resume, and why."""


@dataclass(frozen=True)
class ArtifactsOf:
    """The artifacts of a trial; iterating over them downloads them first."""

    context: TrialContext
    folder: str

    def __iter__(self) -> Iterator[Path]:
        self.context.download(self.folder, ARTIFACTS)
        return (self.context.run_dir(self.folder) / name for name in ARTIFACTS)


class TrackerCallback:
    """A callback of trials.

    Args:
        context: of the trials.
        tags: of all their runs.
        tracker: open.
        runs: tag `sweep.trial` -> id of the MLflow run of an earlier session.
    """

    def __init__(
        self,
        context: TrialContext,
        tags: Mapping[str, str],
        tracker: Tracker,
        runs: Mapping[str, str],
    ) -> None:
        self._context = context
        self._tags = tags
        self._tracker = tracker
        self._runs = runs

    def on_start(self, request: TrialRequest) -> None:
        """Begin the run of a trial, or continue it."""
        self.begin_run(request)

    def on_report(self, request: TrialRequest, report: TrialReport) -> None:
        """Write metrics and history."""
        if report.set_aside:
            log.warning("%s: %s", request.label, report.set_aside)
            self._tracker.tag(request.run_key, {SET_ASIDE: report.set_aside})
        self._tracker.log(request.run_key, report)

    def on_retry(self, request: TrialRequest) -> None:
        """Tag the run of a trial that ran out of memory."""
        self._tracker.tag(request.run_key, {RETRIED: OUT_OF_MEMORY})

    def on_end(self, end: TrialEnd) -> None:
        """Close the run of a trial; one that pauses gets its files when it ends."""
        own = end.outcome.state is not State.PAUSED
        if own and end.report is None:  # no worker has claimed its folder in this session
            own = self.download(end.request)
        self.end_run(end.request, end.outcome, end.value, own)

    def begin_run(self, request: TrialRequest) -> None:
        """Begin the run of a trial, or continue that of an earlier session."""
        tags = {"sweep.trial": request.run_key, "sweep.baseline": request.baseline}
        settings = request.config.model_dump(mode="json")
        places = places_of(request)
        self._tracker.start(
            key=request.run_key,
            name=run_name(request),
            parameters={key: value for key, value in settings.items() if key not in places},
            tags={
                **self._tags,
                **tags,
                **request.tags,
                **{f"config.{key}": settings[key] for key in places},
                "state": "running",
            },
            parent=SWEEP_RUN,
            run_id=self._runs.get(request.run_key),
        )

    def end_run(
        self, request: TrialRequest, outcome: Outcome, value: float | None, own: bool = True
    ) -> None:
        """Close the run of a trial.

        Args:
            request: to run the trial.
            outcome: of the trial.
            value: the objective at the best epoch.
            own: whether its files are logged.
        """
        files = ArtifactsOf(self._context, request.folder) if own else ()
        name = f"{run_name(request)} · {ending(outcome, value)}"
        self._tracker.end(request.run_key, outcome, files, name=name)

    def download(self, request: TrialRequest) -> bool:
        """Download the files of a trial; returns whether they belong to it."""
        self._context.download(request.folder, (TRIAL_FILE, *ARTIFACTS, EVALUATIONS_FILE))
        run_dir = self._context.run_dir(request.folder)
        why = mismatch(run_dir, settings_of(request.config))
        if why is not None:
            label = request.label
            log.warning("%s: %s %s: it is not logged to MLflow; %s", label, run_dir, why, CURE)
        return why is None


def places_of(request: TrialRequest) -> list[str]:
    """Settings that say where a trial runs and where its files are: tags, since nobody compares trials by them."""
    config = request.config
    paths = {key for key in type(config).model_fields if isinstance(getattr(config, key), Path)}
    return sorted((paths | ENVIRONMENT) - request.parameters.keys())


def run_name(request: TrialRequest) -> str:
    """Name of the run of a trial, or of a confirmation's run."""
    if request.is_confirmation:
        return f"confirm {request.title}"
    return trial_name(request.number, request.baseline, request.parameters)


def trial_name(number: int, baseline: str | None, parameters: Mapping[str, Any]) -> str:
    """`#07 clip 3.2 dfl 0.61`: number and first settings; a baseline's name instead of the settings."""
    settings = " ".join(
        f"{short_name(key).split()[0]} {format_setting(value)}"
        for key, value in list(parameters.items())[:NAMED_SETTINGS]
    )
    return f"#{number:02d} {baseline or settings}".strip()


def result_name(record: TrialRecord, parameters: Mapping[str, Any]) -> str:
    """Name of a run that says how its trial ended: `#07 clip 3.2 dfl 0.61 · exploded at step 41, loss in head`."""
    outcome = Outcome(record.state, record.reason)
    name = trial_name(record.number, record.baseline, parameters)
    return f"{name} · {ending(outcome, record.value)}"


def ending(outcome: Outcome, value: float | None) -> str:
    """How a trial ended, in a few words."""
    reason = first_line(outcome.reason).partition(":")[0]
    match outcome.state:
        case State.COMPLETED:
            return format_number(value, 4)
        case State.INFEASIBLE:
            return f"exploded at {reason}"
        case State.PAUSED | State.PRUNED | State.FAILED:
            return f"{outcome.state} {reason}"[:NAME_LENGTH].strip()
        case _:
            return str(outcome.state)
