"""`python -m sweeps.rerun NAME [TRIAL]`: run the best trial, or that of a number, again as one job, and compare.

NAME is a sweep, or the MLflow id of a trial's run or of a run of its confirmation. The same trainer
runs the same settings in this process; on a CPU its metrics equal the earlier ones to the last
digit.

Exit codes: 0 equal, or there was nothing to compare; 1 the metrics differ on a CPU (a GPU does not repeat to the last
digit); 2 a mistake in the input; 3 the re-run exploded, as `python -m fsdet.train` ends, whether the trial did so too
or not; 130 Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsdet.command import ExitCode, FlagParser, run_command
from fsdet.config import TrainConfig
from fsdet.json_output import add_json_flag, print_json, to_plain
from fsdet.progress import ProgressHandler
from fsdet.report import Report, Result
from sweeps.config import SweepSpec
from sweeps.config.sections import TrackingSpec
from sweeps.confirmation.report import winning_trial
from sweeps.confirmation.results import CONFIRM_FOLDER
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.session.callbacks import ARTIFACTS
from sweeps.states import ENDED, Outcome, State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.known_sweeps import add_storage_flag
from sweeps.storage.lookup import find_folder
from sweeps.study.location import store_of
from sweeps.study.records import TrialRecord, best_of
from sweeps.study.study import read_trials
from sweeps.tracking import Tracker, find_run, find_trial_run, recorded_uri, tracking_uri
from sweeps.trial.messages import to_report
from sweeps.trial.trial import default_train

log = logging.getLogger(__name__)

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


def find_source(name: str, storage: str | None = None, number: int | None = None) -> Source:
    """The trial to run again.

    Args:
        name: of a sweep, or the id of a trial's MLflow run.
        storage: see `sweeps.storage.lookup.sweeps_root`.
        number: of the trial; None for the best of the sweep.

    Raises:
        SweepError: no such sweep, run or trial, or no trial completed.
    """
    try:
        folder = find_folder(name, storage)
    except SweepError:
        if len(name) != 32:  # an MLflow run id is 32 hex digits
            raise
        return _source_of_run(name, storage)
    spec = folder.load_spec()
    trials = read_trials(store_of(folder))
    if number is not None:
        return Source(folder, spec, _trial_of(trials, number, name))
    best = winning_trial(spec, folder, trials) or best_of(trials, spec.objective)
    if best is None:
        raise SweepError(
            f"{name}: no trial of this sweep completed; choose one by its number, as in "
            f"`python -m sweeps.rerun {name} 0`"
        )
    return Source(folder, spec, best)


def _trial_of(trials: Sequence[TrialRecord], number: int, name: str) -> TrialRecord:
    for trial in trials:
        if trial.number == number:
            return trial
    last = max((trial.number for trial in trials), default=None)
    known = "it has none yet" if last is None else f"it has 0 to {last}"
    raise SweepError(
        f"{name}: no trial {number} in this sweep, {known}; `python -m sweeps.best {name} --all` lists them"
    )


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
        if tracker.close():
            log.warning("%s: not all of this run could be logged there", tracker.public_uri)
    return result


@dataclass(frozen=True)
class Comparison:
    """A trial and its re-run, metric by metric."""

    sweep: str
    trial: int
    state: str
    """Of the trial."""
    reason: str
    """Why it ended early."""
    run_dir: Path
    """Of the re-run."""
    exploded: str | None
    """How the re-run exploded; None if it did not."""
    metrics: dict[str, tuple[float | None, float | None]]
    """Metric of the best epoch -> its value in the trial and in the re-run."""

    @property
    def equal(self) -> bool:
        """Whether there are metrics and all are the same to the last digit."""
        return bool(self.metrics) and all(a == b for a, b in self.metrics.values())


def compare(source: Source, result: Result) -> Comparison:
    """The metrics of the best epoch of both, and how the re-run ended."""
    trial, found = source.trial, result.explosion
    old: dict[str, float | None] = {"best epoch": trial.best_epoch, **trial.metrics}
    new: dict[str, float | None] = {"best epoch": result.best_epoch, **result.metrics}
    names = ["best epoch", *sorted({*trial.metrics, *result.metrics})]
    comparable = trial.state is State.COMPLETED and found is None
    return Comparison(
        sweep=source.folder.name,
        trial=trial.number,
        state=str(trial.state),
        reason=trial.reason,
        run_dir=result.run_dir,
        exploded=None if found is None else f"step {found.step}: {found.detail}",
        metrics={name: (old.get(name), new.get(name)) for name in names} if comparable else {},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    # the trainer logs every step, to its file
    warnings_only = ProgressHandler(logging.WARNING, sys.stderr)
    logging.basicConfig(handlers=[warnings_only], format="%(levelname)s: %(message)s")
    return run_command(lambda: run(arguments), mistakes=(SweepError,), redact=without_password)


def run(arguments: Sequence[str] | None) -> ExitCode:
    """Run the trial of the command line again."""
    parser = FlagParser("python -m sweeps.rerun", description=__doc__)
    parser.add_argument("name", help="name of a sweep, or the MLflow run id of a trial")
    parser.add_argument(
        "trial", nargs="?", type=int, help="number of the trial; by default the best of the sweep"
    )
    add_storage_flag(parser)
    add_json_flag(parser)
    options = parser.parse_args(arguments)
    return rerun_and_compare(options.name, options.trial, options.storage, options.json)


def rerun_and_compare(
    name: str, number: int | None, storage: str | None, as_json: bool
) -> ExitCode:
    """Run a trial again and print its metrics beside the earlier ones; returns the exit code.

    Raises:
        SweepError: there is no such trial.
        FsdetError: it cannot be run here.
    """
    source = find_source(name, storage, number)
    said = sys.stderr if as_json else sys.stdout
    print(f"running {source.label} of sweep {source.folder.name} again", file=said)
    found = compare(source, rerun(source))
    if as_json:
        print_json({**to_plain(found), "equal": found.equal})
    else:
        print("\n".join(comparison_lines(found)))
    if found.exploded is not None:
        return ExitCode.EXPLODED
    same = found.equal or not found.metrics or source.spec.resources.gpu_share
    return ExitCode.OK if same else ExitCode.NOTHING_FOUND


def comparison_lines(found: Comparison) -> list[str]:
    """The comparison in words."""
    files = f"files in {found.run_dir}"
    if found.exploded is not None:
        lines = [f"exploded at {found.exploded}"]
        if found.state == State.INFEASIBLE:
            lines.append(f"so did the trial: {found.reason}")
        return [*lines, files]
    if not found.metrics:
        return [f"the trial was {found.state}, this run completed: nothing to compare", files]
    lines = [f"  {'metric':<20} {'trial':>22} {'re-run':>22}"]
    for metric, (before, after) in found.metrics.items():
        same = "equal" if before == after else "differs"
        lines.append(f"  {metric:<20} {before!s:>22} {after!s:>22}  {same}")
    equal = "equal to the last digit" if found.equal else "not equal to the last digit"
    return [*lines, equal, files]


if __name__ == "__main__":
    sys.exit(main())
