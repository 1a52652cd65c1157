"""JSON files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fsdet.errors import ConfigError
from fsdet.reading.text import (
    LARGEST_FILE,
    LONGEST_NUMBER,
    Error,
    read_text,
    why_unusable,
)

ESCAPED = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
"""How JSON writes a character that cannot be used; pairs of surrogates, which can, begin alike."""
CURE = "restore it from a backup"


def read_json(
    path: Path, error: Error = ConfigError, largest: int = LARGEST_FILE, cure: str = CURE
) -> Any:
    """The content of a JSON file.

    Args:
        path: of the file.
        error: class of the exception.
        largest: most bytes.
        cure: for a file that is not JSON.

    Raises:
        Exception: `error`: see `read_text`; or the file is not JSON, too deep, or holds a value that cannot be used.
    """
    text = read_text(path, error, largest)
    try:
        return parse_json(text)
    except json.JSONDecodeError as problem:
        why = f"{problem.msg}: line {problem.lineno} column {problem.colno}"
        raise error(f"{path}:{problem.lineno}: not valid JSON ({why}); {cure}") from None
    except ValueError as problem:
        raise error(f"{path}: not valid JSON ({problem}); {cure}") from None


def parse_json(text: str) -> Any:
    """The content of JSON.

    Raises:
        ValueError: not JSON, too deep, or a value that cannot be used.
    """
    try:
        content = json.loads(text, parse_int=_whole_number)
        if ESCAPED.search(text):
            _check_texts(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return content


def _whole_number(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _check_texts(content: Any) -> None:
    if isinstance(content, dict):
        for key, value in content.items():
            _check_texts(key)
            _check_texts(value)
    elif isinstance(content, list):
        for value in content:
            _check_texts(value)
    elif isinstance(content, str) and (broken := why_unusable(content)) is not None:
        raise ValueError(broken.partition(";")[0])
