"""Where a trial trains: in its folder, or in a copy of it on the node's own disk.

A folder at a URL cannot be trained in. What an earlier worker left there is fetched first, and
what a trial needs to go on elsewhere is pushed before each of its reports is heard.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from sweeps.storage.found import scratch, stamp
from sweeps.storage.mirror import Mirror
from sweeps.trial.checkpoints import CHECKPOINT
from sweeps.trial.watchdog import STALL

WEIGHTS = ".pt"
"""Ending of files with weights: checkpoints, and those of the best epoch."""


class Workplace:
    """A folder that all who need it can see: there is nothing to copy."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Train in it."""
        yield

    def keep(self) -> None:
        """Make sure that what is in it outlives this node."""


class MirroredWorkplace(Workplace):
    """A folder on this node's own disk for the one at `url`; it is gone when the trial ends.

    Args:
        url: of the trial's folder.
    """

    def __init__(self, url: str) -> None:
        super().__init__(scratch() / hashlib.sha256(url.encode()).hexdigest()[:24])
        self._mirror = Mirror(url)
        self._there: set[str] = set()
        self._kept: dict[str, tuple[int, int]] = {}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Fetch what is there, and push what was not yet pushed at the end."""
        self._fetch()
        try:
            yield
        finally:
            self.keep()
            shutil.rmtree(self.run_dir, ignore_errors=True)

    def _fetch(self) -> None:
        """The newest checkpoint and all other files; what a killed worker left here may be older.

        Files in folders below were set aside: they are left where they are.
        """
        for path in self._files().values():
            if path.name != STALL:
                path.unlink()
        self._there = {name for name in self._mirror.names() if "/" not in name}
        checkpoints = sorted(name for name in self._there if fnmatch(name, CHECKPOINT))
        for name in self._there - set(checkpoints[:-1]) - {STALL}:
            self._mirror.fetch(name, self.run_dir / name)
        self._kept = {name: stamp(path) for name, path in self._files().items()}

    def keep(self) -> None:
        """Push what has changed, checkpoints first; then remove there what is here no more."""
        files = self._files()
        for name in sorted(files, key=lambda name: (not name.endswith(WEIGHTS), name)):
            mark = stamp(files[name])
            if self._kept.get(name) != mark and mark[1] > 0:
                self._mirror.push(files[name], name)
                self._kept[name] = mark
                self._there.add(name)
        gone = {name for name in self._there if name not in files}
        self._mirror.remove(gone)
        self._there -= gone

    def _files(self) -> dict[str, Path]:
        """Name -> path of all that is in the folder, but for locks and halves."""
        found = (path for path in self.run_dir.rglob("*") if path.is_file())
        named = {path.relative_to(self.run_dir).as_posix(): path for path in found}
        return {name: path for name, path in named.items() if not path.name.startswith(".")}
