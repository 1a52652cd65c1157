"""What a trial is: the settings that decide its result, compared before anything is resumed from its files.

A trial's number names its folder only as long as the study remembers the number: a study that was lost
gives it again, to other settings. So everything that a trial may resume from carries the settings that
made it: the folder in `trial.json`, checkpoints and `best.pt` in their `config`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fsdet.config import HealthConfig, TrainConfig
from fsdet.errors import CheckpointError
from fsdet.files import write_text_atomic
from sweeps.config.paths import INPUT_PATHS
from sweeps.storage.portable_files import content_key
from sweeps.trial.watchdog import STALL

TRIAL_FILE = "trial.json"
"""In a trial's folder before anything else is: its settings and the id of its sweep."""
IRRELEVANT = (
    *("checkpoint_dir", "cache_dir", "cache_limit_gb", "num_workers"),
    *("device", "debug", "save_interval", "eval_interval", "share_interval"),
    *("resume_with_changes", *HealthConfig.model_fields),
)
"""Settings that change neither the weights nor what an evaluation of them measures."""
ASIDE = "earlier-{}"
"""Folder, in that of a trial, for what other settings left there; the trainer uses the same name."""
CHECKPOINT = "stage*_epoch*.pt"
"""Names of checkpoints, of which a trial needs the newest."""
CURE = "if it was put there by mistake, stop the sweep, put it back and resume"

Settings = Mapping[str, Any]
"""Setting -> plain value; of a file, what stands for its content on every machine."""


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what a run with `config` finds."""
    values = config.model_dump(mode="json")
    return {
        key: content_key(value) if key in INPUT_PATHS else value
        for key, value in values.items()
        if key not in IRRELEVANT
    }


def difference(made: Settings, settings: Settings) -> str | None:
    """The first setting that differs, with both values; None if there is none.

    Args:
        made: of the file; what an earlier version did not know had its default.
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

    Of the files that the config names only the last part of the path is compared: the checkpoint may
    come from another machine, which kept them elsewhere.
    """

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: Path(value).name if key in INPUT_PATHS and value is not None else value
            for key, value in values.items()
            if key not in IRRELEVANT
        }

    return difference(named(stored), named(config.model_dump(mode="json")))


def load_trial(run_dir: Path) -> dict[str, Any]:
    """`settings` and `sweep` of the trial that made the files in `run_dir`; empty if nothing says so."""
    try:
        found = json.loads((run_dir / TRIAL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def mismatch(run_dir: Path, settings: Settings) -> str | None:
    """Why the files in `run_dir` are not those of a trial with `settings`; None if they are, or there are none."""
    if not _files(run_dir):
        return None
    made = load_trial(run_dir).get("settings")
    if made is None:
        return f"has no {TRIAL_FILE} that says which settings made it"
    return difference(made, settings)


def claim(run_dir: Path, settings: Settings, sweep: str) -> str | None:
    """Make `run_dir` the folder of a trial with `settings`.

    What other settings left there is moved to a folder of its own in it.

    Args:
        run_dir: of the trial.
        settings: of the trial.
        sweep: id of its sweep.

    Returns:
        what was moved and why, in a line; None if nothing was.
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
    (run_dir / STALL).write_text(
        "", encoding="utf-8"
    )  # open: the watchdog of this worker writes to it
    write_text_atomic(run_dir / TRIAL_FILE, json.dumps({"sweep": sweep, "settings": settings}))
    return f"its folder {why}: the files are set aside in {aside.name}, and it begins anew; {CURE}"


def _files(run_dir: Path) -> list[Path]:
    """What a trial has written there."""
    there = run_dir.iterdir() if run_dir.is_dir() else ()
    return [p for p in there if p.is_file() and not p.name.startswith(".") and p.name != STALL]


def newest_checkpoint(config: TrainConfig, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint of a trial; None if there is none, as at its first start.

    Others are renamed: what is damaged to `.damaged`, what other settings made to `.foreign`.

    Args:
        config: of the trial; `checkpoint_dir` is looked through.
        warn: called with a line for each checkpoint that is not used.
    """
    for path in intact_checkpoints(config.checkpoint_dir, warn):
        why = checkpoint_mismatch(path, config)
        if why is None:
            return path
        path.rename(path.with_suffix(".foreign"))
        warn(f"{path.name} {why}: it is set aside, the one before serves, if there is one; {CURE}")
    return None


def intact_checkpoints(run_dir: Path, warn: Callable[[str], None]) -> Iterator[Path]:
    """Every checkpoint that is whole, newest first."""
    found = sorted(run_dir.glob(CHECKPOINT), key=lambda path: path.name, reverse=True)
    for path in found:
        if is_intact(path):
            yield path
        else:
            path.rename(path.with_suffix(".damaged"))
            warn(f"{path.name} is damaged: the one before serves, if there is one")


def checkpoint_mismatch(path: Path, config: TrainConfig) -> str | None:
    """Why a checkpoint is not of a trial with `config`; None if it is."""
    from fsdet.checkpoint import load_checkpoint  # loads torch

    try:
        stored = load_checkpoint(path)["config"]
    except CheckpointError:
        return "does not say which settings made it"
    return difference_of_checkpoint(stored, config)


def is_intact(path: Path) -> bool:
    """Whether every part of a checkpoint has its checksum: they are zip files."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def remove_partial_files(run_dir: Path) -> None:
    """Delete what a killed worker had not finished writing."""
    for part in run_dir.glob(".*.part"):
        part.unlink(missing_ok=True)
