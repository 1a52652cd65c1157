"""The files that a sweep names, as absolute paths: trials run in other folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from fsdet.config import TrainConfig
from fsdet.errors import cut
from fsdet.reading import exists, expand_user
from sweeps.config import SweepSpec
from sweeps.config.error_format import Lines, location_of
from sweeps.config.parameter import Parameter
from sweeps.errors import SweepError

PATHS = tuple(k for k, f in TrainConfig.model_fields.items() if Path in get_args(f.annotation))
"""Settings whose value is a file or folder."""
ROOT = Path(__file__).resolve().parents[2]
"""Folder of the packages, and of what a checkout has beside them."""
INPUT_PATHS = tuple(key for key in PATHS if key not in ("checkpoint_dir", "cache_dir"))
"""Those that must exist before the sweep starts."""


def resolve_paths(spec: SweepSpec, path: Path, lines: Lines) -> SweepSpec:
    """Make all paths in `spec` absolute.

    They are searched in the working directory, then in the parent of the YAML's folder, then beside
    `sweeps`.

    Raises:
        SweepError: a file is in none of them.
    """

    def absolute(where: str, key: str, value: Any) -> Any:
        if key not in INPUT_PATHS or not isinstance(value, str):
            return value
        return str(_find(value, path, location_of(path, where, lines)))

    return map_settings(spec, absolute)


def map_settings(spec: SweepSpec, change: Callable[[str, str, Any], Any]) -> SweepSpec:
    """`spec` with every value of a setting replaced, in `space`, `fixed` and `baselines`.

    Args:
        spec: any.
        change: of dotted key in the file, setting, and value.
    """

    def in_parameter(key: str, parameter: Parameter) -> Parameter:
        where, choices = f"space.{key}", parameter.choices
        when = {
            name: tuple(change(f"{where}.when.{name}", name, value) for value in values)
            for name, values in parameter.conditions.items()
        }
        if choices is not None:
            choices = tuple(change(f"{where}.choices", key, choice) for choice in choices)
        return parameter.model_copy(update={"choices": choices, "when": when})

    changed = {
        "fixed": {key: change(f"fixed.{key}", key, value) for key, value in spec.fixed.items()},
        "space": {key: in_parameter(key, parameter) for key, parameter in spec.space.items()},
        "baselines": {
            name: {key: change(f"baselines.{name}.{key}", key, v) for key, v in values.items()}
            for name, values in spec.baselines.items()
        },
    }
    return spec.model_copy(update={k: v for k, v in changed.items() if k in spec.model_fields_set})


def _find(name: str, path: Path, where: str) -> Path:
    """The file or folder `name`, absolute."""
    roots = [Path.cwd(), Path(os.path.realpath(path)).parent.parent, ROOT]
    try:
        places = list(dict.fromkeys(root / expand_user(name) for root in roots))
    except ValueError as error:
        raise SweepError(f"{where}: {error}") from None
    found = next((p.resolve() for p in places if exists(p)), None)
    if found is None:
        looked = " and ".join(str(p) for p in places)
        raise SweepError(
            f"{where}: no such file or folder: {cut(name)} (looked for {cut(looked, 500)}); correct the path"
        )
    return found
