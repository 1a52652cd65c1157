"""`python -m sweeps.rerun NAME`: run the best trial again as one job, and compare.

NAME is a sweep, or the MLflow id of a trial's run or of a run of its confirmation. The same trainer
runs the same settings in this process; on a CPU its metrics equal the earlier ones to the last
digit.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsdet.command import ExitCode, run_command
from fsdet.config import TrainConfig
from fsdet.errors import FsdetError
from fsdet.report import Report, Result
from sweeps.config import SweepSpec
from sweeps.config.sections import TrackingSpec
from sweeps.confirmation.report import winning_trial
from sweeps.confirmation.results import CONFIRM_FOLDER
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.session.callbacks import ARTIFACTS
from sweeps.states import ENDED, Outcome, State
from sweeps.storage.folder import SweepFolder, find_folder
from sweeps.study.location import store_of
from sweeps.study.study import TrialRecord, best_of, read_trials
from sweeps.tracking import Tracker, find_run, find_trial_run, recorded_uri, tracking_uri
from sweeps.trial.messages import to_report
from sweeps.trial.trial import default_train

RUN = "rerun"
"""Key of the run in the tracker."""


@dataclass(frozen=True)
class Source:
    """The trial to run again, or the run of a confirmation."""

    folder: SweepFolder
    spec: SweepSpec
    """Of the sweep, or of its confirmation."""
    trial: TrialRecord

    @property
    def label(self) -> str:
        """Name of the trial or run, for messages."""
        if self.trial.preset is not None and self.trial.preset.key:
            return f"confirmation {self.trial.run_key}"
        return f"trial {self.trial.label}"

    def config(self, run_dir: Path) -> TrainConfig:
        """The trial's config, with `run_dir` as its folder."""
        overrides = {} if self.trial.preset is None else self.trial.preset.overrides
        return self.spec.config({**self.trial.parameters, **overrides}, run_dir)


def find_source(name: str, storage: str | None = None) -> Source:
    """The trial to run again: the best of the sweep `name`, or the trial whose MLflow run has the id `name`.

    Raises:
        SweepError: no such sweep or run, or no trial completed.
    """
    try:
        folder = find_folder(name, storage)
    except SweepError:
        if len(name) != 32:  # an MLflow run id is 32 hex digits
            raise
        return _source_of_run(name, storage)
    spec = folder.load_spec()
    trials = read_trials(store_of(folder))
    best = winning_trial(spec, folder, trials) or best_of(trials, spec.objective)
    if best is None:
        raise SweepError(
            f"{name}: no trial of this sweep completed; choose one by its MLflow run id"
        )
    return Source(folder, spec, best)


def _source_of_run(run_id: str, storage: str | None) -> Source:
    tags = find_run(tracking_uri(TrackingSpec()), run_id)
    if "sweep.trial" not in tags:
        raise SweepError(f"{run_id}: is not the run of a trial; choose one named 'trial …'")
    folder = find_folder(tags["sweep.name"], storage)
    spec, store, key = folder.load_spec(), store_of(folder), tags["sweep.trial"]
    if not key.isdigit():
        spec, store = spec.for_confirmation, store.beside(CONFIRM_FOLDER)
    trials = {trial.run_key: trial for trial in read_trials(store)}
    if key not in trials or (not key.isdigit() and trials[key].state not in ENDED):
        raise SweepError(f"{key}: this run of sweep {folder.name} has not ended; --resume ends it")
    return Source(folder, spec, trials[key])


def new_run_dir(source: Source) -> Path:
    """A new folder for one more run of the trial."""
    number, base = 1, source.trial.folder.replace("/", "-")
    while True:
        path = source.folder.path / "reruns" / f"{base}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def start_run(source: Source, config: TrainConfig) -> Tracker:
    """Open the tracker of the sweep and start the run, linked to the trial's."""
    record, key = source.folder.load_record(), source.trial.run_key
    uri = recorded_uri(record.get("uri"), source.spec.tracking, source.folder.name)
    tracker = Tracker(uri, source.spec.tracking.experiment)
    of_run = find_trial_run(uri, record.get("run_id") or "", key)
    tags = {
        "sweep.name": source.folder.name,
        "rerun.of_trial": key,
        "rerun.of_run": of_run,
        "state": "running",
    }
    title = f"rerun of {source.folder.name} {source.label}"
    tracker.start(RUN, title, config.model_dump(mode="json"), tags)
    if of_run is not None:
        tracker.adopt(key, of_run)
        tracker.link(RUN, key, source.label)
        tracker.link(key, RUN, f"run again in {config.checkpoint_dir.name}")
    return tracker


def rerun(source: Source) -> Result:
    """Train the trial's configuration in this process and log it, linked to the trial's run."""
    run_dir = new_run_dir(source)
    config = source.config(run_dir)
    tracker = start_run(source, config)
    outcome = Outcome(State.INTERRUPTED)

    def on_report(report: Report) -> None:
        tracker.log(RUN, to_report(report, source.spec.objective.name))

    try:
        result = default_train()(config, on_report)
        exploded = result.explosion
        outcome = (
            Outcome(State.COMPLETED)
            if exploded is None
            else Outcome(State.INFEASIBLE, f"step {exploded.step}: {exploded.detail}")
        )
    except Exception as error:
        outcome = Outcome(State.FAILED, str(error))
        raise
    finally:
        tracker.end(RUN, outcome, [run_dir / file for file in ARTIFACTS])
        tracker.close()
    return result


def compare(trial: TrialRecord, result: Result) -> tuple[list[str], bool]:
    """One line per metric of the best epoch with both values, and whether all are equal."""
    old: dict[str, float | None] = {"best epoch": trial.best_epoch, **trial.metrics}
    new: dict[str, float | None] = {"best epoch": result.best_epoch, **result.metrics}
    lines, equal = [], bool(trial.metrics)
    for name in ["best epoch", *sorted({*trial.metrics, *result.metrics})]:
        before, after = old.get(name), new.get(name)
        same = before == after
        equal = equal and same
        lines.append(f"  {name:<20} {before!s:>22} {after!s:>22}  {'equal' if same else 'differs'}")
    return lines, equal


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    warnings_only = logging.StreamHandler()
    warnings_only.setLevel(logging.WARNING)  # the trainer logs every step, to its file
    logging.basicConfig(handlers=[warnings_only], format="%(levelname)s: %(message)s")
    parser = argparse.ArgumentParser(prog="python -m sweeps.rerun", description=__doc__)
    parser.add_argument("name", help="name of a sweep, or the MLflow run id of a trial")
    parser.add_argument(
        "--storage", metavar="PATH", help="the storage.path of the sweep's YAML, where it has one"
    )
    options = parser.parse_args(arguments)
    return run_command(
        lambda: rerun_and_compare(options.name, options.storage),
        mistakes=(SweepError, FsdetError),
        redact=without_password,
    )


def rerun_and_compare(name: str, storage: str | None) -> ExitCode:
    """Run a trial again and print its metrics beside the earlier ones; returns the exit code.

    Raises:
        SweepError: there is no such trial.
        FsdetError: it cannot be run here.
    """
    source = find_source(name, storage)
    print(f"running {source.label} of sweep {source.folder.name} again")
    result = rerun(source)
    if result.explosion is not None:
        print(f"exploded at step {result.explosion.step}: {result.explosion.detail}")
        same = source.trial.state is State.INFEASIBLE
        return ExitCode.OK if same else ExitCode.EXPLODED
    if source.trial.state is not State.COMPLETED:
        print(f"the trial was {source.trial.state}, this run completed: nothing to compare")
        print(f"files in {result.run_dir}")
        return ExitCode.OK
    lines, equal = compare(source.trial, result)
    print(f"  {'metric':<20} {'trial':>22} {'re-run':>22}")
    print("\n".join(lines))
    print("equal to the last digit" if equal else "not equal to the last digit")
    print(f"files in {result.run_dir}")
    return ExitCode.OK if equal or source.spec.resources.gpu_share else ExitCode.NOTHING_FOUND


if __name__ == "__main__":
    sys.exit(main())
