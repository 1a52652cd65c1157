"""`TrackerCallback`: logs each trial to a run of the tracker."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsdet.report import DETECTIONS_FILE
from sweeps.states import Outcome, State
from sweeps.study.study import RETRIED
from sweeps.tracking import Tracker
from sweeps.trial.failures import OUT_OF_MEMORY
from sweeps.trial.identity import CURE, TRIAL_FILE, mismatch, settings_of
from sweeps.trial.messages import TrialEnd, TrialReport, TrialRequest
from sweeps.trial.trial import TrialContext

log = logging.getLogger(__name__)

SWEEP_RUN = "sweep"
"""Key of the parent run in the tracker."""
ARTIFACTS = ("config.yaml", "training_debug.log", "steps.jsonl", "health.json", DETECTIONS_FILE)
"""Files of a trial that are logged as artifacts; only a complete one has the picture."""
EVALUATIONS = "evaluations.jsonl"
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
        self.end_run(end.request, end.outcome, own)

    def begin_run(self, request: TrialRequest) -> None:
        """Begin the run of a trial, or continue that of an earlier session."""
        tags = {"sweep.trial": request.run_key, "sweep.baseline": request.baseline}
        self._tracker.start(
            key=request.run_key,
            name=run_name(request),
            parameters=request.config.model_dump(mode="json"),
            tags={**self._tags, **tags, **request.tags, "state": "running"},
            parent=SWEEP_RUN,
            run_id=self._runs.get(request.run_key),
        )

    def end_run(self, request: TrialRequest, outcome: Outcome, own: bool = True) -> None:
        """Close the run of a trial; `own`: whether its files are logged."""
        files = ArtifactsOf(self._context, request.folder) if own else ()
        if (earlier := self._runs.get(request.run_key)) is not None:
            self._tracker.adopt(request.run_key, earlier)
        self._tracker.end(request.run_key, outcome, files)

    def download(self, request: TrialRequest) -> bool:
        """Download the files of a trial; returns whether they belong to it."""
        self._context.download(request.folder, (TRIAL_FILE, *ARTIFACTS, EVALUATIONS))
        run_dir = self._context.run_dir(request.folder)
        why = mismatch(run_dir, settings_of(request.config))
        if why is not None:
            label = request.label
            log.warning("%s: %s %s: it is not logged to MLflow; %s", label, run_dir, why, CURE)
        return why is None


def run_name(request: TrialRequest) -> str:
    """Name of a trial's run in the tracker."""
    if request.is_confirmation:
        return f"confirm {request.title}"
    return f"trial {request.number:03d}" + (f" ({request.baseline})" if request.baseline else "")
