"""Identity of a trial: the settings that decide its result, compared before it resumes from files.

A trial's number does not identify its files: after the study was lost, a new study gives the same number to
other settings. So everything that a trial may resume from stores the settings that produced it: the folder
in `trial.json`, checkpoints and `best.pt` in their `config`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fsdet.config import HealthConfig, TrainConfig
from fsdet.errors import CheckpointError
from fsdet.files import write_text_atomic
from fsdet.reading import read_json
from sweeps.config.paths import INPUT_PATHS
from sweeps.errors import SweepError
from sweeps.storage.portable_files import content_key
from sweeps.trial.watchdog import STALL

TRIAL_FILE = "trial.json"
"""First file in a trial's folder: its settings and the id of its sweep."""
IRRELEVANT = (
    *("checkpoint_dir", "cache_dir", "cache_limit_gb", "num_workers"),
    *("device", "cuda_graph", "debug", "save_interval", "share_interval"),
    *("eval_interval", "early_eval_epochs"),
    *("resume_with_changes", *HealthConfig.model_fields),
)
"""Settings that change neither the weights nor what an evaluation of them measures."""
ASIDE = "earlier-{}"
"""Subfolder of a trial's folder for files of other settings; the trainer uses the same name."""
CHECKPOINT = "stage*_epoch*.pt"
"""Names of checkpoints, of which a trial needs the newest."""
CURE = "if it was put there by mistake, stop the sweep, move it back and resume"

Settings = Mapping[str, Any]
"""Setting -> plain value; for a file a key that identifies its content on every machine."""


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide the result of a run with `config`."""
    values = config.model_dump(mode="json")
    return {
        key: content_key(value) if key in INPUT_PATHS else value
        for key, value in values.items()
        if key not in IRRELEVANT
    }


def difference(made: Settings, settings: Settings) -> str | None:
    """The first setting that differs, with both values; None if all are equal.

    Args:
        made: of the file; a setting that an earlier version did not have counts as its default.
        settings: of the trial.
    """
    defaults = TrainConfig().model_dump(mode="json")
    for key, value in settings.items():
        then = made.get(key, defaults[key])
        if then != value:
            return f"was made with {key} {then!r}, but this trial has {value!r}"
    return None


def difference_of_checkpoint(stored: Mapping[str, Any], config: TrainConfig) -> str | None:
    """As `difference`, for the config in a checkpoint.

    For files only the last part of the path is compared: the checkpoint may come from another machine, which
    stored them elsewhere.
    """

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: Path(value).name if key in INPUT_PATHS and value is not None else value
            for key, value in values.items()
            if key not in IRRELEVANT
        }

    return difference(named(stored), named(config.model_dump(mode="json")))


def load_trial(run_dir: Path) -> dict[str, Any]:
    """`settings` and `sweep` of the trial that wrote the files in `run_dir`; empty if they are not recorded."""
    try:
        found = read_json(run_dir / TRIAL_FILE, SweepError)
    except SweepError:
        return {}
    stored = found if isinstance(found, dict) else {}
    kinds = {"settings": dict, "sweep": str}
    return {key: stored[key] for key, kind in kinds.items() if isinstance(stored.get(key), kind)}


def mismatch(run_dir: Path, settings: Settings) -> str | None:
    """Why the files in `run_dir` do not belong to a trial with `settings`; None if they do, or without files."""
    if not _files(run_dir):
        return None
    made = load_trial(run_dir).get("settings")
    if made is None:
        return f"has no {TRIAL_FILE} that says which settings made it"
    return difference(made, settings)


def claim(run_dir: Path, settings: Settings, sweep: str) -> str | None:
    """Make `run_dir` the folder of a trial with `settings`.

    Files of other settings are moved to a subfolder.

    Args:
        run_dir: of the trial.
        settings: of the trial.
        sweep: id of its sweep.

    Returns:
        what was moved and why, as one line; None if nothing was.
    """
    why = mismatch(run_dir, settings)
    if why is None:
        if not (run_dir / TRIAL_FILE).is_file():
            write_text_atomic(
                run_dir / TRIAL_FILE, json.dumps({"sweep": sweep, "settings": settings})
            )
        return None
    number = 1
    while (aside := run_dir / ASIDE.format(number)).exists():
        number += 1
    aside.mkdir()
    for path in _files(run_dir):
        path.replace(aside / path.name)
    # emptied, not moved: this worker's watchdog has it open
    (run_dir / STALL).write_text("", encoding="utf-8")
    write_text_atomic(run_dir / TRIAL_FILE, json.dumps({"sweep": sweep, "settings": settings}))
    return (
        f"its folder {why}: the files are moved to {aside.name}, and the trial starts over; {CURE}"
    )


def _files(run_dir: Path) -> list[Path]:
    """The files that a trial has written there."""
    there = run_dir.iterdir() if run_dir.is_dir() else ()
    return [p for p in there if p.is_file() and not p.name.startswith(".") and p.name != STALL]


def newest_checkpoint(config: TrainConfig, warn: Callable[[str], None]) -> Path | None:
    """The newest usable checkpoint of a trial; None without one, as at its first start.

    Others are renamed: damaged ones to `.damaged`, those of other settings to `.foreign`.

    Args:
        config: of the trial; its `checkpoint_dir` is searched.
        warn: called with a line for each checkpoint that is not used.
    """
    for path, stored in usable_checkpoints(config.checkpoint_dir, warn):
        why = difference_of_checkpoint(stored, config)
        if why is None:
            return path
        path.rename(path.with_suffix(".foreign"))
        warn(f"{path.name} {why}: it is set aside, and the one before it is used, if any; {CURE}")
    return None


def usable_checkpoints(
    run_dir: Path, warn: Callable[[str], None]
) -> Iterator[tuple[Path, Settings]]:
    """Every checkpoint that a trial can resume from, newest first, and its settings; the others are renamed."""
    for path in sorted(run_dir.glob(CHECKPOINT), key=lambda path: path.name, reverse=True):
        # loads torch: not before there is something to load
        from fsdet.checkpoint.content import load_checkpoint

        try:
            yield path, load_checkpoint(path)["config"]
        except CheckpointError as error:
            path.rename(path.with_suffix(".damaged"))
            warn(f"{error}; the checkpoint before it is used, if any")


def remove_partial_files(run_dir: Path) -> None:
    """Delete what a killed worker had not finished writing."""
    for part in run_dir.glob(".*.part"):
        part.unlink(missing_ok=True)
