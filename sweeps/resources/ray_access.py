"""Keeps the Ray of a local sweep to this user: a folder and a token of its own, no passwords for its workers.

Whoever holds the token of a Ray runs code as its user. Ray's own token, `~/.ray/auth_token`, is the same for every Ray
of the user and readable by all; a local sweep neither reads nor writes it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

from sweeps.errors import SweepError
from sweeps.storage.portable_files import private_folder

LONGEST_SOCKET = 107
"""Bytes in the path of a Unix socket."""
SOCKET = "/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"
"""Such a path within Ray's folder."""
NEEDED_BYTES = 100 * 2**20
"""Free disk space for Ray's logs and sockets."""
NEEDED_FILES = 1000
"""Files that must still find room there; a disk may run out of inodes before it runs out of bytes."""
SHORT = Path("/tmp")  # noqa: S108  # `private_folder` checks whose folder it finds there
"""Used where the folder for temporary files has too long a path, as on macOS."""


def ray_folder() -> Path:
    """Folder for the sessions of Ray: within a folder that only this user can read, since Ray opens its own to all.

    Raises:
        SweepError: it cannot be created, its path is too long or its disk is full, of bytes or of files.
    """
    given = os.environ.get("RAY_TMPDIR")
    folder = private_folder(Path(given) if given else None, "RAY_TMPDIR") / "ray"
    if not given and not _fits(folder):
        folder = private_folder(SHORT, "RAY_TMPDIR") / "ray"
    if not _fits(folder):
        most = LONGEST_SOCKET - len(SOCKET)
        raise SweepError(
            f"RAY_TMPDIR: the path of Ray's sockets in {folder} would be too long: at most {most} bytes; set "
            "RAY_TMPDIR to a shorter one, such as /tmp"
        )
    check_room(folder.parent)
    return folder


def check_room(folder: Path) -> None:
    """Check that the disk of `folder` has room for what Ray writes.

    Raises:
        SweepError: it has too few bytes or inodes.
    """
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    cure = "make room, or set RAY_TMPDIR to a folder on another disk"
    if free < NEEDED_BYTES:
        raise SweepError(
            f"{folder}: the disk is full: Ray needs {NEEDED_BYTES / 1e6:.0f} MB there, {free / 1e6:.0f} MB are free; "
            f"{cure}"
        )
    if disk.f_files and disk.f_favail < NEEDED_FILES:  # some file systems have no fixed number
        raise SweepError(
            f"{folder}: the disk is full: Ray needs room for {NEEDED_FILES} files there, but only {disk.f_favail} "
            f"more can be created; {cure}"
        )


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(SOCKET) <= LONGEST_SOCKET


@cache
def own_token() -> str:
    """The token of this process: Ray reads it once, and a process may run several sessions."""
    return secrets.token_hex(32)


@contextmanager
def token_file(folder: Path) -> Iterator[Path]:
    """A file in `folder` with the token that only this user can read; removed afterwards, or by a later process."""
    for left in folder.glob("token-*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            left.unlink(missing_ok=True)
    path = folder / f"token-{os.getpid()}-{secrets.token_hex(4)}"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(own_token())
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
