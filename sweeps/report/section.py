"""The parts of a report: sections with one sentence each, their figures and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go


@dataclass(frozen=True)
class Figure:
    """One figure, in the page and as a picture."""

    key: str
    """Its id in the page and the name of its picture."""
    plot: go.Figure
    alt: str
    """What it shows, for readers who cannot see it."""
    height: int = 380
    """Pixels."""
    half: bool = False
    """Whether two of its kind stand side by side where the page is wide enough."""


@dataclass(frozen=True)
class Picture:
    """A picture that stands in the page itself."""

    source: str
    """A `data:` address."""
    alt: str
    """What it shows, for readers who cannot see it."""


@dataclass(frozen=True)
class Rows:
    """A table of text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[Literal["good", "bad", ""], ...] = ()
    """One for each row: how its last cell is coloured."""


@dataclass(frozen=True)
class SortableTable:
    """A table that is paged and sorted in the page."""

    columns: tuple[tuple[str, Literal["number", "text"]], ...]
    """Heading and kind."""
    rows: tuple[tuple[Any, ...], ...]
    """A number, a text, or None in each cell."""
    classes: tuple[str, ...]
    """State of each row, by which it is coloured."""


@dataclass(frozen=True)
class Section:
    """One question that the report answers."""

    key: str
    """Its id in the page."""
    title: str
    sentence: str
    """The answer, computed from the data."""
    figures: tuple[Figure, ...] = ()
    caption: str = ""
    """How to read the figures."""
    picture: Picture | None = None
    points: tuple[str, ...] = ()
    """Further findings."""
    table: Rows | SortableTable | None = None
    commands: tuple[tuple[str, str], ...] = ()
    """What to type, and what for."""
    warnings: tuple[str, ...] = ()
