"""The keys of a sweep's YAML: `python -m sweeps.schema` prints them as JSON schema, `--markdown` as a page to read.

    python -m sweeps.schema > search_spaces/schema.json
    python -m sweeps.schema --markdown > docs/yaml_reference.md

An editor with the YAML language server reads it from the first line of a file,
`# yaml-language-server: $schema=schema.json`. It covers every key and every setting of the trainer; the
rules that need more than one value are in `sweeps.config.rules`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from fsdet.command import ExitCode, FlagParser, run_command
from fsdet.config import TrainConfig
from sweeps.config import OWNED, SweepSpec
from sweeps.config.reference import to_markdown
from sweeps.config.rules import UNSEARCHABLE

SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def build_schema() -> dict[str, Any]:
    """The schema as plain values."""
    schema = SweepSpec.model_json_schema()
    settings = TrainConfig.model_json_schema()["properties"]
    fixable = [key for key in settings if key not in OWNED]
    searchable = [
        key for key in fixable if key not in UNSEARCHABLE and not key.startswith("explosion_")
    ]
    parts, parameter = schema["properties"], schema["$defs"]["Parameter"]["properties"]
    parts["space"].update(
        _closed((key, _searched(settings[key])) for key in searchable), minProperties=1
    )
    parts["fixed"].update(_closed((key, settings[key]) for key in fixable))
    parts["baselines"]["additionalProperties"] = {
        "type": "object",
        **_closed((key, settings[key]) for key in searchable),
    }
    parameter["when"]["propertyNames"] = {"enum": fixable}
    parameter["tie"] = {"enum": searchable, "description": parameter["tie"]["description"]}
    plain: dict[str, Any] = _plain({"$schema": SCHEMA, **schema})
    return plain


def _closed(properties: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping with these keys and no others."""
    return {"properties": dict(properties), "additionalProperties": False}


def _searched(setting: dict[str, Any]) -> dict[str, Any]:
    """A parameter whose choices are values of `setting`."""
    values = {key: value for key, value in setting.items() if key not in ("title", "default")}
    described = {"description": values.pop("description", "")}
    choices = {"choices": {"items": values}}
    return {**described, "allOf": [{"$ref": "#/$defs/Parameter"}], "properties": choices}


def _plain(node: Any) -> Any:
    """Descriptions on one line, and no titles: they repeat the keys."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key == "description" and isinstance(value, str):
            out[key] = " ".join(value.split())
        elif not (key == "title" and isinstance(value, str)):
            out[key] = _plain(value)
    return out


def to_text() -> str:
    """The schema as text."""
    return json.dumps(build_schema(), indent=1, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_command(lambda: run(arguments))


def run(arguments: Sequence[str] | None) -> ExitCode:
    """Print the schema or the reference."""
    parser = FlagParser(
        "python -m sweeps.schema",
        description="Print every key of a sweep's YAML with its type, default, range and meaning.",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the reference in docs/, not the JSON schema"
    )
    options = parser.parse_args(arguments)
    sys.stdout.write(to_markdown() if options.markdown else to_text())
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
