"""A sweep's YAML file: found, read, overridden, and its relative paths made absolute.

Every complaint names the file and the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from fsdet.config import TrainConfig
from fsdet.errors import nearest
from sweeps.errors import SweepError
from sweeps.space import Parameter
from sweeps.spec import SweepSpec

FOLDER = "search_spaces"
"""Where a bare file name is looked for when the working directory does not have it."""

PATHS = tuple(k for k, f in TrainConfig.model_fields.items() if Path in get_args(f.annotation))
"""Settings that name a file or folder to read."""


def load_spec(name: str, overrides: Iterable[str] = ()) -> tuple[SweepSpec, dict[str, int]]:
    """Read a sweep.

    Args:
        name: path, or bare file name.
        overrides: `key=value`, where key is a dotted path in the file or a trainer's setting.

    Returns:
        the sweep, and the line of each dotted key in the file.

    Raises:
        SweepError: the file or what stands in it cannot be used.
    """
    path = find_file(name)
    values, lines = read(path)
    for override in overrides:
        apply_override(values, override)
    odd = next((key for key in values if not isinstance(key, str)), None)
    if odd is not None:
        raise SweepError(
            f"{path}: keys must be text, but got {odd!r}; put it in quotes or remove it"
        )
    try:
        spec = SweepSpec(**values)
    except ValidationError as error:
        raise SweepError(complaints(error, path, lines)) from None
    return resolve_paths(spec, path, lines).with_source(str(path)), lines


def find_file(name: str) -> Path:
    """The file called `name`, else that in `search_spaces/`.

    Raises:
        SweepError: there is none.
    """
    repository = Path(__file__).resolve().parent.parent
    places = [Path(name)]
    if Path(name).name == name:
        places += [Path(FOLDER) / name, repository / FOLDER / name]
    for place in places:
        if place.is_file():
            return place
    shipped = sorted(p.name for p in (repository / FOLDER).glob("*.yaml"))
    close = nearest(Path(name).name, shipped)
    looked = ", ".join(str(place) for place in places)
    raise SweepError(f"{name}: no such file (looked for {looked}){close or '; check the path'}")


def read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in the file, and the line of each dotted key.

    Raises:
        SweepError: not text, not YAML, not a mapping, or a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SweepError(f"{path}: cannot be read as a UTF-8 text file ({error})") from None
    except yaml.YAMLError as error:
        raise SweepError(f"{path}{_mark(error)}; mend the YAML there") from None
    if not isinstance(values, dict):
        raise SweepError(
            f"{path}: must hold `key: value` lines, but holds "
            f"{'nothing' if values is None else type(values).__name__}; see {FOLDER}/ for examples"
        )
    lines: dict[str, int] = {}
    for key, line in _keys(node):
        if key in lines:
            raise SweepError(
                f"{path}:{line}: key '{key}' stands here and in line {lines[key]}; remove one"
            )
        lines[key] = line
    return values, lines


def _mark(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f":{mark.line + 1}" if mark is not None else ""
    return f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}"


def _keys(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every dotted key below `node` with its line, in the order of the file."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1
        yield from _keys(value, f"{name}.")


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set `key=value` in `values`; a bare setting of the trainer goes under `fixed`.

    Raises:
        SweepError: not of that form, or the key leads through something that is not a mapping.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SweepError(f"--set {override}: must be key=value, as in --set fixed.epochs=2")
    if key in (values.get("space") or {}):
        raise SweepError(
            f"--set {key}: is searched; set an end of it, as in --set space.{key}.low=1"
        )
    if key in TrainConfig.model_fields:
        key = f"fixed.{key}"
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise SweepError(f"--set {key}: '{parent}' is not a group of keys; check the dots")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SweepError(f"--set {key}: '{text}' is not a YAML value ({error})") from None


def place(path: Path | str, key: str, lines: dict[str, int]) -> str:
    """`file:line: key`, with the line of the nearest parent that the file has."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        line = lines.get(".".join(parts[:end]))
        if line is not None:
            return f"{path}:{line}: {key}"
    return f"{path}: {key}"


def complaints(error: ValidationError, path: Path, lines: dict[str, int]) -> str:
    """All of pydantic's complaints, one a line: file, line, key, rule, value, cure."""
    out = []
    for problem in error.errors():
        loc = [str(part) for part in problem["loc"]]
        where = place(path, ".".join(loc), lines)
        match problem["type"]:
            case "extra_forbidden":
                names = _known_keys(loc[:-1])
                cure = nearest(loc[-1], names) or f"; known are {', '.join(names)}"
                out.append(f"{where}: unknown key '{loc[-1]}'{cure}")
            case "missing":
                out.append(f"{where}: is required; add it")
            case "value_error":
                out.append(f"{where}: {problem['ctx']['error']}")
            case "literal_error":
                expected = problem["ctx"]["expected"]
                close = nearest(str(problem["input"]), expected.replace("'", "").split(" or "))
                out.append(f"{where}: must be {expected}, but got {problem['input']!r}{close}")
            case _:
                rule = problem["msg"][0].lower() + problem["msg"][1:]
                out.append(f"{where}: {rule}, but got {problem['input']!r}")
    return "\n".join(dict.fromkeys(out))


def _known_keys(parents: list[str]) -> list[str]:
    """Keys that may stand below `parents`."""
    if not parents:
        return list(SweepSpec.model_fields)
    if parents[0] == "space":
        return list(Parameter.model_fields)
    annotation = SweepSpec.model_fields[parents[0]].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return list(annotation.model_fields)
    return []


def resolve_paths(spec: SweepSpec, path: Path, lines: dict[str, int]) -> SweepSpec:
    """Make the files named in `fixed` absolute: trials run in other folders.

    Looked for in the working directory, then in the parent of the YAML's folder, then beside
    `sweeps`.

    Raises:
        SweepError: a file is in none of them.
    """
    roots = [Path.cwd(), path.resolve().parent.parent, Path(__file__).resolve().parent.parent]
    fixed = dict(spec.fixed)
    for key in PATHS:
        if not isinstance(fixed.get(key), str) or key in ("checkpoint_dir", "cache_dir"):
            continue
        places = list(dict.fromkeys(root / Path(fixed[key]).expanduser() for root in roots))
        found = next((p.resolve() for p in places if p.exists()), None)
        if found is None:
            looked = " and ".join(str(p) for p in places)
            raise SweepError(
                f"{place(path, f'fixed.{key}', lines)}: no such file or folder: {fixed[key]} "
                f"(looked for {looked}); correct the path"
            )
        fixed[key] = str(found)
    return spec.model_copy(update={"fixed": fixed})
