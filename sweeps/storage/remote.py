"""A folder at a URL (S3, GCS, a mounted disk, …): upload, download, list, delete.

A partly written file never has its final name: it is written under another one and moved.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from fsdet.errors import first_line
from fsdet.files import atomic_path
from sweeps.errors import SweepError

log = logging.getLogger(__name__)
T = TypeVar("T")

PAUSES = (0.5, 2.0, 8.0)
"""Seconds between two attempts; the libraries of the stores have retries of their own too."""
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")
"""Protocols without real folders: creating one could create a bucket with a misspelt name."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Protocol -> our optional dependency that provides it."""


class StorageError(SweepError):
    """The storage cannot be read or written."""


class RemoteFolder:
    """The folder at `url`.

    Raises:
        StorageError: its protocol is unknown or not installed; from every method: all attempts failed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        protocol = url.partition("://")[0]
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            extra = EXTRAS.get(protocol)
            cure = f"pip install 'fsdet-sweeps[{extra}]' on every node" if extra else str(error)
            raise StorageError(f"storage.path: {url}: cannot be opened; {cure}") from None

    def list_files(self) -> set[str]:
        """Paths of all files in it, relative to it."""

        def list_files() -> set[str]:
            self._files.invalidate_cache()
            try:
                found = self._files.find(self._root)
            except FileNotFoundError:
                return set()
            return {path[len(self._root) :].lstrip("/") for path in found}

        return {name for name in self._retry(list_files) if not Path(name).name.startswith(".")}

    def folders_with(self, name: str) -> list[str]:
        """Names of the folders in it that hold a file `name`."""
        found = self._retry(lambda: self._fresh().glob(f"{self._root}/*/{name}"))
        return [str(path).rstrip("/").split("/")[-2] for path in found]

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self._retry(lambda: self._fresh().exists(self._at(name))))

    def upload(self, path: Path, name: str | None = None) -> None:
        """Upload a file as `name` or under its own name."""
        target = self._at(name or path.name)
        folder, _, last = target.rpartition("/")
        part = f"{folder}/.{last}.{secrets.token_hex(4)}.part"  # its own: another worker may upload the same

        def copy() -> None:
            try:
                self._files.put_file(str(path), part)
            except FileNotFoundError:
                if self.url.partition("://")[0] in BUCKETS:
                    raise
                self._files.makedirs(folder, exist_ok=True)
                self._files.put_file(str(path), part)
            self._files.mv(part, target)

        try:
            self._retry(copy)
        except FileNotFoundError as error:
            raise self._error(error) from None

    def download(self, name: str, path: Path) -> bool:
        """Download the file `name` to `path`; returns whether it exists."""

        def copy() -> None:
            with atomic_path(path) as part:
                self._fresh().get_file(self._at(name), str(part))

        try:
            self._retry(copy)
        except FileNotFoundError:
            return False
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Delete files."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._retry(partial(self._files.rm_file, self._at(name)))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _fresh(self) -> Any:
        """The file system without its cached listings: other machines write here too."""
        self._files.invalidate_cache()
        return self._files

    def _retry(self, action: Callable[[], T]) -> T:
        """Call `action`, with one more attempt after each of `PAUSES`."""
        for pause in (*PAUSES, None):
            try:
                return action()
            except FileNotFoundError:
                raise
            except Exception as error:  # every kind of store has its own
                log.debug("%s: %s", self.url, error)
                if pause is None or isinstance(error, PermissionError):
                    raise self._error(error) from None
            time.sleep(pause)
        raise AssertionError

    def _error(self, error: Exception) -> StorageError:
        return StorageError(
            f"storage.path: {self.url}: cannot be used ({first_line(error)}); check the address, "
            "and that every node has credentials for it"
        )
