"""The folders of sweeps: made anew, or found by name."""

from __future__ import annotations

import re
from pathlib import Path

from fsdet.errors import nearest
from fsdet.reading import expand_user
from fsdet.report import SWEEPS_DIR
from sweeps.config.names import checked_name
from sweeps.config.sections import is_url
from sweeps.errors import SweepError
from sweeps.storage.folder import SPEC, SweepFolder
from sweeps.storage.remote import RemoteFolder


def sweeps_root(storage: str | None = None) -> Path:
    """Folder of all sweeps on this machine.

    Args:
        storage: `storage.path` of a sweep; None, or a URL, for that of the working directory.
    """
    if storage is None or is_url(storage):
        return (Path.cwd() / SWEEPS_DIR).resolve()
    try:
        return expand_user(storage).absolute()
    except ValueError as error:
        raise SweepError(str(error)) from None


def folder_at(name: str, storage: str | None) -> SweepFolder:
    """The folder of the sweep `name`, whether it exists or not."""
    url = f"{storage.rstrip('/')}/{name}" if storage is not None and is_url(storage) else None
    return SweepFolder(sweeps_root(storage) / name, url)


def new_folder(name: str, numbered: bool = False, storage: str | None = None) -> SweepFolder:
    """Create a folder for a sweep called `name`.

    Args:
        name: of the sweep.
        numbered: whether a number is added to a name that is in use.
        storage: see `sweeps_root`.

    Raises:
        SweepError: the name is in use, or the storage cannot be used.
    """
    number = 1
    while True:
        folder = folder_at(name if number == 1 else f"{name}-{number}", storage)
        if folder.make():
            return folder
        if not numbered:
            raise SweepError(
                f"sweep {name}: {folder.url or folder.path} holds one already; resume it with "
                "--resume, or start another with --name NAME (--name auto: the next free number)"
            )
        number += 1


def find_folder(name: str, storage: str | None = None) -> SweepFolder:
    """The folder of the sweep of exactly this name, or else of the latest numbered one.

    Raises:
        SweepError: not a name, no such sweep, or the storage cannot be used.
    """
    try:
        folder = folder_at(checked_name(name), storage)
    except ValueError as error:
        raise SweepError(
            f"the name of a sweep {error}; `python -m sweeps.list` shows them"
        ) from None
    folder.download()
    return folder if folder.spec_file.is_file() else latest_folder(name, storage)


def latest_folder(name: str, storage: str | None = None) -> SweepFolder:
    """The folder of the latest sweep called `name`, numbered or not.

    Raises:
        SweepError: no such sweep, or the storage cannot be used.
    """
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    known = sweeps_in(storage)
    found = {other: m for other in known if (m := pattern.fullmatch(other))}
    if not found:
        cure = nearest(name, known) or "; `python -m sweeps.run FILE` starts one"
        where = storage if storage is not None and is_url(storage) else sweeps_root(storage)
        raise SweepError(f"{name}: no such sweep in {where}{cure}")
    folder = folder_at(max(found, key=lambda other: int(found[other][1] or 1)), storage)
    folder.download()
    return folder


def sweeps_in(storage: str | None) -> set[str]:
    """Names of all sweeps that have begun, here and in the storage."""
    names = {path.parent.name for path in sweeps_root(storage).glob(f"*/{SPEC}")}
    if storage is None or not is_url(storage):
        return names
    return names | set(RemoteFolder(storage).folders_with(SPEC))
