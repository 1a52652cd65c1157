"""`--json`: the answer of a command as one JSON document on standard output; all else goes to the error stream."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--json` to a command line."""
    parser.add_argument(
        "--json", action="store_true", help="print the answer as JSON; all else goes to stderr"
    )


def print_json(answer: object) -> None:
    """Print one document; see `to_plain`."""
    text = json.dumps(to_plain(answer), indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(f"{text}\n")


def to_plain(value: Any) -> Any:
    """Values that JSON has: a dataclass or config as an object, a path as text, inf and NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, BaseModel):
        return to_plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)
