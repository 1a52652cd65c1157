"""Command-line flags from the fields of a config; what a value may be is checked by the config itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, make_dataclass
from typing import Annotated, Any

import tyro
from pydantic import BaseModel


def read_flags(
    model: type[BaseModel],
    arguments: Sequence[str],
    defaults: Mapping[str, Any],
    prog: str,
    description: str,
) -> dict[str, Any]:
    """The value of every field of `model`, from its flag or from `defaults`.

    Args:
        model: its fields' docstrings become the help.
        arguments: of the command line.
        defaults: a value for each field.
        prog: the command, for the help.
        description: stands above the help.

    Raises:
        SystemExit: with code 2 for an unknown flag or a value of another type, 0 after `--help`.
    """
    fields = [
        (
            name,
            Annotated[info.annotation, tyro.conf.arg(help=info.description)],
            field(default=defaults[name]),
        )
        for name, info in model.model_fields.items()
    ]
    flags: Any = make_dataclass("Flags", fields, frozen=True)
    found = tyro.cli(
        flags, args=arguments, prog=prog, description=description, use_underscores=True
    )
    return asdict(found)
