"""`best.json`, by which `--checkpoint NAME` finds the best trial of a sweep; its weights and the pictures of trials."""

from __future__ import annotations

import json
from pathlib import Path

from fsdet.errors import CheckpointError
from fsdet.files import write_text_atomic
from fsdet.report import BEST_FILE, BEST_TRIAL_FILE, DETECTIONS_FILE
from sweeps.storage.folder import SweepFolder


def record_best_trial(folder: SweepFolder, trial: str) -> None:
    """Write `best.json`, and download the weights and the picture if the storage is at a URL.

    Args:
        folder: of the sweep.
        trial: name of the trial's folder.
    """
    record = {"sweep": folder.name, "run_dir": f"{folder.trials_dir.name}/{trial}"}
    path = folder.path / BEST_TRIAL_FILE
    write_text_atomic(path, json.dumps(record, indent=2) + "\n")
    folder.upload(path)
    for name in (BEST_FILE, DETECTIONS_FILE):
        folder.download_trial_file(trial, name)


def best_weights(folder: SweepFolder) -> Path | None:
    """The weights of the best trial's best epoch; None before `record_best_trial`, or if they are not here."""
    from fsdet.checkpoint.lookup import find_run

    try:
        path = find_run(folder.path) / BEST_FILE
    except CheckpointError:
        return None
    return path if path.is_file() else None


def detections_of(folder: SweepFolder, trial: str) -> Path | None:
    """The picture of what a complete trial finds; None if it drew none.

    Args:
        folder: of the sweep.
        trial: name of the trial's folder.
    """
    path = folder.download_trial_file(trial, DETECTIONS_FILE)
    return path if path.is_file() else None
