"""`TrainConfig` from and to YAML and from command-line flags; errors name file, key, rule and fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ValidationError

from fsdet import reading
from fsdet.config import TrainConfig
from fsdet.errors import MOST_LINES, ConfigError, cut, more_mistakes, nearest, shown
from fsdet.files import write_text_atomic


def build_config(values: Mapping[str, Any], source: str = "the settings") -> TrainConfig:
    """Check `values` and build the config.

    Args:
        values: settings by name.
        source: file or place that the values come from, for the message.

    Raises:
        ConfigError: unknown key, wrong type or value out of range.
    """
    try:
        return TrainConfig(**values)
    except ValidationError as error:
        raise ConfigError(describe(error, source)) from None


def describe(error: ValidationError, source: str) -> str:
    """All errors that pydantic found, one per line: source, key, rule, value and, for unknown keys, the nearest one."""
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        if len(lines) == MOST_LINES:
            return "\n".join([*lines, more_mistakes(source)])
        key = cut(".".join(str(part) for part in problem["loc"]))
        if problem["type"] == "extra_forbidden":
            close = nearest(key, TrainConfig.model_fields)
            fix = close or "; `python -m fsdet.train --help` lists all settings"
            lines.append(f"{source}: unknown key '{key}'{fix}")
        elif problem["type"] == "value_error" and not key:
            lines.append(f"{source}: {problem['ctx']['error']}")
        elif problem["type"] == "tuple_type":
            given = problem["input"]
            fix = f"; write [{given}]" if isinstance(given, str | int | float) else ""
            lines.append(f"{source}: {key}: must be a list, but got {shown(given)}{cut(fix)}")
        else:
            rule = problem["msg"][0].lower() + problem["msg"][1:]
            lines.append(f"{source}: {key}: {rule}, but got {shown(problem['input'])}")
    return "\n".join(lines)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: see `fsdet.reading.read_yaml`; or the file holds something other than a mapping.
    """
    content = reading.read_yaml(path).values
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: must hold `key: value` lines, but holds a {type(content).__name__}"
        )
    return content


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The config in a YAML file, with `overrides` on top.

    Raises:
        ConfigError: see `read_yaml` and `build_config`.
    """
    return build_config({**read_yaml(path), **(overrides or {})}, str(path))


def save_config(config: TrainConfig, path: Path) -> None:
    """Write every setting as YAML, atomically, in the order of the groups."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text_atomic(path, text)


def flags_of(model: type[BaseModel], defaults: Mapping[str, Any]) -> type[Any]:
    """A dataclass with the fields of `model`, for `fsdet.command.read_flags`; nothing checks its values.

    Args:
        model: its fields' docstrings become the help.
        defaults: a value for each field.
    """
    import tyro

    fields = [
        (
            name,
            Annotated[info.annotation, tyro.conf.arg(help=info.description)],
            field(default=defaults[name]),
        )
        for name, info in model.model_fields.items()
    ]
    return make_dataclass("Flags", fields, frozen=True)
