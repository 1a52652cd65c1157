"""Progress bars on the terminal's error stream; one plain line without a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` with a bar named `label`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{label} …", highlight=False)
    yield from track(
        items, label, total=total, console=console, transient=True, disable=not console.is_terminal
    )


MIN_FOR_BAR = 5000
"""Fewer items than this take less than about two seconds."""


def progress_if_many(items: Collection[T], label: str) -> Iterable[T]:
    """Iterate over `items`, with a bar if they are many."""
    return progress(items, label) if len(items) > MIN_FOR_BAR else items
