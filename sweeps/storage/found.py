"""Names for files that are found on every machine, wherever it keeps them.

`package:fsdet/checkpoints/x.pt` lies in our own code, `storage:files/x.pt` in the sweep's folder.
Any other path is the same on all machines.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsdet
from sweeps.storage.mirror import Mirror, StorageError

PACKAGES = (Path(fsdet.__file__).resolve().parent, Path(__file__).resolve().parents[1])
"""The code, which is sent to every node."""
PACKAGE, STORAGE = "package:", "storage:"
FILES = "files"
"""Of the copies, in a sweep's folder."""


def in_package(path: Path) -> str | None:
    """The name of a path in our own code; None of any other."""
    package = next((p for p in PACKAGES if path.is_relative_to(p)), None)
    return None if package is None else PACKAGE + path.relative_to(package.parent).as_posix()


def in_storage(path: Path) -> str:
    """The name of a file's copy: it holds the digest of the content."""
    return f"{STORAGE}{FILES}/{digest(path)[:16]}-{path.name}"


def find(name: str, folder: Path, url: str | None) -> Path:
    """Path of a file on this machine; fetched there if need be.

    Args:
        name: see above.
        folder: of the sweep; used where all machines share it.
        url: of the sweep; None if all machines share the folder.
    """
    if name.startswith(PACKAGE):
        package, _, rest = name.removeprefix(PACKAGE).partition("/")
        return next(p for p in PACKAGES if p.name == package) / rest
    if not name.startswith(STORAGE):
        return Path(name)
    name = name.removeprefix(STORAGE)
    path = (folder if url is None else scratch()) / name
    if url is not None and not path.is_file():  # what is there under this name is the same
        Mirror(url).fetch(name, path)
    return path


def scratch() -> Path:
    """This user's folder for trials on this node.

    Raises:
        StorageError: it is another user's, who could have put anything there.
    """
    path = Path(tempfile.gettempdir()) / f"fsdet-sweeps-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != os.getuid() or path.is_symlink():
        raise StorageError(f"{path}: belongs to another user; set TMPDIR to a folder of your own")
    return path


def content(path: Any) -> Any:
    """What stands for a file on every machine; another value as it is."""
    found = Path(path) if isinstance(path, str) else None
    if found is None or not found.is_file():
        return path
    return in_package(found) or digest(found)


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    return _digest(path, stamp(path))


@lru_cache(maxsize=64)
def _digest(path: Path, _: tuple[int, int]) -> str:
    """A file is read once as long as it does not change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> tuple[int, int]:
    """Changes with the content: time of the last change in ns, and size in bytes."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size
