"""The checkpoints that a trial finds in its folder when it resumes."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

log = logging.getLogger(__name__)


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint that is whole; None if there is none, as at a trial's first start."""
    found = sorted(run_dir.glob("stage*_epoch*.pt"), key=lambda path: path.name, reverse=True)
    for path in found:
        if is_whole(path):
            return path
        log.warning("%s: damaged; going on from the one before", path)
        path.rename(path.with_suffix(".damaged"))
    return None


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
