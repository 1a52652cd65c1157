"""The checkpoints that a trial finds in its folder when it resumes.

Nothing is used that other settings have made, or that does not say which did.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fsdet.config import TrainConfig
from fsdet.errors import CheckpointError
from sweeps.trial.identity import CURE, difference_of_checkpoint

CHECKPOINT = "stage*_epoch*.pt"
"""Names of checkpoints, of which a trial needs the newest."""


def newest_checkpoint(config: TrainConfig, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint of a trial; None if there is none, as at its first start.

    Others are renamed: what is damaged to `.damaged`, what other settings made to `.foreign`.

    Args:
        config: of the trial; `checkpoint_dir` is looked through.
        tell: called with a line for each checkpoint that is not used.
    """
    for path in whole_checkpoints(config.checkpoint_dir, tell):
        why = foreign_checkpoint(path, config)
        if why is None:
            return path
        path.rename(path.with_suffix(".foreign"))
        tell(f"{path.name} {why}: it is set aside, the one before serves, if there is one; {CURE}")
    return None


def whole_checkpoints(run_dir: Path, tell: Callable[[str], None]) -> Iterator[Path]:
    """Every checkpoint that is whole, newest first."""
    found = sorted(run_dir.glob(CHECKPOINT), key=lambda path: path.name, reverse=True)
    for path in found:
        if is_whole(path):
            yield path
        else:
            path.rename(path.with_suffix(".damaged"))
            tell(f"{path.name} is damaged: the one before serves, if there is one")


def foreign_checkpoint(path: Path, config: TrainConfig) -> str | None:
    """Why a checkpoint is not of a trial with `config`; None if it is."""
    from fsdet.checkpoint import load_checkpoint  # loads torch

    try:
        stored = load_checkpoint(path)["config"]
    except CheckpointError:
        return "does not say which settings made it"
    return difference_of_checkpoint(stored, config)


def is_whole(path: Path) -> bool:
    """Whether every part of a checkpoint has its checksum: they are zip files."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def remove_halves(run_dir: Path) -> None:
    """Delete what a killed worker had not finished writing."""
    for part in run_dir.glob(".*.part"):
        part.unlink(missing_ok=True)
