"""The problems of a dataset: every kind with its rule, its count and the first files.

Broken data must neither stop a run late nor pass unnoticed: each kind of problem has one rule (`RULES`), is counted,
and is reported once. A dataset is refused (`DataError`) if it does not exist, if more than half of its images cannot be
read, or if its splits have too few classes for an episode.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

log = logging.getLogger("fsdet.data")

RULES = {
    "image missing": "left out; the annotations name a file that does not exist",
    "image unreadable": "left out with its objects; the file is truncated, not an image, or larger than 65 megapixels",
    "image of another size": "left out with its objects; the annotations have another width or height",
    "image twice": "the later copy is left out; same content in the same part of the data, or a copy of a video",
    "image id twice": "left out, all of them; their annotations are ambiguous",
    "image in both parts": "used in both; evaluation then uses training images",
    "label file without image": "ignored",
    "label file missing": "used as an image without objects",
    "label file empty": "used as an image without objects",
    "label line malformed": "line left out; neither 'class cx cy w h' nor 'class x1 y1 x2 y2 x3 y3 …'",
    "annotation malformed": "object left out; fields are missing or of the wrong type",
    "crowd": "object left out; it marks a region with many objects (iscrowd 1)",
    "class unknown": "object left out; its class has no name",
    "box not finite": "object left out; a coordinate is NaN or infinite",
    "box outside": "object left out; it is entirely outside the image",
    "box without area": "object left out; less than a pixel wide or high inside the image",
    "box across the border": "cut at the border; it extended more than a pixel beyond",
    "class without instance": "left out of all splits",
    "class with fewer than K instances": "used with the instances it has; its crops repeat",
    "video missing": "its annotations are left out",
    "video unreadable": "left out",
    "video without annotation": "left out",
    "video without object images": "left out; it has no supports",
    "object image unreadable": "left out",
    "frame beyond the end": "left out; the video is shorter than its annotations",
}
"""Kind of problem -> the rule for it."""

SHOWN = 3
"""Number of files or classes listed per problem."""


@dataclass(frozen=True)
class Problem:
    """One kind of problem."""

    kind: str
    """A key of `RULES`."""
    count: int
    places: tuple[str, ...]
    """The first files or classes with it."""

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.places) else ""
        return f"{self.kind}: {self.count} ({', '.join(self.places)}{more}): {RULES[self.kind]}"


@dataclass
class Problems:
    """Counts problems while a dataset is read."""

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, place: object, count: int = 1) -> None:
        """Count a problem of `kind`, a key of `RULES`, in a file or class."""
        self.counts[kind] = self.counts.get(kind, 0) + count
        listed = self.places.setdefault(kind, [])
        if len(listed) < SHOWN and str(place) not in listed:
            listed.append(str(place))

    def copy(self) -> Problems:
        """A copy that can be added to."""
        return Problems(dict(self.counts), {kind: list(p) for kind, p in self.places.items()})

    def report(self) -> tuple[Problem, ...]:
        """All problems so far, in the order of `RULES`."""
        return tuple(
            Problem(kind, self.counts[kind], tuple(self.places[kind]))
            for kind in RULES
            if kind in self.counts
        )


def log_report(name: str, problems: tuple[Problem, ...]) -> None:
    """Log all problems in one warning, if there are any."""
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        log.warning("%s: problems in the data, and how they are handled:\n%s", name, lines)
