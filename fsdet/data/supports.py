"""Support crops: the choice of K instances per class, and how they are cut."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from fsdet.config import DataConfig
from fsdet.data.cache import CacheKey, cached
from fsdet.data.cleaning import Objects
from fsdet.data.decoded import decode_images
from fsdet.data.image_set import Array
from fsdet.data.images import letterbox
from fsdet.data.records import ImageRef
from fsdet.progress import progress

MARGIN = 0.1
"""Context around a crop, as a part of its box on every side."""
SMALL = 16.0
"""Instances with a shorter side, in pixels, are used only if there are no others."""


@dataclass(frozen=True)
class Crop:
    """A support before it is cut."""

    name: str
    """Of the class."""
    image: ImageRef
    content: str
    """Fingerprint of the image's file."""
    box: tuple[float, ...] | None = None
    """(4,) xyxy in pixels of the image; None takes the whole image."""
    row: int = -1
    """Row of the decoded image; -1 for one that is no image of the dataset."""


@dataclass(frozen=True)
class Supports:
    """The crops of C classes; a class with fewer than V crops repeats them."""

    crops: Array
    """(C, V, s, s, 3) uint8 memory map."""
    rows: Array
    """(C, V) row of the decoded image that a crop was cut from, -1 for none."""
    counts: Array
    """(C,) number of different crops of a class."""
    unreadable: tuple[str, ...]
    """Files of crops that could not be decoded."""


def draw_instances(objects: Objects, label: int, count: int, seed: int, records: Array) -> Array:
    """Up to `count` instances of a class, the same for the same seed.

    Different images come first, and among them those that show the object larger than `SMALL`.

    Args:
        objects: of the whole dataset.
        label: the class.
        count: K.
        seed: of the draw.
        records: (N,) bool, the records to choose from.

    Returns:
        indices into `objects`, in the order they were drawn.
    """
    candidates = np.flatnonzero((objects.labels == label) & records[objects.records])
    order = np.random.default_rng((seed, label)).permutation(candidates)
    boxes = objects.boxes[order]
    small = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) < SMALL
    order = order[np.argsort(small, kind="stable")]
    again = np.ones(len(order), bool)
    again[np.unique(objects.records[order], return_index=True)[1]] = False
    return order[np.argsort(again, kind="stable")][:count]


def cut(image: Array, box: Array, size: int) -> Array:
    """The object with a little context, letterboxed to a square.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) xyxy in pixels inside the image.
        size: side of the crop in pixels.
    """
    margin = MARGIN * (box[2:] - box[:2])
    left, top = np.maximum(box[:2] - margin, 0).astype(int)
    right, bottom = np.ceil(np.minimum(box[2:] + margin, image.shape[1::-1])).astype(int)
    return letterbox(image[top:bottom, left:right], size)


def cut_supports(config: DataConfig, name: str, classes: list[list[Crop]]) -> Supports:
    """Cut the crops of each class, from the cache or into it; `supports.json` lists them.

    Args:
        config: `k_shot`, the most crops of a class, and `support_size`.
        name: of the split.
        classes: crops per class; those after the first K replace unreadable ones.

    Raises:
        DataError: they would not fit into the cache.
    """
    size = config.support_size
    contents = [[(c.content, c.image.frame, c.box) for c in crops] for crops in classes]
    content = {
        "source": "supports",
        "version": 2,
        "content": hashlib.sha256(repr(contents).encode()).hexdigest(),
        "k_shot": config.k_shot,
        "support_size": size,
    }
    n_bytes = len(classes) * config.k_shot * (3 * size**2 + 8)
    key = CacheKey(f"supports-{config.dataset}-{name}", content, n_bytes)
    build = partial(_build, classes=classes, most=config.k_shot, size=size)
    crops, positions, counts, unreadable = cached(config, key, build, _load)
    rows = np.full(positions.shape, -1)
    for label, chosen in enumerate(positions):
        if counts[label]:
            rows[label] = [classes[label][position].row for position in chosen]
    return Supports(crops, rows, counts, unreadable)


def _load(folder: Path) -> tuple[Array, Array, Array, tuple[str, ...]]:
    record = json.loads((folder / "supports.json").read_text(encoding="utf-8"))
    crops = np.load(folder / "supports.npy", mmap_mode="r")
    positions, counts = (np.load(folder / f"{n}.npy") for n in ("positions", "counts"))
    return crops, positions, counts, tuple(record["unreadable"])


def _build(folder: Path, classes: list[list[Crop]], most: int, size: int) -> None:
    """Cut all crops, image by image."""
    shape = (len(classes), most, size, size, 3)
    crops = open_memmap(folder / "supports.npy", "w+", np.uint8, shape)
    positions = np.zeros((len(classes), most), np.int64)
    counts = np.zeros(len(classes), np.int64)
    listed = []
    unreadable = []
    for label, chosen in enumerate(progress(classes, "cutting supports")):
        for position, crop in enumerate(chosen):
            if counts[label] == most:
                break
            image = next(iter(decode_images([crop.image])))
            if image is None:
                unreadable.append(str(crop.image.file))
                continue
            whole = (0, 0, image.shape[1], image.shape[0])
            box = np.array(crop.box or whole, np.float32)
            crops[label, counts[label]] = cut(image, box, size)
            positions[label, counts[label]] = position
            counts[label] += 1
            file, frame = str(crop.image.file), crop.image.frame
            listed.append({"class": crop.name, "file": file, "frame": frame, "box": crop.box})
        if counts[label]:
            repeats = np.arange(most) % counts[label]
            crops[label], positions[label] = crops[label][repeats], positions[label][repeats]
    np.save(folder / "positions.npy", positions)
    np.save(folder / "counts.npy", counts)
    record = {"supports": listed, "unreadable": unreadable}
    (folder / "supports.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
