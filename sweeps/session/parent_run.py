"""The parent run of a sweep in the tracker: what was searched, how it goes, and what came out.

Its description is Markdown that the MLflow UI shows first. While the sweep runs, the best value so far, the number of
trials in each state and the compute are curves over the epochs of all trials together.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

import sweeps
from sweeps.config import SweepSpec
from sweeps.config.check import configs
from sweeps.config.distribution import describe
from sweeps.session.callbacks import SWEEP_RUN, result_name
from sweeps.session.certainty import verdicts
from sweeps.session.display import format_setting
from sweeps.session.result_table import format_value
from sweeps.session.summary import commands, counts
from sweeps.states import Outcome, State
from sweeps.storage.folder import SweepFolder
from sweeps.study.location import recorded_study
from sweeps.study.records import TrialRecord, best_of, ranked
from sweeps.tracking import NAME_TAG, RANK, STUDY_TAG, WINNER_TAG, StoredRun, Tracker, View
from sweeps.trial.messages import TrialEnd, TrialReport, TrialRequest

PACKAGES = ("torch", "ray", "optuna", "mlflow", "timm", "ultralytics")
"""Packages whose versions are tags of the run."""
DIGEST_LENGTH = 36
"""Characters of a digest that MLflow stores."""
LISTED = 10
"""Trials in the description."""


def start_parent_run(
    tracker: Tracker, spec: SweepSpec, folder: SweepFolder, runs: Mapping[str, StoredRun]
) -> dict[str, str]:
    """Start the parent run of the trials' runs, or continue it.

    Args:
        tracker: open.
        spec: of the sweep.
        folder: of the sweep.
        runs: see `earlier_runs`.

    Returns:
        the tags of all runs of this sweep.
    """
    folder.update_record(uri=tracker.public_uri)
    searched = {f"space.{key}": parameter.ends for key, parameter in spec.space.items()}
    parameters = {
        "objective": spec.objective.metric,
        "sampler": spec.sampler.name,
        "sampler.seed": spec.sampler.seed,
        "scheduler": spec.scheduler.name,
        **searched,
        **spec.settings,
    }
    tags = {"sweep.name": folder.name, "sweep.id": folder.sweep_id()}
    more: dict[str, Any] = {
        "sweep.file": spec.source,
        "sweep.trials": spec.trials,
        "state": "running",
        STUDY_TAG: recorded_study(folder),
        **origin_tags(),
    }
    before = runs.get("")
    run_id = None if before is None else before.run_id
    tracker.start(SWEEP_RUN, folder.name, parameters, {**tags, **more}, run_id=run_id)
    tracker.describe(SWEEP_RUN, "\n".join(["This sweep runs.", "", *searched_lines(spec)]))
    tracker.add_files(SWEEP_RUN, [folder.spec_file])
    tracker.flush()
    folder.update_record(run_id=tracker.run_id(SWEEP_RUN))
    share_view(tracker, spec, folder, ranked=False)
    return tags


def origin_tags() -> dict[str, str]:
    """Where the sweep runs: commit, versions, machine."""
    tags = {f"version.{name}": importlib.metadata.version(name) for name in PACKAGES}
    tags["version.python"] = platform.python_version()
    tags["machine.host"] = platform.node()
    tags["machine.cpus"] = str(os.cpu_count())
    tags["machine.memory_gb"] = str(round(psutil.virtual_memory().total / 1e9))
    if (commit := git_commit(Path(sweeps.__file__).parent)) is not None:
        tags["mlflow.source.git.commit"] = commit
    return tags


def git_commit(folder: Path) -> str | None:
    """The commit of the checkout that this code runs from; None if it is none."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def name_dataset(tracker: Tracker, spec: SweepSpec) -> None:
    """Write which data the trials see, by name and digest; its caches exist."""
    from fsdet.data.sources import load_image_set

    config = next(configs(spec, ()))
    digest = load_image_set(config, "base").digest
    place = str(config.data_root or "embedded")
    tracker.add_dataset(SWEEP_RUN, config.dataset, digest[:DIGEST_LENGTH], place)


def share_view(tracker: Tracker, spec: SweepSpec, folder: SweepFolder, ranked: bool) -> None:
    """Save the link to the table of this sweep's trials, in the tracker and in the sweep's record."""
    run_id = tracker.run_id(SWEEP_RUN) or folder.load_record().get("run_id")
    if run_id is None:  # the store did not answer
        return
    view = View(
        name=folder.name,
        sweep_id=folder.sweep_id(),
        parent_run_id=run_id,
        settings=list(spec.space),
        ascending=spec.objective.mode == "min",
        ranked=ranked,
    )
    folder.update_record(view=tracker.share(view))


class ParentCurves:
    """A callback of trials: writes how the sweep goes to the parent run, at the end of each trial.

    Args:
        tracker: with the parent run open.
        spec: of the sweep.
        earlier: trials of earlier sessions.
    """

    def __init__(self, tracker: Tracker, spec: SweepSpec, earlier: Sequence[TrialRecord]) -> None:
        self._tracker = tracker
        self._spec = spec
        self._states = {trial.number: trial.state for trial in earlier}
        self._epochs = {trial.number: epochs_of(trial, spec) for trial in earlier}
        best = best_of(earlier, spec.objective)
        self._best = None if best is None else best.value
        self._seconds = sum(trial.seconds for trial in earlier)

    def on_start(self, request: TrialRequest) -> None:
        """Nothing has changed."""

    def on_report(self, request: TrialRequest, report: TrialReport) -> None:
        """Nothing has changed."""

    def on_retry(self, request: TrialRequest) -> None:
        """Nothing has changed."""

    def on_end(self, end: TrialEnd) -> None:
        """Write the curves."""
        state, metric = end.outcome.state, self._spec.objective.metric
        self._states[end.number] = state
        self._seconds += end.seconds
        if end.report is not None:
            self._epochs[end.number] = end.report.epoch
        if state is State.COMPLETED and end.value is not None:
            sign = self._spec.objective.sign
            known = end.value if self._best is None else self._best
            self._best = sign * max(sign * known, sign * end.value)
        epochs = sum(self._epochs.values())
        values = {
            "compute/trainings": epochs / self._spec.max_epochs,
            "compute/hours": self._seconds / 3600,
            **state_counts(self._states.values()),
        }
        if self._best is not None:
            values[f"best/{metric}"] = self._best
        self._tracker.add_metrics(SWEEP_RUN, values, epochs)


def epochs_of(trial: TrialRecord, spec: SweepSpec) -> int:
    """Epochs behind a trial of an earlier session, as far as its record tells."""
    if trial.state is State.COMPLETED:
        return spec.epochs_of(trial.parameters)
    return trial.until if trial.state is State.PAUSED and trial.until else trial.best_epoch or 0


def state_counts(states: Any) -> dict[str, float]:
    """Metric -> number of trials in a state."""
    found = Counter(states)
    return {f"trials/{state}": float(found[state]) for state in State}


def end_parent_run(
    tracker: Tracker,
    spec: SweepSpec,
    folder: SweepFolder,
    trials: list[TrialRecord],
    outcome: Outcome,
    findings: Sequence[str] = (),
    winner: int | None = None,
) -> None:
    """Close the parent run, mark the best trial and rank the completed ones.

    Args:
        tracker: with the parent run open.
        spec: of the sweep.
        folder: of the sweep.
        trials: of all sessions.
        outcome: of the sweep.
        findings: of its confirmation.
        winner: number of the confirmed trial; None for the best of the search.
    """
    best = next((t for t in trials if t.number == winner), best_of(trials, spec.objective))
    mark_best(tracker, spec, folder, trials, best)
    for place, trial in enumerate(ranked(trials, spec.objective), 1):
        tracker.add_metrics(trial.run_key, {RANK: place}, 0)
    tracker.describe(SWEEP_RUN, description(spec, folder, trials, outcome, findings))
    metrics = state_counts(trial.state for trial in trials)
    if best is not None and best.value is not None:
        metrics[f"best/{spec.objective.metric}"] = best.value
    share_view(tracker, spec, folder, ranked=best is not None)
    files = [folder.spec_file, folder.best_file]
    tracker.end(SWEEP_RUN, outcome, files, metrics)


def mark_best(
    tracker: Tracker,
    spec: SweepSpec,
    folder: SweepFolder,
    trials: list[TrialRecord],
    best: TrialRecord | None,
) -> None:
    """Mark the run of the best trial by name and tag, and that of the one before as any other."""
    marked = folder.load_record().get("marked")
    for trial in trials:
        if trial is best or trial.number == marked:
            name = result_name(trial, spec.search_space.complete(trial.parameters))
            tags = {WINNER_TAG: str(trial is best).lower()}
            tracker.tag(trial.run_key, {**tags, NAME_TAG: f"★ {name}" if trial is best else name})
    if best is not None:
        folder.update_record(marked=best.number)


def description(
    spec: SweepSpec,
    folder: SweepFolder,
    trials: list[TrialRecord],
    outcome: Outcome,
    findings: Sequence[str] = (),
) -> str:
    """Markdown: the verdict, the best trials beside the baselines, what was searched, the next commands."""
    lines = [f"**{line}**" for line in findings[:1]]
    lines += [f"- {line}" for line in [*findings[1:], *verdicts(spec, trials)]]
    lines += ["", f"{counts(trials)}. {outcome.reason}".strip(), ""]
    lines += [*result_lines(spec, trials), "", *searched_lines(spec), ""]
    lines += ["```", *(f"{command}  # {why}" for command, why in commands(spec, folder)), "```"]
    return "\n".join(lines)


def result_lines(spec: SweepSpec, trials: list[TrialRecord]) -> list[str]:
    """A table of the best trials and the baselines."""
    best = ranked(trials, spec.objective)[:LISTED]
    shown = [*best, *(t for t in trials if t.baseline and t not in best)]
    if not shown:
        return ["No trial completed."]
    keys = list(spec.space)
    lines = [
        f"| trial | state | {spec.objective.metric} ± SE | {' | '.join(keys)} |",
        "|" + " --- |" * (3 + len(keys)),
    ]
    for trial in shown:
        settings = spec.search_space.complete(trial.parameters)
        values = [format_setting(settings.get(key, "-")) for key in keys]
        cells = [trial.label, str(trial.state), format_value(trial), *values]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def searched_lines(spec: SweepSpec) -> list[str]:
    """A table of the searched settings."""
    rows = [f"| `{key}` | {describe(parameter)} |" for key, parameter in spec.space.items()]
    return ["| searched | values |", "| --- | --- |", *rows]
