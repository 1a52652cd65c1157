"""A progress bar for work that is only sometimes long."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

from fsdet.progress import progress

T = TypeVar("T")

MANY = 5000
"""Files that are looked at in about two seconds."""


def patiently(items: Collection[T], label: str) -> Iterable[T]:
    """Go through `items`, with a bar where they are many."""
    return progress(items, label) if len(items) > MANY else items
