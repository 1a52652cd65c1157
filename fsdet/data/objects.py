"""Checks annotated boxes against their images, by the rules of `fsdet.data.report`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fsdet.data.image_set import Array
from fsdet.data.records import Dataset
from fsdet.data.report import Problems

SMALLEST = 1.0
"""Pixels that a box must be wide and high, in the image as it was."""
SLACK = 1.0
"""Pixels that a box may reach beyond the image without being counted; rounding does that."""


@dataclass(frozen=True)
class Objects:
    """The annotated objects that can be used, ordered by record."""

    records: Array
    """(M,) number of the record an object lies in."""
    boxes: Array
    """(M, 4) float32 xyxy in pixels of the image as it was, inside it."""
    labels: Array
    """(M,) class."""

    def subset(self, chosen: Any) -> Objects:
        """The objects of a mask or of indices."""
        return Objects(self.records[chosen], self.boxes[chosen], self.labels[chosen])


def usable_objects(dataset: Dataset, extents: Array, problems: Problems) -> Objects:
    """All objects of the records that have an image, cut at its border.

    Args:
        dataset: the records.
        extents: (N, 2) width and height of each record's image, zeros where it is lost.
        problems: takes what is wrong.
    """
    counts = [len(record.labels) for record in dataset.records]
    found = Objects(
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([NO_BOXES, *(record.boxes for record in dataset.records)]),
        np.concatenate([NO_LABELS, *(record.labels for record in dataset.records)]),
    )
    found = found.subset(np.all(extents[found.records], axis=1))

    def refuse(objects: Objects, broken: Any, kind: str) -> Objects:
        _count(dataset, objects.records[broken], kind, problems)
        return objects.subset(~broken)

    unknown = (found.labels < 0) | (found.labels >= len(dataset.names))
    found = refuse(found, unknown, "class unknown")
    found = refuse(found, np.any(~np.isfinite(found.boxes), axis=1), "box not finite")
    borders = np.tile(extents[found.records], 2).astype(np.float64)
    boxes = found.boxes * borders if dataset.fractions else found.boxes
    found = Objects(found.records, boxes, found.labels)
    empty = np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)
    beyond = np.any((boxes[:, 2:] <= 0) | (boxes[:, :2] >= borders[:, :2]), axis=1)
    found = refuse(found, beyond & ~empty, "box outside")
    borders = borders[~(beyond & ~empty)]
    across = np.any((found.boxes < -SLACK) | (found.boxes > borders + SLACK), axis=1)
    cut = np.clip(found.boxes, 0, borders).astype(np.float32)
    found = Objects(found.records, cut, found.labels)
    tiny = np.any(cut[:, 2:] - cut[:, :2] < SMALLEST, axis=1)
    _count(dataset, found.records[across & ~tiny], "box across the border", problems)
    return refuse(found, tiny, "box without area")


NO_BOXES = np.zeros((0, 4))
NO_LABELS = np.zeros(0, np.int64)


def _count(dataset: Dataset, records: Array, kind: str, problems: Problems) -> None:
    for record, count in zip(*np.unique(records, return_counts=True), strict=True):
        problems.add(kind, dataset.place(dataset.records[record].picture.file), int(count))
