"""A sweep and its trials as plain values, for scripts: `--json`, and `trials.csv` in the sweep's folder."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsdet.files import write_text_atomic
from sweeps.config import SweepSpec
from sweeps.storage.folder import SweepFolder
from sweeps.study.records import TrialRecord, best_of


def sweep_data(
    spec: SweepSpec, folder: SweepFolder, trials: Sequence[TrialRecord]
) -> dict[str, Any]:
    """A sweep: where it is, what it optimises, its best trial and all trials."""
    best = best_of(trials, spec.objective)
    return {
        "name": folder.name,
        "folder": folder.url or folder.path,
        "objective": spec.objective,
        "counts": Counter(str(trial.state) for trial in trials),
        "best": None if best is None else best.number,
        "best_file": folder.best_file if best is not None else None,
        "trials": [trial_data(spec, trial) for trial in trials],
    }


def trial_data(spec: SweepSpec, trial: TrialRecord) -> dict[str, Any]:
    """A trial: how it ended, its value, its settings and metrics."""
    return {
        "trial": trial.number,
        "baseline": trial.baseline,
        "state": str(trial.state),
        "reason": trial.reason,
        "value": trial.value,
        "standard_error": trial.standard_error,
        "best_epoch": trial.best_epoch,
        "seconds": trial.seconds,
        "retried": trial.retried,
        "settings": spec.search_space.complete(trial.parameters),
        "metrics": trial.metrics,
    }


def write_trials(spec: SweepSpec, folder: SweepFolder, trials: Sequence[TrialRecord]) -> Path:
    """Write `trials.csv`: one line a trial, a column for each setting and metric; an empty cell where there is none."""
    rows = [_flat(trial_data(spec, trial)) for trial in trials]
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(folder.trials_file, text.getvalue())
    folder.upload(folder.trials_file)
    return folder.trials_file


def _flat(trial: dict[str, Any]) -> dict[str, Any]:
    """One value a key; settings and metrics come last."""
    parts = ("settings", "metrics")
    flat = {key: value for key, value in trial.items() if key not in parts}
    return {**flat, **trial["settings"], **trial["metrics"]}
