"""`Recorder`: hears of every trial in the driver, tells the tracker and the display."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from sweeps.search.scheduler import BASELINE
from sweeps.search.stops import Stops
from sweeps.session.display import Display
from sweeps.states import Outcome
from sweeps.study.study import RETRIED
from sweeps.tracking import Tracker
from sweeps.trial.causes import ALONE_TOO, OUT_OF_MEMORY, Deaths
from sweeps.trial.identity import CURE, FILE, foreign
from sweeps.trial.trial import ALONE, SET_ASIDE, TrialPlan
from sweeps.trial.watchdog import stall_reason, stalled

log = logging.getLogger(__name__)

SWEEP_RUN = "sweep"
"""Key of the parent run in the tracker."""
FILES = ("config.yaml", "training_debug.log", "steps.jsonl", "health.json")
"""Files of a trial that the tracker keeps."""


@dataclass(frozen=True)
class FilesOf:
    """The files of a trial for the tracker, fetched when it comes to them."""

    plan: TrialPlan
    number: int

    def __iter__(self) -> Iterator[Path]:
        self.plan.fetch(self.number, FILES)
        return (self.plan.run_dir(self.number) / name for name in FILES)


class Recorder(tune.Callback):  # type: ignore[misc]
    """Ray Tune's callbacks; ends come from the searcher, which alone knows how a trial ended.

    Args:
        plan: of the sweep.
        tags: of all its runs.
        tracker: open.
        display: shows what happens.
        stops: looked at after every step of Ray Tune.
        runs: number -> MLflow run of a trial that an earlier session began.
        deaths: why workers ended.
    """

    def __init__(
        self,
        plan: TrialPlan,
        tags: Mapping[str, str],
        tracker: Tracker,
        display: Display,
        stops: Stops,
        runs: Mapping[int, str],
        deaths: Deaths,
    ) -> None:
        self._plan = plan
        self._tags = tags
        self._tracker = tracker
        self._display = display
        self._stops = stops
        self._runs = runs
        self._started: dict[int, Any] = {}
        self._deaths = deaths

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its callbacks once, for a way of resuming that is not used."""
        return {}

    def on_step_end(self, **_: Any) -> None:
        self._display.tick()
        self._stops.check()

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        number, parameters = trial.config["number"], trial.config["parameters"]
        if number in self._started:  # goes on after its worker was lost
            return
        self._started[number] = trial
        self._stops.started(number)
        baseline = trial.config[BASELINE]
        self.begin_run(number, baseline, parameters)
        self._display.started(number, baseline, parameters)
        if trial.config.get(ALONE):  # an earlier session ran out of memory
            self.retried(number)

    def on_trial_recover(self, *, trial: Any, **_: Any) -> None:
        if trial.config.get(ALONE):
            self.retried(trial.config["number"])

    def retried(self, number: int) -> None:
        """A trial is tried again for want of memory."""
        self.tag_retried(number)
        self._display.retried(number)

    def tag_retried(self, number: int) -> None:
        """Say so in the trial's run."""
        self._tracker.tag(str(number), {RETRIED: OUT_OF_MEMORY})

    def begin_run(self, number: int, baseline: str | None, parameters: dict[str, Any]) -> None:
        """Begin the MLflow run of a trial, or go on with that of an earlier session."""
        config = self._plan.spec.config(parameters, self._plan.run_dir(number))
        tags = {"sweep.trial": number, "sweep.baseline": baseline, "state": "running"}
        self._tracker.start(
            key=str(number),
            name=f"trial {number:03d}" + (f" ({baseline})" if baseline else ""),
            parameters=config.model_dump(mode="json"),
            tags={**self._tags, **tags},
            parent=SWEEP_RUN,
            run_id=self._runs.get(number),
        )

    def end_run(self, number: int, outcome: Outcome, own: bool = True) -> None:
        """Close the MLflow run of a trial, with its files unless they are not its own."""
        files = FilesOf(self._plan, number) if own else ()
        self._tracker.end(str(number), outcome, files)

    def fetch(self, number: int, parameters: dict[str, Any]) -> bool:
        """Bring what a trial has written to the driver; returns whether it is the trial's own."""
        self._plan.fetch(number, (FILE, *FILES, "evaluations.jsonl"))
        run_dir = self._plan.run_dir(number)
        why = foreign(run_dir, self._plan.settings(parameters))
        if why is not None:
            label = self._plan.label(number)
            log.warning("%s: %s %s: nothing of it goes to MLflow; %s", label, run_dir, why, CURE)
        return why is None

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        number = trial.config["number"]
        if aside := result.pop(SET_ASIDE, None):
            log.warning("%s: %s", self._plan.label(number), aside)
            self._tracker.tag(str(number), {SET_ASIDE: aside})
        self._tracker.log(str(number), dict(result))
        self._display.reported(number, result)
        # Ray keeps a trial's last result and writes it into every snapshot
        result.pop("history", None)

    def ended(self, number: int, outcome: Outcome) -> None:
        """A trial ended; one that never started leaves no run."""
        if number in self._started:
            self.end_run(number, outcome)
            self._display.ended(number, outcome)

    def explain(self, number: int) -> str:
        """Why the worker of a trial died."""
        run_dir = self._plan.run_dir(number)
        if stalled(run_dir):
            return stall_reason(run_dir, self._plan.spec.stall_minutes)
        trial = self._started.get(number)
        if trial is None:
            return ""
        cause, alone = self._deaths.cause(trial), trial.config.get(ALONE)
        if not alone:
            return cause
        if cause.startswith(OUT_OF_MEMORY):
            return cause + ALONE_TOO
        return f"the worker process died when tried again, alone, after this: {alone}"
