"""Decides which images and boxes of a dataset can be used, by the rules of `fsdet.data.problems`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fsdet.data.decoded import Decoded
from fsdet.data.image_set import Array
from fsdet.data.problems import Problems
from fsdet.data.records import Dataset, Record, Subset
from fsdet.errors import DataError

MIN_SIDE = 1.0
"""Least width and height of a box, in pixels of the original image."""
SLACK = 1.0
"""Pixels that a box may extend beyond the image without being counted, because of rounding."""


@dataclass(frozen=True)
class Objects:
    """The annotated objects that can be used, ordered by record."""

    records: Array
    """(M,) number of the record of each object."""
    boxes: Array
    """(M, 4) float32 xyxy in pixels of the original image, inside it."""
    labels: Array
    """(M,) class."""

    def select(self, chosen: Any) -> Objects:
        """The objects of a mask or of indices."""
        return Objects(self.records[chosen], self.boxes[chosen], self.labels[chosen])


def usable_objects(dataset: Dataset, original_sizes: Array, problems: Problems) -> Objects:
    """All objects of the records that have an image, cut at its border.

    Args:
        dataset: the records.
        original_sizes: (N, 2) width and height of each record's image, zeros where it is lost.
        problems: problems found are added here.
    """
    counts = [len(record.labels) for record in dataset.records]
    found = Objects(
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([NO_BOXES, *(record.boxes for record in dataset.records)]),
        np.concatenate([NO_LABELS, *(record.labels for record in dataset.records)]),
    )
    found = found.select(np.all(original_sizes[found.records], axis=1))

    def refuse(objects: Objects, broken: Any, kind: str) -> Objects:
        _count(dataset, objects.records[broken], kind, problems)
        return objects.select(~broken)

    unknown = (found.labels < 0) | (found.labels >= len(dataset.names))
    found = refuse(found, unknown, "class unknown")
    found = refuse(found, np.any(~np.isfinite(found.boxes), axis=1), "box not finite")
    borders = np.tile(original_sizes[found.records], 2).astype(np.float64)
    boxes = found.boxes * borders if dataset.fractions else found.boxes
    found = Objects(found.records, boxes, found.labels)
    empty = np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)
    beyond = np.any((boxes[:, 2:] <= 0) | (boxes[:, :2] >= borders[:, :2]), axis=1)
    found = refuse(found, beyond & ~empty, "box outside")
    borders = borders[~(beyond & ~empty)]
    across = np.any((found.boxes < -SLACK) | (found.boxes > borders + SLACK), axis=1)
    cut = np.clip(found.boxes, 0, borders).astype(np.float32)
    found = Objects(found.records, cut, found.labels)
    tiny = np.any(cut[:, 2:] - cut[:, :2] < MIN_SIDE, axis=1)
    _count(dataset, found.records[across & ~tiny], "box across the border", problems)
    return refuse(found, tiny, "box without area")


NO_BOXES = np.zeros((0, 4))
NO_LABELS = np.zeros(0, np.int64)


def _count(dataset: Dataset, records: Array, kind: str, problems: Problems) -> None:
    for record, count in zip(*np.unique(records, return_counts=True), strict=True):
        problems.add(kind, dataset.place(dataset.records[record].image.file), int(count))


MAX_UNREADABLE = 0.5
"""Fraction of the images that may be unreadable or missing before the dataset is refused."""


def merge_shots(dataset: Dataset, decoded: Decoded) -> tuple[Dataset, Decoded]:
    """Merge the records of one image in several K-shot files into one with all boxes.

    There is a K-shot file per class, so an image with instances of two classes is in two of them.
    """
    records: list[Record] = []
    rows: list[int] = []
    place: dict[tuple[int, tuple[int, ...]], int] = {}
    for record, row in zip(dataset.records, decoded.rows.tolist(), strict=True):
        if record.subset == "shots" and row >= 0:
            key = row, record.original_size or tuple(decoded.original_sizes[row].tolist())
            if key in place:
                records[place[key]] = _with_objects_of(records[place[key]], record)
                continue
            place[key] = len(records)
        records.append(record)
        rows.append(row)
    merged = replace(dataset, records=tuple(records))
    return merged, replace(decoded, rows=np.array(rows, np.int64))


def _with_objects_of(record: Record, other: Record) -> Record:
    boxes = np.concatenate([record.boxes, other.boxes])
    return replace(record, boxes=boxes, labels=np.concatenate([record.labels, other.labels]))


def usable_image_sizes(dataset: Dataset, decoded: Decoded, problems: Problems) -> Array:
    """(N, 2) original width and height of each record's image; zeros if it is left out.

    Args:
        dataset: the records.
        decoded: their images.
        problems: problems found are added here.

    Raises:
        DataError: more than half of the images cannot be read.
    """
    original_sizes = np.where(decoded.rows[:, None] >= 0, decoded.original_sizes[decoded.rows], 0)
    _count_lost(dataset, decoded, original_sizes, problems)
    usable = _is_usable(dataset, decoded, original_sizes, problems)
    return np.asarray(original_sizes * usable[:, None])


def _count_lost(
    dataset: Dataset, decoded: Decoded, original_sizes: Array, problems: Problems
) -> None:
    """Report images that could not be decoded.

    Raises:
        DataError: they are more than half.
    """
    lost = np.any(original_sizes == 0, axis=1)
    videos = {r.image.file for r, gone in zip(dataset.records, lost, strict=True) if not gone}
    broken = set()
    for number in np.flatnonzero(lost & (decoded.rows >= 0)):
        image = dataset.records[number].image
        if image.frame is None:
            problems.add("image unreadable", dataset.place(image.file))
        elif image.file in videos:
            problems.add("frame beyond the end", dataset.place(image.file))
        else:
            broken.add(image.file)
    for file in sorted(broken):
        problems.add("video unreadable", dataset.place(file))
    never_read = dataset.problems.counts.get("image missing", 0)
    gone, total = int(lost.sum()) + never_read, len(lost) + never_read
    if gone > MAX_UNREADABLE * total or not total:
        report = "; ".join(map(str, problems.report()))
        raise DataError(
            f"{dataset.root}: {gone} of {total} images cannot be read, more than half; check data_root and copy the "
            f"images again ({report})"
        )


def _is_usable(
    dataset: Dataset, decoded: Decoded, original_sizes: Array, problems: Problems
) -> Array:
    """(N,) bool: not a second copy in its subset, and of the annotated size."""
    usable = np.ones(len(dataset.records), bool)
    seen: dict[tuple[Subset | None, int], int] = {}
    for number, record in enumerate(dataset.records):
        if not original_sizes[number].all():
            continue
        place = dataset.place(record.image.file)
        if record.original_size is not None and record.original_size != tuple(
            original_sizes[number].tolist()
        ):
            problems.add("image of another size", place)
            usable[number] = False
        elif (_duplicate_scope(record), int(decoded.rows[number])) in seen:
            problems.add("image twice", place)
            usable[number] = False
        else:
            seen[_duplicate_scope(record), int(decoded.rows[number])] = number
    both = {row for subset, row in seen if subset == "train"} & {
        row for subset, row in seen if subset == "eval"
    }
    for row in sorted(both):
        image = dataset.records[seen["eval", row]].image
        problems.add("image in both parts", dataset.place(image.file))
    return usable


def _duplicate_scope(record: Record) -> Subset | None:
    """The subset in which copies are looked for: for a frame everywhere, since videos are divided later."""
    return record.subset if record.video is None else None
