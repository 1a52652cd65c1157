"""Checks which images of a dataset can be used, by the rules of `fsdet.data.report`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fsdet.data.decoded import Decoded
from fsdet.data.image_set import Array
from fsdet.data.records import Dataset, Part, Record
from fsdet.data.report import Problems
from fsdet.errors import DataError

MOST_UNREADABLE = 0.5
"""Part of the images that may be unreadable or missing before the dataset is refused."""


def merge_shots(dataset: Dataset, decoded: Decoded) -> tuple[Dataset, Decoded]:
    """The same with one record for each image of the K-shot files, which holds the boxes of all of them.

    There is a K-shot file per class, so an image with instances of two classes stands in two of them.
    """
    kept: list[Record] = []
    rows: list[int] = []
    place: dict[tuple[int, tuple[int, ...]], int] = {}
    for record, row in zip(dataset.records, decoded.rows.tolist(), strict=True):
        if record.part == "shots" and row >= 0:
            key = row, record.extent or tuple(decoded.extents[row].tolist())
            if key in place:
                kept[place[key]] = _with_objects_of(kept[place[key]], record)
                continue
            place[key] = len(kept)
        kept.append(record)
        rows.append(row)
    merged = replace(dataset, records=tuple(kept))
    return merged, replace(decoded, rows=np.array(rows, np.int64))


def _with_objects_of(record: Record, other: Record) -> Record:
    boxes = np.concatenate([record.boxes, other.boxes])
    return replace(record, boxes=boxes, labels=np.concatenate([record.labels, other.labels]))


def usable_extents(dataset: Dataset, decoded: Decoded, problems: Problems) -> Array:
    """(N, 2) width and height of each record's image as it was; zeros where it is left out.

    Args:
        dataset: the records.
        decoded: their images.
        problems: takes what is wrong.

    Raises:
        DataError: more than half of the images cannot be read.
    """
    extents = np.where(decoded.rows[:, None] >= 0, decoded.extents[decoded.rows], 0)
    _count_lost(dataset, decoded, extents, problems)
    wanted = _is_wanted(dataset, decoded, extents, problems)
    return np.asarray(extents * wanted[:, None])


def _count_lost(dataset: Dataset, decoded: Decoded, extents: Array, problems: Problems) -> None:
    """Report pictures that could not be decoded.

    Raises:
        DataError: they are more than half.
    """
    lost = np.any(extents == 0, axis=1)
    videos = {r.picture.file for r, gone in zip(dataset.records, lost, strict=True) if not gone}
    broken = set()
    for number in np.flatnonzero(lost & (decoded.rows >= 0)):
        picture = dataset.records[number].picture
        if picture.frame is None:
            problems.add("image unreadable", dataset.place(picture.file))
        elif picture.file in videos:
            problems.add("frame beyond the end", dataset.place(picture.file))
        else:
            broken.add(picture.file)
    for file in sorted(broken):
        problems.add("video unreadable", dataset.place(file))
    never_read = dataset.problems.counts.get("image missing", 0)
    gone, total = int(lost.sum()) + never_read, len(lost) + never_read
    if gone > MOST_UNREADABLE * total or not total:
        report = "; ".join(map(str, problems.report()))
        raise DataError(
            f"{dataset.root}: {gone} of {total} images cannot be read, more than half; check data_root and copy the "
            f"images anew ({report})"
        )


def _is_wanted(dataset: Dataset, decoded: Decoded, extents: Array, problems: Problems) -> Array:
    """(N,) bool: not a second copy in its part, and of the size that the annotations give."""
    wanted = np.ones(len(dataset.records), bool)
    seen: dict[tuple[Part | None, int], int] = {}
    for number, record in enumerate(dataset.records):
        if not extents[number].all():
            continue
        place = dataset.place(record.picture.file)
        if record.extent is not None and record.extent != tuple(extents[number].tolist()):
            problems.add("image of another size", place)
            wanted[number] = False
        elif (_kind(record), int(decoded.rows[number])) in seen:
            problems.add("image twice", place)
            wanted[number] = False
        else:
            seen[_kind(record), int(decoded.rows[number])] = number
    both = {row for part, row in seen if part == "train"} & {r for p, r in seen if p == "eval"}
    for row in sorted(both):
        picture = dataset.records[seen["eval", row]].picture
        problems.add("image in both parts", dataset.place(picture.file))
    return wanted


def _kind(record: Record) -> Part | None:
    """Where a copy counts: in its part, and of a frame everywhere, since a video is divided only later."""
    return record.part if record.video is None else None
