"""Portable names of files: every machine resolves them to a local path.

`package:fsdet/checkpoints/x.pt` is a file of our own code, which is sent to every node. `storage:files/x.pt`
is a copy in the sweep's folder, under a name that contains the digest of its content. Any other path is the
same on all machines; folders, which are datasets, must be on every node.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsdet
from fsdet.config import TrainConfig
from fsdet.errors import cut
from fsdet.files import atomic_path, stays_below
from sweeps.config import SweepSpec
from sweeps.config.paths import INPUT_PATHS, map_settings
from sweeps.errors import SweepError
from sweeps.storage.remote import RemoteFolder, StorageError

PACKAGES = (Path(fsdet.__file__).resolve().parent, Path(__file__).resolve().parents[1])
"""The code, which is sent to every node."""
PACKAGE, STORAGE = "package:", "storage:"
CURE = (
    "the file that names it is damaged or forged; restore it, or start a new sweep with --name NAME"
)
FILES = "files"
"""Subfolder of a sweep's folder for the copies."""


def package_name(path: Path) -> str | None:
    """The portable name of a path in our own code; None for any other path."""
    package = next((p for p in PACKAGES if path.is_relative_to(p)), None)
    return None if package is None else PACKAGE + path.relative_to(package.parent).as_posix()


def storage_name(path: Path) -> str:
    """The portable name of a file's copy; it contains the digest of the content."""
    return f"{STORAGE}{FILES}/{digest(path)[:16]}-{path.name}"


def local_path(name: str, folder: Path, url: str | None) -> Path:
    """Path of a file on this machine; downloaded if necessary.

    Args:
        name: portable name of the file.
        folder: of the sweep; used where all machines share it.
        url: of the sweep; None if all machines share the folder.

    Raises:
        SweepError: the name leads out of our code or out of the storage.
    """
    if name.startswith(PACKAGE):
        package, _, rest = name.removeprefix(PACKAGE).partition("/")
        for root in PACKAGES:
            if root.name == package:
                return within(root, rest)
        raise SweepError(f"{cut(name)}: there is no such package; {CURE}")
    if not name.startswith(STORAGE):
        return Path(name)
    name = name.removeprefix(STORAGE)
    path = within(folder if url is None else scratch(), name)
    if url is not None and not path.is_file():  # the name contains the digest: no need to compare
        RemoteFolder(url).download(name, path)
    return path


def within(root: Path, name: str) -> Path:
    """The path `name` below `root`.

    Raises:
        SweepError: it leads out of it.
    """
    if not stays_below(name):
        raise SweepError(f"{cut(name)}: leads out of {root}; {CURE}")
    return root / name


def scratch() -> Path:
    """This user's folder for trials on this node.

    Raises:
        StorageError: see `private_folder`.
    """
    return private_folder(None, "TMPDIR")


def private_folder(parent: Path | None, variable: str) -> Path:
    """The folder of this user in a folder for temporary files; nobody else can read it.

    Args:
        parent: in which it is; None for the system's folder for temporary files.
        variable: environment variable that chooses `parent`, for messages.

    Raises:
        StorageError: it cannot be created, or belongs to another user, so that its content cannot be trusted.
    """
    try:
        path = Path(parent or tempfile.gettempdir()) / f"fsdet-sweeps-{os.getuid()}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
            raise StorageError(
                f"{path}: belongs to another user; set {variable} to a folder of your own"
            )
        path.chmod(0o700)
    except OSError as error:
        raise StorageError(
            f"{parent or 'the folder for temporary files'}: cannot be used ({error.strerror or error}); set "
            f"{variable} to a folder that you can write to"
        ) from None
    return path


def content_key(path: Any) -> Any:
    """A value that identifies a file on every machine; any other value unchanged."""
    found = Path(path) if isinstance(path, str) else None
    if found is None or not found.is_file():
        return path
    return package_name(found) or digest(found)


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


def named_paths(spec: SweepSpec) -> list[str]:
    """Every file and folder that a trial may read, absolute."""
    found: list[str] = []

    def collect(_: str, key: str, value: object) -> object:
        if key in INPUT_PATHS and isinstance(value, str):
            found.append(value)
        return value

    map_settings(spec, collect)
    return list(dict.fromkeys(found))


def shared_folders(spec: SweepSpec) -> list[str]:
    """Folders that must be on every node."""
    return [path for path in named_paths(spec) if Path(path).is_dir()]


def portable_names(spec: SweepSpec, folder: Path, url: str | None, shared: bool) -> dict[str, str]:
    """Path on this machine -> portable name; files are copied into `folder`.

    Args:
        spec: of the sweep.
        folder: of the sweep.
        url: of the sweep; None if all machines share the folder.
        shared: whether another machine may run a trial, now or later; if not, the result is empty.

    Raises:
        StorageError: the storage cannot be written.
    """
    return dict(_named(spec, folder, url)) if shared else {}


def _named(spec: SweepSpec, folder: Path, url: str | None) -> Iterator[tuple[str, str]]:
    for path in map(Path, named_paths(spec)):
        name = package_name(path)
        if name is None and path.is_file():
            name = storage_name(path)
            _copy(path, folder, url, name.removeprefix(STORAGE))
        if name is not None:
            yield str(path), name


def _copy(path: Path, folder: Path, url: str | None, name: str) -> None:
    copy = folder / name
    if copy.is_file():
        return
    with atomic_path(copy) as part:
        shutil.copyfile(path, part)
    if url is not None:
        RemoteFolder(url).upload(copy, name)


def localize_paths(
    config: TrainConfig, names: Mapping[str, str], folder: Path, url: str | None
) -> TrainConfig:
    """`config` with the paths of this machine.

    Args:
        config: with the paths of the driver's machine.
        names: see `portable_names`.
        folder: of the sweep; used where all machines share it.
        url: of the sweep; None if all machines share the folder.
    """
    given = {key: str(getattr(config, key)) for key in INPUT_PATHS}
    here = {k: local_path(names[p], folder, url) for k, p in given.items() if p in names}
    return config.model_copy(update=here)
