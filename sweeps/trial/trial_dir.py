"""The folder that a trial trains in: its own, or a local copy of one at a URL.

With a URL, the files of an earlier worker are downloaded first, and the files that the trial needs to resume
elsewhere are uploaded before each report is sent.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from fsdet.report import MAX_CHECKPOINTS
from sweeps.storage.portable_files import scratch, stamp
from sweeps.storage.remote import RemoteFolder
from sweeps.trial.identity import CHECKPOINT
from sweeps.trial.watchdog import STALL

WEIGHTS = ".pt"
"""Suffix of files with weights: checkpoints, and the weights of the best epoch."""


class TrialDir:
    """A folder on a disk that all machines share; nothing is copied."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Use the folder within the context."""
        yield

    def sync(self) -> None:
        """Store its content where it survives the loss of this node."""


class RemoteTrialDir(TrialDir):
    """A copy on this node's disk of the folder at `url`; removed when the trial ends.

    Args:
        url: of the trial's folder.
    """

    def __init__(self, url: str) -> None:
        super().__init__(scratch() / hashlib.sha256(url.encode()).hexdigest()[:24])
        self._remote = RemoteFolder(url)
        self._there: set[str] = set()
        self._synced: dict[str, tuple[int, int]] = {}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Download its content first, upload what has changed at the end."""
        self._download()
        try:
            yield
        finally:
            self.sync()
            shutil.rmtree(self.run_dir, ignore_errors=True)

    def _download(self) -> None:
        """Download the newest checkpoints and all other files; local files of a killed worker may be older.

        Of the checkpoints those that a run keeps, so that there is another one if the newest is damaged.

        Files in subfolders were set aside and are not downloaded.
        """
        for path in self._files().values():
            if path.name != STALL:
                path.unlink()
        self._there = {name for name in self._remote.list_files() if "/" not in name}
        checkpoints = sorted(name for name in self._there if fnmatch(name, CHECKPOINT))
        for name in self._there - set(checkpoints[:-MAX_CHECKPOINTS]) - {STALL}:
            self._remote.download(name, self.run_dir / name)
        self._synced = {name: stamp(path) for name, path in self._files().items()}

    def sync(self) -> None:
        """Upload changed files, checkpoints first; then delete remote files that were deleted locally."""
        files = self._files()
        for name in sorted(files, key=lambda name: (not name.endswith(WEIGHTS), name)):
            mark = stamp(files[name])
            if self._synced.get(name) != mark and mark[1] > 0:
                self._remote.upload(files[name], name)
                self._synced[name] = mark
                self._there.add(name)
        gone = {name for name in self._there if name not in files}
        self._remote.remove(gone)
        self._there -= gone

    def _files(self) -> dict[str, Path]:
        """Name -> path of all files in the folder except locks and partly written ones."""
        found = (path for path in self.run_dir.rglob("*") if path.is_file())
        named = {path.relative_to(self.run_dir).as_posix(): path for path in found}
        return {name: path for name, path in named.items() if not path.name.startswith(".")}
