"""One trial: a suggestion becomes a `TrainConfig`, is trained, and reports to Ray Tune.

The only file that calls the trainer. A report holds what the driver needs for its three
listeners: the scheduler (`objective`, `epoch`), the sampler (`phase`, `violation`, `best…`) and
the tracker (`metrics`, `history`). Trials write nothing but the files in their own folder.

The value of a trial is that of its best epoch: while it runs the best evaluation so far, at its end
the last evaluation, which takes the weights of that epoch to other episodes.

A trial that goes on, in another worker or another session, repeats the report of the epoch at
whose end its checkpoint was saved: its listener may not have heard it. Listeners take it once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from fsdet.config import TrainConfig
from fsdet.errors import FsdetError
from fsdet.report import Report, Result
from sweeps.errors import SweepError
from sweeps.spec import Objective, SweepSpec
from sweeps.storage.mirror import Mirror
from sweeps.storage.shipping import Places, settle
from sweeps.trial.causes import ALONE_TOO, RanOutOfMemory, cause_of, is_out_of_memory
from sweeps.trial.checkpoints import newest_checkpoint, remove_halves
from sweeps.trial.identity import Settings, claim, settings_of
from sweeps.trial.room import clear_card
from sweeps.trial.watchdog import Watchdog, stall_reason, stalled, watchdog
from sweeps.trial.worker import Costs, leaks
from sweeps.trial.workplace import MirroredWorkplace, Workplace

log = logging.getLogger(__name__)

LOCK = ".lock"
"""Held in a trial's folder by the worker that trains there."""
PATIENCE = 60
"""Seconds to wait for it: the workers of a killed driver live on for some."""
SPOILED = "spoiled"
"""Key in a trial's report: its worker must not run another trial."""
ALONE = "alone"
"""Key in a suggestion: why the trial needs the machine or the card to itself; None for most."""
SET_ASIDE = "set_aside"
"""Key in a trial's report: files that it did not go on from, and why."""
LAST_TRY = "last_try"
"""Key in a suggestion: Ray Tune has started this trial before and will not do it again."""


class Train(Protocol):
    """The trainer's entry point; `fsdet.train.train` is the one."""

    def __call__(
        self,
        config: TrainConfig,
        on_report: Callable[[Report], None] | None = None,
        resume: Path | None = None,
    ) -> Result: ...


def default_train() -> Train:
    """The trainer. Imported late, since it loads torch."""
    from fsdet.train import train

    return train


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a sweep share."""

    spec: SweepSpec
    folder: Path
    """Absolute; trial N writes to the subfolder N of it."""
    url: str | None = None
    """Of the same folder in the storage, where trials on other nodes find and leave their files."""
    places: Places = field(default_factory=dict)
    """Where they find the files that the sweep names."""
    sweep: str = field(default="", kw_only=True)
    """Id of the sweep."""

    def key(self, number: int) -> str:
        """Name of the folder of trial `number`."""
        return f"{number:04d}"

    def run_dir(self, number: int) -> Path:
        """Folder of trial `number`, as the driver sees it."""
        return self.folder / self.key(number)

    def workplace(self, number: int) -> Workplace:
        """Where trial `number` trains."""
        if self.url is None:
            return Workplace(self.run_dir(number))
        return MirroredWorkplace(f"{self.url}/{self.key(number)}")

    def config(self, suggestion: dict[str, Any], run_dir: Path) -> TrainConfig:
        """The config of a trial, with the paths of the machine that it runs on."""
        config = self.spec.config(suggestion["parameters"], run_dir)
        url = None if self.url is None else self.url.rpartition("/")[0]
        return settle(config, self.places, self.folder.parent, url)

    def label(self, number: int) -> str:
        """Trial `number`, in words."""
        return f"trial {number}"

    def settings(self, parameters: dict[str, Any]) -> Settings:
        """What decides the result of the trial with these searched settings."""
        return settings_of(self.spec.config(parameters))

    def fetch(self, number: int, names: Iterable[str]) -> None:
        """Bring files of a trial to the driver, where they are not there anyway."""
        if self.url is not None:
            mirror = Mirror(f"{self.url}/{self.key(number)}")
            for name in names:
                mirror.fetch(name, self.run_dir(number) / name)


class NoObjectiveError(Exception):
    """An evaluation did not measure the objective."""


def run_trial(
    plan: TrialPlan,
    suggestion: dict[str, Any],
    send: Callable[[dict[str, Any]], None],
    train: Train | None = None,
) -> None:
    """Train one configuration to its end and send its reports.

    The last report always says how the trial ended: an error of the trainer is sent as phase
    `failed` with its reason, so that it is not lost in the log of a worker.

    Args:
        plan: of the sweep.
        suggestion: `number` and `parameters`; `alone` and `last_try` where it is tried again.
        send: takes a report; `ray.tune.report`.
        train: the trainer.

    Raises:
        RanOutOfMemory: so it did for the first time; it is to be started again, alone.
    """
    place = plan.workplace(suggestion["number"])
    run_dir = place.run_dir
    reporter = Reporter(plan.spec.objective, send, place)
    try:
        config = plan.config(suggestion, run_dir)
        minutes = plan.spec.stall_minutes
        with (
            watchdog(run_dir, minutes) as dog,
            FileLock(run_dir / LOCK, timeout=PATIENCE),
            place.opened(),
        ):
            reporter.set_aside(claim(run_dir, settings_of(config), plan.sweep))
            if stalled(run_dir):
                reporter.fail(stall_reason(run_dir, minutes))
                return
            if config.device.startswith("cuda"):
                clear_card(1.0 if suggestion.get(ALONE) else plan.spec.resources.gpu_share)
            _train(config, reporter, dog, train or default_train())
    except Timeout:
        reporter.fail(f"another process trains in {run_dir}; stop it, then resume the sweep")
    except Exception as error:
        log.exception("trial %d", suggestion["number"])
        if is_out_of_memory(error):
            _out_of_memory(cause_of(error), suggestion, reporter)
            return
        told = isinstance(error, NoObjectiveError | FsdetError | SweepError)
        reporter.fail(str(error) if told else cause_of(error))


def _out_of_memory(cause: str, suggestion: dict[str, Any], reporter: Reporter) -> None:
    """End the worker and ask for another try, unless this was the last one."""
    if suggestion.get(ALONE):
        reporter.fail(cause + ALONE_TOO)
    elif suggestion.get(LAST_TRY):
        reporter.fail(cause)
    else:
        raise RanOutOfMemory(cause) from None


def _train(config: TrainConfig, reporter: Reporter, dog: Watchdog, train: Train) -> None:
    remove_halves(config.checkpoint_dir)
    checkpoint = newest_checkpoint(config, reporter.set_aside)
    reporter.begin(dog, checkpoint is not None)
    dog.heard()
    train(config, reporter, checkpoint)
    if reporter.phase not in ("final", "exploded"):
        reporter.fail("the trainer ended without a final report")


class Reporter:
    """Turns the trainer's reports into plain dicts.

    A report without a finite value of the objective fails the trial, unless it is about an explosion.
    """

    def __init__(
        self, objective: Objective, send: Callable[[dict[str, Any]], None], place: Workplace
    ) -> None:
        self._metric, self._name = objective.metric, name_of(objective)
        self._send = send
        self._place = place
        self._best: dict[str, Any] = {}
        self._aside: list[str] = []
        self._last: dict[str, Any] = {"epoch": 0, "step": 0}
        self._dog: Watchdog | None = None
        self._costs: Costs | None = None
        self._leaks = False
        self.phase = ""

    def set_aside(self, what: str | None) -> None:
        """Say in the next report what the trial does not go on from."""
        if what is not None:
            log.warning("%s: %s", self._place.run_dir, what)
            self._aside.append(what)

    def begin(self, dog: Watchdog, resumed: bool) -> None:
        """The training starts now."""
        self._dog, self._costs, self._leaks = dog, Costs(resumed), leaks()

    def __call__(self, report: Report) -> None:
        """Send `report`.

        Raises:
            NoObjectiveError: it holds no finite value of the objective though the run goes well.
        """
        if self._dog is not None:
            self._dog.heard()
        self._last = to_plain(report)
        if self._costs is not None:
            self._last["costs"] = self._costs.at(report.step)
        self._best = best_of_report(report, self._name)
        so_far: dict[str, float | None] = {}
        if report.phase != "exploded":
            for measured in filter(None, (report.metrics, report.final)):
                self._require(measured, report.epoch)
            assert report.best is not None
            so_far = {"objective": named(report.best.metrics, self._name)}
        self._place.keep()  # before anyone relies on it
        self._emit(report.phase, so_far)

    def fail(self, reason: str) -> None:
        """Send that the trial failed."""
        self._emit("failed", {"reason": reason})

    def _emit(self, phase: str, more: dict[str, Any]) -> None:
        self.phase = phase
        # what an explosion or an error leaves in a process is not known: no other trial gets it
        spoiled = {SPOILED: True} if phase in ("exploded", "failed") or self._leaks else {}
        aside = {SET_ASIDE: "; ".join(self._aside)} if self._aside else {}
        self._aside = []
        self._send({**self._last, **self._best, "phase": phase, **spoiled, **aside, **more})
        self._last = {key: value for key, value in self._last.items() if key != "history"}

    def _require(self, metrics: Mapping[str, float], epoch: int) -> None:
        value = named(metrics, self._name, finite=False)
        if value is None or not math.isfinite(value):
            state = "was not measured" if value is None else f"is {value}"
            raise NoObjectiveError(f"{self._metric} {state} at epoch {epoch}")


def name_of(objective: Objective) -> str:
    """The objective's metric without its split: the last evaluation may be of another one."""
    return objective.metric.rpartition("/")[2]


def named(metrics: Mapping[str, float], name: str, finite: bool = True) -> float | None:
    """The metric `name` of whatever split; None if there is none, or no finite one."""
    found = next((v for key, v in metrics.items() if key.rpartition("/")[2] == name), None)
    return None if found is None or (finite and not math.isfinite(found)) else float(found)


def best_of_report(report: Report, name: str) -> dict[str, Any]:
    """Value, epoch, standard error and all metrics of a run's best epoch so far; empty before the first.

    Args:
        report: of the run.
        name: metric of the objective, without its split.
    """
    if report.best is None:
        return {}
    metrics = report.final or report.best.metrics
    return {
        "best": named(metrics, name),
        "best_epoch": report.best.epoch,
        "standard_error": named(metrics, f"{name}_se"),
        "best_metrics": finite_of(metrics),
    }


def finite_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """The finite ones as plain numbers."""
    return {key: float(value) for key, value in metrics.items() if math.isfinite(value)}


def to_plain(report: Report) -> dict[str, Any]:
    """The report without its callable, which cannot leave the process.

    The metrics of the last report are those of the last evaluation: they are about the best epoch.
    """
    plain = {
        "step": report.step,
        "epoch": report.epoch,
        "metrics": finite_of(report.final or report.metrics),
        "history": report.history,
        "peak_norm": report.peak_norm,
        "violation": report.violation,
    }
    if report.explosion is not None:
        found = report.explosion
        plain["reason"] = f"step {found.step}, {found.reason} in {found.module}: {found.detail}"
    return plain
