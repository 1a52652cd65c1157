"""Errors in a sweep's YAML as messages, each with file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fsdet.errors import MOST_LINES, cut, more_mistakes, nearest, shown
from sweeps.config import SweepSpec
from sweeps.config.parameter import Parameter

Lines = dict[str, int | None]
"""Dotted key -> its line; None for a key that `--set` gave."""
VALUE_KINDS = ("bool", "int", "float", "str", "tuple")
"""Types of a value, as pydantic names them in the location of an error."""


def location_of(path: Path | str, key: str, lines: Lines) -> str:
    """`file:line: key` with the line of the nearest parent that the file has, or `file, --set key`."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        near = ".".join(parts[:end])
        if near in lines:
            line = lines[near]
            if line is not None:
                return f"{path}:{line}: {key}"
            return f"{path}, --set {near}" + ("" if near == key else f": {key}")
    return f"{path}: {key}"


def format_errors(error: ValidationError, path: Path, lines: Lines) -> str:
    """All of pydantic's errors, one a line: file, line, key, rule, value, cure."""
    out: dict[str, None] = {}
    for problem in error.errors(include_url=False):
        if len(out) == MOST_LINES:
            return "\n".join([*out, more_mistakes(path)])
        out[_format(problem, path, lines)] = None
    return "\n".join(out)


def _format(problem: ErrorDetails, path: Path, lines: Lines) -> str:
    """One error as a line."""
    loc = [cut(str(part)) for part in problem["loc"]]
    kinds = [i for i, part in enumerate(loc) if i > 1 and part.partition("[")[0] in VALUE_KINDS]
    if kinds:  # pydantic reports one error for each type that the value does not have
        where = location_of(path, ".".join(loc[: kinds[0]]), lines)
        return f"{where}: must be a number, a text, true, false or null; correct it"
    where = location_of(path, ".".join(loc), lines)
    match problem["type"]:
        case "extra_forbidden":
            names = _known_keys(loc[:-1])
            cure = nearest(loc[-1], names) or f"; known are {', '.join(names)}"
            return f"{where}: unknown key '{loc[-1]}'{cure}"
        case "missing":
            return f"{where}: is required; add it"
        case "value_error":
            return f"{where}: {problem['ctx']['error']}"
        case "model_type" | "dict_type":
            return f"{where}: {_group_rule(loc, problem['input'])}"
        case "literal_error":
            expected = problem["ctx"]["expected"]
            close = nearest(str(problem["input"]), re.findall(r"'([^']*)'", expected))
            return f"{where}: must be {expected}, but got {shown(problem['input'])}{close}"
        case _:
            rule = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{where}: {rule}, but got {shown(problem['input'])}"


def _group_rule(loc: list[str], value: object) -> str:
    """What a group of keys must be, with an example."""
    if loc[0] in ("space", "fixed", "baselines"):
        example = (
            "{low: 0.1, high: 10} or {choices: [1, 2]}"
            if len(loc) > 1 and loc[0] == "space"
            else "key: value"
        )
        return f"must be a group of keys, as in {example}, but got {shown(value)}"
    names = _known_keys(loc)
    example = (
        f"{'.'.join(loc)}.{names[0]}={cut(str(value))}"
        if isinstance(value, str | int | float)
        else ""
    )
    cure = f"; did you mean {example}?" if example else ""
    return f"must be a group of keys ({', '.join(names[:4])}, …), but got {shown(value)}{cure}"


def _known_keys(parents: list[str]) -> list[str]:
    """Keys that are allowed below `parents`."""
    if not parents:
        return list(SweepSpec.model_fields)
    if parents[0] == "space":
        return list(Parameter.model_fields)
    annotation = SweepSpec.model_fields[parents[0]].annotation
    for kind in get_args(annotation) or (annotation,):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return list(kind.model_fields)
    return []
