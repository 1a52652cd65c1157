"""`Recorder`: hears of every trial in the driver, tells the tracker and the display."""

from __future__ import annotations

from typing import Any

from ray import tune

from sweeps.display import Display
from sweeps.scheduler import BASELINE
from sweeps.states import Outcome
from sweeps.tracking import Tracker
from sweeps.trial import TrialPlan

SWEEP_RUN = "sweep"
"""Key of the parent run in the tracker."""
FILES = ("config.yaml", "training_debug.log", "steps.jsonl")
"""Files of a trial that the tracker keeps."""


class Recorder(tune.Callback):  # type: ignore[misc]
    """Ray Tune's callbacks; ends come from the searcher, which alone knows how a trial ended."""

    def __init__(
        self, plan: TrialPlan, sweep_name: str, tracker: Tracker, display: Display
    ) -> None:
        self._plan = plan
        self._sweep_name = sweep_name
        self._tracker = tracker
        self._display = display
        self._started: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its callbacks once, for a way of resuming that is not used."""
        return {}

    def on_step_end(self, **_: Any) -> None:
        self._display.tick()

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        number, parameters = trial.config["number"], trial.config["parameters"]
        if number in self._started:  # goes on after its worker was lost
            return
        self._started.add(number)
        baseline = trial.config[BASELINE]
        config = self._plan.spec.config(parameters, self._plan.run_dir(number))
        tags = {"sweep.name": self._sweep_name, "sweep.trial": number, "sweep.baseline": baseline}
        self._tracker.start(
            key=str(number),
            name=f"trial {number:03d}" + (f" ({baseline})" if baseline else ""),
            parameters=config.model_dump(mode="json"),
            tags={**tags, "state": "running"},
            parent=SWEEP_RUN,
        )
        self._display.started(number, baseline, parameters)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_: Any) -> None:
        number = trial.config["number"]
        self._tracker.log(str(number), dict(result))
        self._display.reported(number, result)
        # Ray keeps a trial's last result and writes it into every snapshot
        result.pop("history", None)

    def ended(self, number: int, outcome: Outcome) -> None:
        """A trial ended; one that never started leaves no run."""
        if number in self._started:
            run_dir = self._plan.run_dir(number)
            self._tracker.end(str(number), outcome, [run_dir / name for name in FILES])
            self._display.ended(number, outcome)
