"""Files with a JSON object a line, to which a running process appends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fsdet.errors import ConfigError
from fsdet.reading.json_file import parse_json
from fsdet.reading.text import MEGABYTE, Error, exists

LONGEST_LINE = MEGABYTE
"""Bytes of a line."""
CURE = "restore the file from a backup, or delete this line"

Row = dict[str, float]
"""The numbers of a line."""


@dataclass(frozen=True)
class Line:
    """One line of a file."""

    number: int
    text: str
    """With its end, which the last one may lack."""
    content: Any


def read_json_lines(path: Path, error: Error = ConfigError, cure: str = CURE) -> Iterator[Line]:
    """The lines of a file; none of one that does not exist.

    A process that is killed may leave the last line cut off; that line is left out.

    Args:
        path: of the file.
        error: class of the exception.
        cure: for a damaged file.

    Raises:
        Exception: `error`: the file cannot be read, or another line is not JSON.
    """
    if not exists(path):
        return
    try:
        if not path.is_file():
            raise error(f"{path}: cannot be read (it is not a regular file); remove it")
        file = path.open("rb")
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}); check the path") from None
    with file:
        for number in count(1):
            data = file.readline(LONGEST_LINE)
            whole = data.endswith(b"\n")
            if not data:
                return
            try:
                text = data.decode()
                content = parse_json(text)
            except ValueError:
                if not whole and len(data) < LONGEST_LINE:
                    return
                rule = "the file is damaged: this line is not JSON"
                raise error(f"{path}:{number}: {rule}; {cure}") from None
            yield Line(number, text, content)


def read_rows(
    path: Path, needed: tuple[str, ...] = (), error: Error = ConfigError, cure: str = CURE
) -> Iterator[Row]:
    """The numbers of each line; inf and NaN are stored as text.

    Args:
        path: of the file.
        needed: keys of which every line has a finite number.
        error: class of the exception.
        cure: for a damaged file.

    Raises:
        Exception: `error`: see `read_json_lines`; or a line lacks a number.
    """
    for line in read_json_lines(path, error, cure):
        row = numbers_of(line.content)
        for key in needed:
            if not math.isfinite(row.get(key, math.nan)):
                rule = f"the file is damaged: this line has no number '{key}'"
                raise error(f"{path}:{line.number}: {rule}; {cure}")
        yield row


def numbers_of(content: Any) -> Row:
    """The numbers in a line; others are left out."""
    row = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        try:
            row[key] = float(value)
        except (TypeError, ValueError, OverflowError):
            continue
    return row
