"""A folder of entries that are built once per machine and shared by all its processes.

An entry is a folder whose name ends with the hash of its key, which holds everything its content depends on. It is
built under a temporary name and moved into place when complete, so a killed builder leaves nothing that looks
finished. `manifest.json` holds a fingerprint of every file; a damaged entry is built again.

One lock per entry is held while the entry is built, opened or removed. A folder with a temporary name whose
lock is free was left by a killed builder and is removed by the next one. A memory map stays valid for a process that
has it open when its entry is removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from fsdet.config import DataConfig
from fsdet.data.fingerprint import sampled_fingerprint
from fsdet.errors import DataError
from fsdet.reading import read_json

log = logging.getLogger(__name__)

T = TypeVar("T")

MANIFEST = "manifest.json"
GIGABYTE = 10**9


def cache_root(cache_dir: Path | None) -> Path:
    """The folder of all caches: `cache_dir`, or $FSDET_CACHE, or ~/.cache/fsdet.

    Raises:
        DataError: none is given, and this user has no home.
    """
    named = cache_dir or os.environ.get("FSDET_CACHE")
    try:
        return Path(named or Path.home() / ".cache" / "fsdet")
    except RuntimeError:  # no HOME, and a user that the system does not know, as in a container
        raise DataError(
            "cache_dir: this user has no home folder for a cache; set HOME or FSDET_CACHE to a folder"
        ) from None


@dataclass(frozen=True)
class CacheKey:
    """Identifies an entry by everything its content depends on; also its size."""

    name: str
    """Readable first part of the entry's name."""
    content: dict[str, Any]
    """Everything the content depends on, as JSON; its hash is the second part of the entry's name."""
    n_bytes: int
    """Approximate size of the entry in bytes."""

    @property
    def text(self) -> str:
        """The content as it is hashed."""
        return json.dumps(self.content, sort_keys=True)

    @property
    def folder(self) -> str:
        """Name of the entry's folder."""
        return f"{self.name}-{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"


def cached(
    config: DataConfig, key: CacheKey, build: Callable[[Path], None], load: Callable[[Path], T]
) -> T:
    """Load the entry of `key`, building it first if it is missing or damaged.

    Args:
        config: `cache_dir` and `cache_limit_gb`.
        key: of the entry.
        build: fills an empty folder.
        load: reads a complete folder.

    Raises:
        DataError: the entry would not fit, the cache cannot be written, or it holds other files.
    """
    root = cache_root(config.cache_dir)
    _make_folder(root)
    folder = root / key.folder
    with _locked(folder):
        if folder.exists() and not is_intact(folder):
            log.warning("%s: differs from what was written; building it again", folder)
            shutil.rmtree(folder)
        if not folder.exists():
            for part in _folders(root, f".{folder.name}.*"):
                shutil.rmtree(part)  # the lock was free, so its builder was killed
            free_space(root, key, config.cache_limit_gb)
            _build(folder, key, build)
        os.utime(folder)
        try:
            return load(folder)
        except ValueError as error:  # numpy refuses to unpickle
            raise DataError(
                f"{folder}: cannot be read ({error}); remove this folder, and it is built again"
            ) from None


def is_intact(folder: Path) -> bool:
    """Whether all files of an entry are those that were written."""
    try:
        manifest = read_json(folder / MANIFEST, DataError)
        return all(sampled_fingerprint(folder / name) == value for name, value in manifest.items())
    except (DataError, OSError, ValueError, AttributeError):
        return False


def write_manifest(folder: Path) -> None:
    """Record the fingerprints of all files of a complete entry."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    manifest = {path.name: sampled_fingerprint(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=0), encoding="utf-8")


def free_space(root: Path, key: CacheKey, limit_gb: float) -> None:
    """Remove leftovers of killed builders, and the least recently used entries until the new one fits.

    Raises:
        DataError: the new entry is larger than the limit or than the free disk space.
    """
    need, limit = key.n_bytes, limit_gb * GIGABYTE
    if need > limit:
        raise DataError(
            f"cache_limit_gb: the decoded images ({key.name}) take {need / GIGABYTE:.3g} GB, but the limit is "
            f"{limit_gb:g} GB; raise cache_limit_gb or lower image_size"
        )
    _remove_leftovers(root)
    entries = [folder for folder in _folders(root, "*") if _is_entry(folder)]
    sizes = {folder: _size(folder) for folder in sorted(entries, key=_used)}
    total, free = sum(sizes.values()), shutil.disk_usage(root).free
    if need > free + total:
        raise DataError(
            f"{root}: the decoded images ({key.name}) take {need / GIGABYTE:.3g} GB, but {free / GIGABYTE:.3g} GB "
            "are free on the disk; set cache_dir to another disk or lower image_size"
        )
    for folder, size in sizes.items():
        if total + need <= limit and need <= shutil.disk_usage(root).free:
            return
        if _remove(folder):
            log.info("%s: least recently used, removed to free space in the cache", folder)
            total -= size


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cache_dir: {root} cannot be created ({error.strerror}); name another folder"
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = _lock(folder)
    try:
        lock.acquire(timeout=2)
    except Timeout:
        log.info("waiting for another process that builds %s", folder)
        lock.acquire()
    except OSError as error:
        raise DataError(
            f"cache_dir: {folder.parent} cannot be written ({error.strerror}); name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def _build(folder: Path, key: CacheKey, build: Callable[[Path], None]) -> None:
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    part.mkdir()
    try:
        build(part)
        (part / "recipe.json").write_text(key.text, encoding="utf-8")
        write_manifest(part)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_leftovers(root: Path) -> None:
    for part in _folders(root, ".*"):
        if owner := re.fullmatch(r"\.(.+-[0-9a-f]{16})\.\w+", part.name):
            _remove(part, owner=root / owner[1])


def _folders(root: Path, pattern: str) -> list[Path]:
    return [path for path in root.glob(pattern) if path.is_dir()]


def _is_entry(folder: Path) -> bool:
    """Whether a folder is an entry of the cache; nothing else may be removed."""
    hashed = re.search(r"-[0-9a-f]{16}$", folder.name) is not None
    return hashed and (folder / MANIFEST).exists() and (folder / "recipe.json").exists()


def _remove(folder: Path, owner: Path | None = None) -> bool:
    """Remove a folder unless the lock of its entry is held; whether it was removed."""
    lock = _lock(owner or folder)
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            return True
    except (Timeout, OSError):  # in use, or of another user
        return False


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # removed by another process
        return 0.0


def _size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except FileNotFoundError:
        return 0
