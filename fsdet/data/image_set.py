"""`ImageSet`: decoded images with boxes and support crops, memory-mapped and shared by all runs of a machine.

Every source (`openmoji`, `yolo`) fills one of these; what trains and what evaluates sees nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ImageSet:
    """Images of one split; all arrays may be memory maps."""

    images: Array
    """(N, S, S, 3) uint8 RGB."""
    offsets: Array
    """(N + 1,) int64: the objects of image i are `offsets[i]:offsets[i + 1]`."""
    boxes: Array
    """(M, 4) float32 xyxy in pixels."""
    labels: Array
    """(M,) int64 class."""
    supports: Array
    """(C, V, s, s, 3) uint8: V support crops of every class."""
    support_images: Array
    """(C, V) int64: the image a crop was cut from, -1 if from none of these."""

    @property
    def n_classes(self) -> int:
        """Number of classes, C."""
        return len(self.supports)

    def objects(self, image: int) -> tuple[Array, Array]:
        """Boxes (m, 4) and labels (m,) of one image."""
        span = slice(int(self.offsets[image]), int(self.offsets[image + 1]))
        return self.boxes[span], self.labels[span]

    @cached_property
    def images_of_class(self) -> list[Array]:
        """For every class the sorted indices of the images that show it."""
        image_of_object = np.repeat(np.arange(len(self.images)), np.diff(self.offsets))
        pairs = np.unique(np.stack([np.asarray(self.labels), image_of_object], axis=1), axis=0)
        bounds = np.searchsorted(pairs[:, 0], np.arange(self.n_classes + 1))
        return [pairs[bounds[c] : bounds[c + 1], 1] for c in range(self.n_classes)]

    @cached_property
    def usable_classes(self) -> Array:
        """Classes that at least one image shows."""
        return np.flatnonzero([len(images) > 0 for images in self.images_of_class])


def cache_root(cache_dir: Path | None) -> Path:
    """The folder of all caches: `cache_dir`, else $FSDET_CACHE, else ~/.cache/fsdet."""
    return cache_dir or Path(os.environ.get("FSDET_CACHE") or Path.home() / ".cache" / "fsdet")


def cached_image_set(
    root: Path, name: str, recipe: dict[str, Any], build: Callable[[], ImageSet]
) -> ImageSet:
    """The image set that `recipe` describes, built once per machine.

    Processes that ask at the same time wait for the one that builds. The set appears under its
    final name only when complete, so a killed builder leaves nothing that looks finished.

    Args:
        root: folder of all caches.
        name: readable first part of the entry's name.
        recipe: everything the content depends on; its hash is the second part.
        build: makes the set in memory.
    """
    text = json.dumps(recipe, sort_keys=True)
    folder = root / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            if not folder.exists():
                _write(build(), folder, text)
    return _read(folder)


def _write(image_set: ImageSet, folder: Path, recipe: str) -> None:
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for item in fields(ImageSet):
            np.save(part / f"{item.name}.npy", getattr(image_set, item.name))
        (part / "recipe.json").write_text(recipe, encoding="utf-8")
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read(folder: Path) -> ImageSet:
    large = ("images", "supports")
    return ImageSet(
        **{
            item.name: np.load(
                folder / f"{item.name}.npy", mmap_mode="r" if item.name in large else None
            )
            for item in fields(ImageSet)
        }
    )
