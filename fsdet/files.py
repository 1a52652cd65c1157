"""Reads regular files only, and writes atomically: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading; a named pipe or a device, which may never end, is refused at once.

    Raises:
        OSError: it cannot be read, or is something else.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return io.BufferedReader(io.FileIO(number))
    os.close(number)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_text(path: Path) -> str:
    """The text of a regular file in UTF-8.

    Raises:
        OSError: see `open_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    with io.TextIOWrapper(open_regular(path), encoding="utf-8") as file:
        return file.read()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; move it there on success, delete it on failure.

    Its permissions are those that the umask leaves. The file's content is flushed to the disk before the move,
    so that a power cut cannot leave a complete name with incomplete content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    part.touch(mode=0o666, exist_ok=False)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def stays_below(name: str) -> bool:
    """Whether the path `name`, which a file gave, stays in the folder that it is relative to."""
    path = Path(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
