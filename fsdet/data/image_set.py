"""`ImageSet`: images with boxes and support crops, memory-mapped and shared by all runs of a machine.

Every source (`openmoji`, `yolo`, `coco`, `refdet`) is loaded as one of these; training and evaluation use nothing
else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fsdet.config import DataConfig
from fsdet.data.cache import CacheKey, cached

Array = np.ndarray[Any, np.dtype[Any]]

Split = Literal["train", "base", "val", "test", "shots"]
"""`train` and `base` show base classes (training and evaluation images), `val` and `test` novel ones (evaluation
images), `shots` the K annotated instances of each novel class that stage 3 learns from."""


@dataclass(frozen=True)
class ImageSet:
    """N images of one split; large arrays are memory maps."""

    images: Array
    """(R, S, S, 3) uint8 RGB; several sets may be views on one array, see `rows`."""
    offsets: Array
    """(N + 1,) int64: the objects of image i are `offsets[i]:offsets[i + 1]`."""
    boxes: Array
    """(M, 4) float32 xyxy in pixels."""
    labels: Array
    """(M,) int64 class."""
    supports: Array
    """(C, V, s, s, 3) uint8: V support crops of every class."""
    support_images: Array
    """(C, V) int64: the image of this set that a crop was cut from, -1 if from none of them."""
    support_counts: Array = None  # type: ignore[assignment]
    """(C,) int64: how many crops of a class are different; the others repeat them. Default: V."""
    rows: Array = None  # type: ignore[assignment]
    """(N,) int64: index of each image in `images`. Default: image i is `images[i]`."""
    groups: Array = None  # type: ignore[assignment]
    """(N,) int64: the video that an image is a frame of, as the class of its object; -1 for none. Images of a
    video are in temporal order. Default: -1."""
    names: tuple[str, ...] = ()
    """Name of each class; empty if they have none."""

    def __post_init__(self) -> None:
        classes, crops = self.support_images.shape
        defaults = {
            "support_counts": np.full(classes, crops),
            "rows": np.arange(len(self)),
            "groups": np.full(len(self), -1),
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_classes(self) -> int:
        """Number of classes, C."""
        return len(self.supports)

    def image(self, index: int) -> Array:
        """(S, S, 3) uint8 RGB."""
        return np.asarray(self.images[self.rows[index]])

    def objects(self, image: int) -> tuple[Array, Array]:
        """Boxes (m, 4) and labels (m,) of one image."""
        span = slice(int(self.offsets[image]), int(self.offsets[image + 1]))
        return self.boxes[span], self.labels[span]

    def origins(self, label: int) -> Array:
        """(n,): the image that each of the different crops of a class was cut from, -1 if from none."""
        return self.support_images[label, : self.support_counts[label]]

    def free_crops(self, label: int, queries: Array) -> Array:
        """The different crops of a class that were not cut from an image of `queries`."""
        return np.flatnonzero(~np.isin(self.origins(label), queries))

    @cached_property
    def images_of_class(self) -> list[Array]:
        """For every class the sorted indices of the images that show it."""
        image_of_object = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        pairs = np.unique(np.stack([np.asarray(self.labels), image_of_object], axis=1), axis=0)
        bounds = np.searchsorted(pairs[:, 0], np.arange(self.n_classes + 1))
        return [pairs[bounds[c] : bounds[c + 1], 1] for c in range(self.n_classes)]

    @cached_property
    def digest(self) -> str:
        """Hash of names, boxes and supports, independent of the location of the dataset.

        Only the middle row of each support crop is hashed, and no image, so that it takes less than a second.
        """
        digest = hashlib.sha256(repr((self.names, self.supports.shape)).encode())
        middle = self.supports[:, :, self.supports.shape[2] // 2]
        for array in (
            self.offsets,
            self.boxes,
            self.labels,
            self.groups,
            self.support_images,
            middle,
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @cached_property
    def usable_classes(self) -> Array:
        """Classes that an image shows for which there is a crop from elsewhere."""
        return np.flatnonzero([self._is_usable(label) for label in range(self.n_classes)])

    def _is_usable(self, label: int) -> bool:
        shown, origins = self.images_of_class[label], self.origins(label)
        if len(shown) > 1:
            return len(origins) > 0
        return len(shown) == 1 and bool((origins != shown[0]).any())


ARRAYS = ("images", "offsets", "boxes", "labels", "supports", "support_images")
"""What is stored of a set that has an entry of its own."""
LARGE = ("images", "supports")


def cached_image_set(
    config: DataConfig, key: CacheKey, names: tuple[str, ...], build: Callable[[], ImageSet]
) -> ImageSet:
    """The image set that `key` describes, built in memory once per machine.

    Args:
        config: where the cache is and what it may hold.
        key: everything the content depends on.
        names: of the classes.
        build: makes the set.

    Raises:
        DataError: it would not fit.
    """
    return replace(cached(config, key, lambda part: _write(build(), part), _read), names=names)


def _write(image_set: ImageSet, folder: Path) -> None:
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(image_set, name))


def _read(folder: Path) -> ImageSet:
    return ImageSet(
        **{
            name: np.load(folder / f"{name}.npy", mmap_mode="r" if name in LARGE else None)
            for name in ARRAYS
        }
    )
