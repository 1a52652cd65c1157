"""A sweep's YAML file: found, read and overridden.

Every error names the file and the line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fsdet.config import TrainConfig
from fsdet.errors import cut, nearest
from fsdet.reading import exists, parse_yaml, read_yaml
from sweeps.config import SweepSpec
from sweeps.config.error_format import Lines, format_errors
from sweeps.config.paths import ROOT, resolve_paths
from sweeps.config.rules import mistakes
from sweeps.config.search_rules import size_of_grid
from sweeps.errors import SweepError

FOLDER = "search_spaces"
"""Searched for a bare file name that is not in the working directory."""


def load_spec(name: str, overrides: Iterable[str] = ()) -> tuple[SweepSpec, Lines]:
    """Read a sweep.

    Args:
        name: path, or bare file name, with or without `.yaml`.
        overrides: `key=value`, where key is a dotted path in the file or a trainer's setting.

    Returns:
        the sweep, and the line of each dotted key in the file.

    Raises:
        SweepError: the file or its content cannot be used.
    """
    path = find_file(name)
    values, found = read(path)
    lines: Lines = dict(found)
    for override in overrides:
        lines[apply_override(values, override)] = None
    try:
        spec = SweepSpec(**values)
    except ValidationError as error:
        raise SweepError(format_errors(error, path, lines)) from None
    spec = resolve_paths(spec, path, lines)
    return count_grid(spec).with_source(str(path)), lines


def count_grid(spec: SweepSpec) -> SweepSpec:
    """Set `trials` of a grid that does not give them to the number of its configurations."""
    if spec.sampler.name != "grid" or "trials" in spec.model_fields_set or any(mistakes(spec)):
        return spec
    return spec.model_copy(update={"trials": size_of_grid(spec)})


def find_file(name: str) -> Path:
    """The file called `name`, or the one of that name in `search_spaces/`.

    Raises:
        SweepError: no such file.
    """
    places = [Path(name)]
    if Path(name).name == name:
        places += [Path(FOLDER) / name, ROOT / FOLDER / name]
    named = (place for place in places if place.name)  # "" and "." have none
    for place in (*places, *(place.with_name(f"{place.name}.yaml") for place in named)):
        if exists(place) and not place.is_dir():
            return place
    shipped = sorted(p.name for p in (ROOT / FOLDER).glob("*.yaml"))
    close = nearest(Path(name).name, shipped)
    looked = ", ".join(str(place) for place in places)
    raise SweepError(
        f"{cut(name) or repr(name)}: no such file (looked for {cut(looked, 500)}){close or '; check the path'}"
    )


def read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in the file, and the line of each dotted key.

    Raises:
        SweepError: see `fsdet.reading.read_yaml`; or the file does not hold a mapping.
    """
    document = read_yaml(path, SweepError)
    values = document.values
    if not isinstance(values, dict):
        raise SweepError(
            f"{path}: must hold `key: value` lines, but holds "
            f"{'nothing' if values is None else type(values).__name__}; see {FOLDER}/ for examples"
        )
    return values, document.lines


def apply_override(values: dict[str, Any], override: str) -> str:
    """Set `key=value` in `values`; a bare setting goes under `fixed`, an end of a searched one under `space`.

    Returns:
        the dotted key that was set.

    Raises:
        SweepError: not of that form, or a parent of the key is not a mapping.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SweepError(f"--set {cut(override)}: must be key=value, as in --set fixed.epochs=2")
    searched = values.get("space")
    if not isinstance(searched, dict):
        searched = {}
    if key in searched:
        raise SweepError(
            f"--set {key}: is searched; set an end of it, as in --set space.{key}.low=1"
        )
    if key in TrainConfig.model_fields:
        key = f"fixed.{key}"
    first = key.partition(".")[0]
    if first in searched:
        first, key = "space", f"space.{key}"
    if first not in SweepSpec.model_fields:
        names = [*SweepSpec.model_fields, *TrainConfig.model_fields]
        cure = (
            nearest(first, names)
            or "; --help and `python -m fsdet.train --help` list what there is"
        )
        raise SweepError(f"--set {cut(override)}: unknown key '{cut(first)}'{cure}")
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise SweepError(
                f"--set {cut(key)}: '{cut(parent)}' is not a group of keys; check the dots"
            )
    values[last] = parse_yaml(text, f"--set {cut(key)}", SweepError).values
    return key
