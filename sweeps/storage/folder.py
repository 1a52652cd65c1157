"""The folder of a sweep, `mlruns/sweeps/<name>/`, and how its name is chosen.

A sweep never uses the folder of an earlier one unless it resumes it: its name must be free, or gets a
number (`name-2`). One process at a time works in a folder.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from fsdet.files import write_text_atomic
from fsdet.reading import read_json, read_yaml
from fsdet.report import BEST_TRIAL_FILE
from sweeps.config import SweepSpec
from sweeps.config.error_format import format_errors
from sweeps.config.paths import INPUT_PATHS, map_settings
from sweeps.errors import SweepError
from sweeps.storage.claim import claim
from sweeps.storage.portable_files import local_path
from sweeps.storage.remote import RemoteFolder

LOCK = ".lock"
"""Lock file of a sweep's folder, held by the process that runs the sweep; released when that dies."""
ADDRESS = "address"
"""Key of the record: the cluster that the last session ran on; None for one machine alone."""
SPEC = "sweep.yaml"
"""File in the folder of every sweep that has begun."""
CURE_OF_DAMAGE = "restore it from a backup, or start a new sweep with --name NAME"
DRIVERS_FILES = (SPEC, "tracking.json", "best.yaml", BEST_TRIAL_FILE, "confirm.json")
"""Files that a driver on another machine needs."""


def is_locked(folder: Path) -> bool:
    """Whether a running process holds the lock of the sweep in `folder`."""
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a read-only folder, or none: no process of this user runs the sweep
        return False


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep."""

    path: Path
    """Absolute: trials run in other working directories."""
    url: str | None = None
    """Its URL, if the storage is at one; `path` then holds what the driver needs."""

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.path.name

    @property
    def study_file(self) -> Path:
        """Journal file of the study."""
        return self.path / "study.journal"

    @property
    def spec_file(self) -> Path:
        """File with the complete `SweepSpec`."""
        return self.path / SPEC

    @property
    def record_file(self) -> Path:
        """File with the ids of the sweep and its parent run, and the addresses of both stores."""
        return self.path / "tracking.json"

    @property
    def best_file(self) -> Path:
        """File with the best configuration."""
        return self.path / "best.yaml"

    @property
    def trials_file(self) -> Path:
        """Table of all trials."""
        return self.path / "trials.csv"

    @property
    def ray_dir(self) -> Path:
        """Ray's own files, replaced in every session."""
        return self.path / "ray"

    @property
    def ray_log(self) -> Path:
        """Ray's log."""
        return self.path / "ray.log"

    @property
    def trials_dir(self) -> Path:
        """One folder per trial."""
        return self.path / "trials"

    def url_of(self, name: str) -> str | None:
        """URL of a folder or file in it; None if the storage is not at a URL."""
        return None if self.url is None else f"{self.url}/{name}"

    def make(self) -> bool:
        """Create it and claim it for this process; returns False if it holds a sweep or another process claimed it.

        Raises:
            SweepError: it cannot be created.
        """
        if not claim(self.path):
            return False
        if self.spec_file.is_file():  # without it, an earlier process died before the sweep began
            return False
        return self.url is None or not RemoteFolder(self.url).exists(SPEC)

    def upload(self, path: Path, name: str | None = None) -> None:
        """Copy a file to the storage, if that is at a URL, as `name` or under its own name.

        Raises:
            StorageError: it cannot be written.
        """
        if self.url is not None:
            RemoteFolder(self.url).upload(path, name)

    def remove(self, name: str) -> None:
        """Delete a file, in the storage too.

        Raises:
            StorageError: it cannot be written.
        """
        if self.url is not None:
            RemoteFolder(self.url).remove([name])
        (self.path / name).unlink(missing_ok=True)

    def download(self) -> None:
        """Download the driver's files from the storage: another machine may have continued the sweep.

        Nothing is downloaded while a driver on this machine runs the sweep: its own files are the newest.

        Raises:
            StorageError: it cannot be read.
        """
        if self.url is not None and not is_locked(self.path):
            remote = RemoteFolder(self.url)
            for name in filter(remote.exists, DRIVERS_FILES):
                remote.download(name, self.path / name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the sweep against all other processes.

        Raises:
            SweepError: another one runs it, or its lock cannot be used.
        """
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            raise SweepError(
                f"sweep {self.name} is being run by another process; wait for its end, stop it, or "
                "start a second one with --name"
            ) from None
        except OSError as error:
            raise SweepError(
                f"{self.path / LOCK}: cannot be used ({error.strerror}); remove it, or give yourself the right to "
                "write there"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def save_spec(self, spec: SweepSpec, places: Mapping[str, str] | None = None) -> None:
        """Store `spec`, so that its trials can be built without the user's file.

        Args:
            spec: of the sweep.
            places: path -> name by which every machine finds it.
        """
        known = places or {}
        named = map_settings(
            spec.public, lambda _, key, v: known.get(v, v) if key in INPUT_PATHS else v
        )
        values = named.model_dump(mode="json")
        write_text_atomic(
            self.spec_file, yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        )
        self.upload(self.spec_file)

    def load_spec(self) -> SweepSpec:
        """The sweep as it was run, with the paths of this machine.

        Raises:
            SweepError: the file is missing or damaged.
        """

        def here(_: str, key: str, value: Any) -> Any:
            known = key in INPUT_PATHS and isinstance(value, str)
            return str(local_path(value, self.path, self.url)) if known else value

        values = read_yaml(self.spec_file, damaged).values
        if not isinstance(values, dict):
            raise damaged(f"{self.spec_file}: must hold the keys of a sweep; ")
        try:
            spec = SweepSpec.model_validate(values)
        except ValidationError as error:
            first = format_errors(error, self.spec_file, {}).partition("\n")[0]
            raise SweepError(f"{first}; the file is damaged: {CURE_OF_DAMAGE}") from None
        return map_settings(spec, here).with_source(str(self.spec_file))

    def save_record(self, record: dict[str, Any]) -> None:
        """Store the record: ids of the sweep and its parent run, addresses of tracking store and study."""
        write_text_atomic(self.record_file, json.dumps(record, indent=2))
        self.upload(self.record_file)

    def update_record(self, **more: Any) -> None:
        """Add `more` to the record."""
        self.save_record({**self.load_record(), **more})

    def sweep_id(self) -> str:
        """The id that the study and the runs of the sweep carry; created at the first call."""
        record = self.load_record()
        if "sweep_id" not in record:
            record["sweep_id"] = uuid.uuid4().hex
            self.save_record(record)
        return str(record["sweep_id"])

    def load_record(self) -> dict[str, Any]:
        """The record; empty if the file is missing or damaged."""
        try:
            found = read_json(self.record_file, SweepError)
        except SweepError:
            return {}
        return found if isinstance(found, dict) else {}

    def is_record_lost(self) -> bool:
        """Whether the sweep has begun, but its record is missing or damaged."""
        return self.spec_file.is_file() and "study" not in self.load_record()

    def trial_folders(self) -> dict[int, str]:
        """Number -> name of the folder, for trials that have written a file."""
        if self.url is not None:
            found = {
                name.partition("/")[0] for name in RemoteFolder(f"{self.url}/trials").list_files()
            }
        else:
            files = self.trials_dir.glob("*/*")
            found = {path.parent.name for path in files if not path.name.startswith(".")}
        return {int(name): name for name in sorted(found) if name.isdigit()}

    def download_trial_file(self, trial: str, name: str) -> Path:
        """Path of a file in the folder of a trial, downloaded if the storage is at a URL; it may not exist."""
        path = self.trials_dir / trial / name
        if self.url is not None:
            RemoteFolder(f"{self.url}/trials/{trial}").download(name, path)
        return path


def damaged(text: str) -> SweepError:
    """The error of a file that the sweep itself wrote."""
    return SweepError(f"{text.rpartition(';')[0]}; the file is damaged: {CURE_OF_DAMAGE}")
