"""`docs/yaml_reference.md`: every key that a sweep's YAML may have, from the models that check it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fsdet.config import (
    DataConfig,
    GradientConfig,
    Group,
    HealthConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
)
from sweeps.config.rules import UNSEARCHABLE
from sweeps.config.sweep import OWNED, SweepSpec

HEAD = """\
# YAML reference

Every key of a sweep's YAML with its type, default, range and meaning. This page is generated from the models that
check a sweep: `python -m sweeps.schema --markdown > docs/yaml_reference.md`.
[search_spaces/README.md](../search_spaces/README.md) shows the keys in use and says which to choose.

A section holds keys of its own: `sampler: {name: tpe}`. On the command line a dot joins them: `--set sampler.name=tpe`.
`null` is what the meanings call None.
"""
PARAMETER_NOTE = """\
The value of each key under `space`: a range, a list of `choices`, or a `tie`.
"""
SETTINGS_HEAD = """\
## Settings of the trainer

These are the keys under `space`, `fixed` and `baselines`, and the flags of `python -m fsdet.train`. The last column
says where a sweep may have a setting. Unless they are under `fixed`, a sweep sets `threads` to `resources.cpus`,
`save_interval` to 1, and `early_eval_epochs` to its rungs.
"""
GROUPS: tuple[type[Group], ...] = (
    *(OptimConfig, GradientConfig, LossConfig, ModelConfig, DataConfig, RunConfig),
    HealthConfig,
)
"""Groups of settings in the order of the page: those that are searched most come first."""
LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
    "pattern": "matches `{}`",
    "maxLength": "at most {} characters",
    "minLength": "at least {} character",
    "minProperties": "at least {} key",
}
"""Keyword of a JSON schema -> the rule in words."""
TYPES = {
    "number": "number",
    "integer": "integer",
    "boolean": "true or false",
    "null": "null",
    "string": "text",
    "object": "mapping",
}
"""Type of a JSON schema -> its name in a YAML."""

Node = dict[str, Any]
"""Part of a JSON schema."""


def to_markdown() -> str:
    """The page as text."""
    schema = SweepSpec.model_json_schema()
    parts = [HEAD, *_sections(schema), SETTINGS_HEAD, *_settings()]
    return "\n".join(parts)


def _sections(schema: Node) -> Iterator[str]:
    """The keys at the top, those of a parameter, and those of each section, under a heading each."""
    yield "## Top level\n"
    yield _table(("key", *COLUMNS), _rows(schema, schema["$defs"]))
    yield f"## A parameter of `space`\n\n{PARAMETER_NOTE}"
    yield _table(("key", *COLUMNS), _rows(schema["$defs"]["Parameter"]))
    for key, node in schema["properties"].items():
        name = _section_of(node)
        if name is not None and key != "second_objective":
            section = schema["$defs"][name]
            yield f"## `{key}`\n\n{_text(section)}\n"
            yield _table(("key", *COLUMNS), _rows(section))


def _settings() -> Iterator[str]:
    """The settings of the trainer, a table for each group."""
    nodes = TrainConfig.model_json_schema()["properties"]
    for group in GROUPS:
        yield f"### {' '.join((group.__doc__ or '').split()).rstrip('.')}\n"
        rows = [(f"`{key}`", *_cells(nodes[key]), _where(key)) for key in group.model_fields]
        header = ("setting", *COLUMNS, "where")
        yield _table(header, rows)


COLUMNS = ("type", "default", "range", "meaning")


def _rows(model: Node, sections: Node | None = None) -> list[tuple[str, ...]]:
    """A row for each key of a model; `sections`: the models that its keys may hold."""
    rows: list[tuple[str, ...]] = []
    for key, node in model["properties"].items():
        kind, default, limits, text = _cells(node, required=key in model.get("required", ()))
        name = _section_of(node)
        if name is not None and sections is not None:
            heading = "objective" if name == "Objective" else key
            kind = kind.replace("section", f"[section](#{heading})")
            text = text or _text(sections[name])
        rows.append((f"`{key}`", kind, default, limits, text))
    return rows


def _cells(node: Node, required: bool = False) -> tuple[str, ...]:
    """Type, default, range and meaning of one key."""
    default = "required" if required else _default(node)
    return _type(node), default, "; ".join(_limits(node)), _text(node)


def _where(key: str) -> str:
    """What a sweep may do with a setting of the trainer."""
    if key in OWNED:
        return "set by the sweep"
    fixed_only = key in UNSEARCHABLE or key.startswith("explosion_")
    return "`fixed`" if fixed_only else "`space`, `fixed`"


def _options(node: Node) -> list[Node]:
    """The alternatives of a node, or the node itself."""
    options: list[Node] = node.get("anyOf", [node])
    return options


def _section_of(node: Node) -> str | None:
    """Name of the model that a key holds; None if it holds a plain value."""
    found = [option["$ref"] for option in _options(node) if "$ref" in option]
    return str(found[0]).rpartition("/")[2] if found else None


def _type(node: Node) -> str:
    """The type in words."""
    return " or ".join(dict.fromkeys(_one_type(option) for option in _options(node)))


def _one_type(node: Node) -> str:
    if "$ref" in node:
        return "section"
    if "const" in node or "enum" in node:
        return ", ".join(f"`{_value(value)}`" for value in node.get("enum", [node.get("const")]))
    if "prefixItems" in node:
        return "list of " + ", ".join(TYPES[item["type"]] for item in node["prefixItems"])
    if node["type"] == "array":
        items = node["items"]
        return "list" if "anyOf" in items else f"list of {TYPES[items['type']]}"
    if node.get("format") == "path":
        return "path"
    return TYPES[node["type"]]


def _limits(node: Node) -> Iterator[str]:
    """The rules for a single value."""
    for option in _options(node):
        for keyword, words in LIMITS.items():
            if keyword in option:
                yield words.format(option[keyword])


def _default(node: Node) -> str:
    if _section_of(node) is not None:
        return "null" if node.get("default") is None else "see its section"
    return _value(node["default"]) if "default" in node else "none"


def _value(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _text(node: Node) -> str:
    return " ".join(str(node.get("description", "")).split())


def _table(headings: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown, with a blank line after it."""
    cells = [tuple(headings), *rows]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells]
    lines.insert(1, "|" + "---|" * len(cells[0]))
    return "\n".join(lines) + "\n"
