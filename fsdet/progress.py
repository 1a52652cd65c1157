"""Progress bars on the terminal's error stream; one plain line where there is no terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Go through `items` with a bar named `label`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{label} …", highlight=False)
    yield from track(
        items, label, total=total, console=console, transient=True, disable=not console.is_terminal
    )


MANY = 5000
"""Files that are looked at in about two seconds."""


def patiently(items: Collection[T], label: str) -> Iterable[T]:
    """Go through `items`, with a bar where they are many."""
    return progress(items, label) if len(items) > MANY else items
