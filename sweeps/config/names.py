"""Names of sweeps and experiments: they become folders, so that they follow one pattern."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
LONGEST = 100
"""Characters: a file system allows 255 bytes, and numbers and suffixes are added."""
RULE = (
    f"must be 1 to {LONGEST} letters, digits, '_', '.' or '-' of ASCII, and begin with a letter or digit, "
    "since it is the name of a folder"
)
SHOWN = 80
"""Characters of a wrong name that a message repeats."""


def checked_name(name: str) -> str:
    """`name`, if it follows the pattern.

    Raises:
        ValueError: it does not.
    """
    if len(name) > LONGEST or not re.fullmatch(PATTERN.rstrip("$"), name):
        shown = name if len(name) <= SHOWN else f"{name[:SHOWN]}…"
        raise ValueError(f"{RULE}, but got {shown!r}; choose another one")
    return name


Name: TypeAlias = Annotated[
    str,
    AfterValidator(checked_name),
    Field(json_schema_extra={"pattern": PATTERN, "maxLength": LONGEST}),
]
"""A name in a YAML."""
