"""One trial in its worker: claim the folder, find the checkpoint to resume from, train, report.

The last report always says how the trial ended: an error of the trainer is sent as phase `failed` with
its reason, so that it is not lost in the log of a worker. Trials write only to their own folder.

The value of a trial is that of its best epoch: while it runs the best evaluation so far, at its end the last
evaluation, which measures the weights of that epoch on other episodes.

A trial that resumes, in another worker or another session, repeats the report of the epoch at whose end its
checkpoint was saved, since the driver may not have received it. Receivers ignore the repetition.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Protocol

from filelock import FileLock, Timeout

from fsdet.config import TrainConfig
from fsdet.errors import FsdetError
from fsdet.report import Report, Result
from sweeps.config import Objective
from sweeps.errors import SweepError
from sweeps.storage.portable_files import localize_paths
from sweeps.storage.remote import RemoteFolder
from sweeps.trial.failures import ALONE_TOO, RanOutOfMemory, cause_of, is_out_of_memory
from sweeps.trial.identity import (
    CHECKPOINT,
    claim,
    newest_checkpoint,
    remove_partial_files,
    settings_of,
)
from sweeps.trial.messages import TrialReport, TrialRequest
from sweeps.trial.reporter import NoObjectiveError, Reporter
from sweeps.trial.trial_dir import RemoteTrialDir, TrialDir
from sweeps.trial.watchdog import Watchdog, stall_reason, stalled, watchdog
from sweeps.trial.worker import wait_for_card

log = logging.getLogger(__name__)

LOCK = ".lock"
"""Held in a trial's folder by the worker that trains there."""
LOCK_SECONDS = 600
"""Time to wait for the lock: the workers of a killed driver run on for a while, on a busy machine for long."""


class Train(Protocol):
    """Signature of the trainer's entry point, `fsdet.train.train`."""

    def __call__(
        self,
        config: TrainConfig,
        on_report: Callable[[Report], None] | None = None,
        resume: Path | None = None,
        until: int | None = None,
    ) -> Result: ...


def default_train() -> Train:
    """The trainer. Imported late, since it loads torch."""
    from fsdet.train import train

    return train


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a study share."""

    objective: Objective
    folder: Path
    """Absolute; each trial has a subfolder."""
    sweep_id: str
    url: str | None = None
    """URL of the same folder in the storage, for trials on other nodes; None if all share the folder."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Path on the driver's machine -> name by which every machine finds the file."""
    stall_minutes: float | None = None
    """Minutes without a report after which a trial has failed; None sets no limit."""
    gpu_share: float = 0.0
    """GPUs per trial."""

    def run_dir(self, folder: str) -> Path:
        """Folder of a trial, as the driver sees it."""
        return self.folder / folder

    def trial_dir(self, folder: str) -> TrialDir:
        """Folder of a trial, as its worker sees it."""
        if self.url is None:
            return TrialDir(self.run_dir(folder))
        return RemoteTrialDir(f"{self.url}/{folder}")

    def localize(self, config: TrainConfig, run_dir: Path) -> TrainConfig:
        """The config of a trial with the paths of this machine."""
        url = None if self.url is None else self.url.rpartition("/")[0]
        local = localize_paths(config, self.names, self.folder.parent, url)
        return local.model_copy(update={"checkpoint_dir": run_dir})

    def remove_checkpoints(self, folder: str) -> None:
        """Remove the checkpoints of a trial that will never resume; `best.pt` stays."""
        for path in self.run_dir(folder).glob(CHECKPOINT):
            path.unlink(missing_ok=True)
        if self.url is not None:
            remote = RemoteFolder(f"{self.url}/{folder}")
            remote.remove(n for n in remote.list_files() if PurePath(n).match(CHECKPOINT))

    def download(self, folder: str, names: Iterable[str]) -> None:
        """Download files of a trial to the driver, if the storage is at a URL."""
        if self.url is not None:
            remote = RemoteFolder(f"{self.url}/{folder}")
            for name in names:
                remote.download(name, self.run_dir(folder) / name)


def run_trial(
    context: TrialContext,
    request: TrialRequest,
    send: Callable[[TrialReport], None],
    train: Train | None = None,
) -> None:
    """Train one configuration to its next pause or to its end, and send its reports.

    Args:
        context: of all trials.
        request: of this one.
        send: sends a report to the driver.
        train: the trainer, if not `fsdet.train.train`.

    Raises:
        RanOutOfMemory: for the first time; the trial is to be retried alone.
    """
    trial_dir = context.trial_dir(request.folder)
    run_dir = trial_dir.run_dir
    reporter = Reporter(context.objective, send, trial_dir)
    try:
        config = context.localize(request.config, run_dir)
        with (
            FileLock(run_dir / LOCK, timeout=LOCK_SECONDS),  # to wait for it is not to stall
            watchdog(run_dir, context.stall_minutes) as dog,
            trial_dir.opened(),
        ):
            reporter.set_aside(claim(run_dir, settings_of(config), context.sweep_id))
            if stalled(run_dir):
                reporter.fail(stall_reason(run_dir, context.stall_minutes))
                return
            if config.device.startswith("cuda"):
                wait_for_card(1.0 if request.retried else context.gpu_share)
            _train(config, request.until, reporter, dog, train or default_train())
    except Timeout:
        reporter.fail(f"another process trains in {run_dir}; stop it, then resume the sweep")
    except Exception as error:
        log.exception("%s", request.label)
        if is_out_of_memory(error):
            _out_of_memory(cause_of(error), request, reporter)
            return
        complete = isinstance(error, NoObjectiveError | FsdetError | SweepError)
        reporter.fail(str(error) if complete else cause_of(error))


def _out_of_memory(cause: str, request: TrialRequest, reporter: Reporter) -> None:
    """End the worker, so that the trial is retried, or report the failure of the last try."""
    if request.retried:
        reporter.fail(cause + ALONE_TOO)
    elif request.last_try:
        reporter.fail(cause)
    else:
        raise RanOutOfMemory(cause) from None


def _train(
    config: TrainConfig, until: int | None, reporter: Reporter, dog: Watchdog, train: Train
) -> None:
    remove_partial_files(config.checkpoint_dir)
    checkpoint = newest_checkpoint(config, reporter.set_aside)
    reporter.begin(dog, checkpoint is not None)
    dog.reset()
    train(config, reporter, checkpoint, until)
    if reporter.phase not in ("final", "paused", "exploded"):
        reporter.fail("the trainer ended without a final report")
