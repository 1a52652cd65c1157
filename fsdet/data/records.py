"""The result of reading a dataset, the same for every format: all annotations, no decoded images.

The readers are `yolo`, `coco` and `refdet`; `annotated` builds image sets from their records.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fsdet.data.image_set import Array
from fsdet.data.problems import Problems
from fsdet.errors import DataError

Subset = Literal["train", "eval", "shots"]
"""Subset of the data that an image belongs to; `shots` are the images of K-shot files."""


class ImageRef(NamedTuple):
    """An image file, or one frame of a video."""

    file: Path
    frame: int | None = None


@dataclass(frozen=True)
class Record:
    """One annotated image."""

    image: ImageRef
    subset: Subset
    boxes: Array
    """(m, 4) float64 xyxy, in pixels or as fractions of the image (see `Dataset`), not checked."""
    labels: Array
    """(m,) int64 index of a class name."""
    video: int | None = None
    """The video's class, for a frame."""
    subset_if_novel: Subset | None = None
    """The subset of a frame if its class is novel, see `divide_videos`."""
    original_size: tuple[int, int] | None = None
    """Width and height in pixels according to the annotations."""


@dataclass(frozen=True)
class Dataset:
    """All records of a dataset; the frames of a video are consecutive and in temporal order."""

    root: Path
    names: tuple[str, ...]
    """Name of each class."""
    records: tuple[Record, ...]
    fractions: bool = False
    """Boxes are given as fractions of the image's width and height instead of pixels."""
    object_images: Mapping[int, tuple[Path, ...]] = field(default_factory=dict)
    """Class -> photos of its object that serve as supports instead of crops."""
    problems: Problems = field(default_factory=Problems)
    """Problems found so far."""

    def images_per_class(self) -> list[int]:
        """For each class the number of images that show it according to the annotations."""
        shown = [np.unique(record.labels) for record in self.records]
        labels = np.concatenate([*shown, np.zeros(0, np.int64)])
        known = labels[(labels >= 0) & (labels < len(self.names))]
        return [int(count) for count in np.bincount(known, minlength=len(self.names))]

    def require_labels(self) -> None:
        """Refuse a dataset without a single box.

        Raises:
            DataError: it has none.
        """
        if not any(len(record.labels) for record in self.records):
            raise DataError(
                f"no labels in {self.root}: {len(self.records)} images, 0 boxes; check that the annotations "
                "are where the format has them (YOLO: labels/ next to images/) and are not empty"
            )

    def place(self, file: Path) -> str:
        """The name of a file in the report of problems."""
        return str(file.relative_to(self.root)) if file.is_relative_to(self.root) else str(file)


def divide_videos(dataset: Dataset, novel: Collection[int]) -> Dataset:
    """The dataset with the frames of novel videos moved to `subset_if_novel`."""
    records = (
        replace(r, subset=r.subset_if_novel, subset_if_novel=None)
        if r.subset_if_novel is not None and r.video in novel
        else r
        for r in dataset.records
    )
    return replace(dataset, records=tuple(records))
