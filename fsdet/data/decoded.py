"""All images of a dataset, each decoded and letterboxed once per size, in one memory map.

The map is keyed by the content of the files, so every split, K, seed and trial of a machine shares it, and neither
moving the dataset nor changing its annotations decodes anything again. Files of the same content share a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from fsdet.config import DataConfig
from fsdet.data.cache import CacheKey, cache_root, cached
from fsdet.data.fingerprint import FingerprintCache
from fsdet.data.image_set import Array
from fsdet.data.images import UnreadableError, letterbox, open_image, read_frames
from fsdet.data.problems import Problems
from fsdet.data.records import Dataset, ImageRef
from fsdet.progress import progress, progress_if_many

CHUNK = 16
"""Image files that one task decodes."""


@dataclass(frozen=True)
class Decoded:
    """The decoded images of a dataset."""

    images: Array
    """(R, S, S, 3) uint8 RGB memory map; zeros if an image could not be decoded."""
    original_sizes: Array
    """(R, 2) width and height of the original image; zeros if it could not be decoded."""
    rows: Array
    """(N,) row of each record; -1 if its file is missing."""
    contents: tuple[tuple[str, int | None], ...]
    """Fingerprint and frame of each row."""


def decode(config: DataConfig, dataset: Dataset, problems: Problems) -> Decoded:
    """The decoded images, from the cache or built into it.

    Raises:
        DataError: they would not fit, or a file may not be read.
    """
    digests = fingerprints(config, dataset, problems)
    contents = [
        (digests[record.image.file], record.image.frame)
        for record in dataset.records
        if record.image.file in digests
    ]
    ordered = sorted(set(contents), key=lambda content: (content[0], content[1] or 0))
    row_of = {content: row for row, content in enumerate(ordered)}
    rows = np.full(len(dataset.records), -1)
    refs: dict[int, ImageRef] = {}
    for number, record in enumerate(dataset.records):
        if record.image.file in digests:
            rows[number] = row_of[digests[record.image.file], record.image.frame]
            refs.setdefault(int(rows[number]), record.image)
    size = config.image_size
    content = {
        "source": "decoded",
        "version": 2,
        "count": len(ordered),
        "content": hashlib.sha256(repr(ordered).encode()).hexdigest(),
        "image_size": size,
    }
    key = CacheKey(f"images-{config.dataset}", content, len(ordered) * (3 * size**2 + 16))
    build = partial(_build, refs=refs, size=size, workers=config.num_workers)
    images, original_sizes = cached(config, key, build, _load)
    return Decoded(images, original_sizes, rows, tuple(ordered))


def fingerprints(config: DataConfig, dataset: Dataset, problems: Problems) -> dict[Path, str]:
    """File -> fingerprint of its content; missing files are reported and left out."""
    digest_cache = FingerprintCache(cache_root(config.cache_dir), dataset.root)
    digests = {}
    files = {record.image.file: record.image.frame is not None for record in dataset.records}
    for file, video in progress_if_many(files.items(), "checking files"):
        try:
            digests[file] = digest_cache.digest(file, video)
        except FileNotFoundError:
            problems.add("image missing", dataset.place(file))
        except OSError:
            problems.add("image unreadable", dataset.place(file))
    digest_cache.save()
    return digests


def _load(folder: Path) -> tuple[Array, Array]:
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "extents.npy")


def _build(folder: Path, refs: dict[int, ImageRef], size: int, workers: int) -> None:
    """Decode all refs row by row; only one chunk of the map is held at a time."""
    file = folder / "images.npy"
    if refs:
        images = open_memmap(file, "w+", np.uint8, (len(refs), size, size, 3))
        _reserve(file)
        del images
    else:
        np.save(file, np.zeros((0, size, size, 3), np.uint8))
    original_sizes = np.zeros((len(refs), 2), np.int64)
    tasks = list(_tasks(refs))
    work = partial(decode_rows, file=file, size=size)
    for part in progress(_run(work, tasks, workers), "decoding images", total=len(tasks)):
        for row, width, height in part:
            original_sizes[row] = width, height
    np.save(folder / "extents.npy", original_sizes)


def _reserve(file: Path) -> None:
    """Allocate the disk space now: writing to a memory map on a full disk kills the process."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with file.open("rb+") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


Task = list[tuple[int, ImageRef]]


def _tasks(refs: dict[int, ImageRef]) -> Iterator[Task]:
    """Rows in tasks of a few image files, or of the rising frames of one video."""
    images = [item for item in refs.items() if item[1].frame is None]
    yield from (images[first : first + CHUNK] for first in range(0, len(images), CHUNK))
    frames = [item for item in refs.items() if item[1].frame is not None]
    ordered = sorted(frames, key=lambda item: (str(item[1].file), item[1].frame))
    for _, video in groupby(ordered, key=lambda item: item[1].file):
        yield list(video)


def _run(
    work: partial[list[tuple[int, int, int]]], tasks: list[Task], workers: int
) -> Iterable[list[tuple[int, int, int]]]:
    if not workers:
        yield from map(work, tasks)
        return
    # spawn: the parent may hold threads of torch or Ray, which a fork would leave locked
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, tasks)


def decode_rows(task: Task, file: Path, size: int) -> list[tuple[int, int, int]]:
    """Write the rows of one task; returns row, width and height of those that could be decoded."""
    images = np.load(file, mmap_mode="r+")
    written = []
    for (row, _), image in zip(task, decode_images([p for _, p in task]), strict=True):
        if image is not None:
            images[row] = letterbox(image, size)
            written.append((row, image.shape[1], image.shape[0]))
    return written


def decode_images(refs: list[ImageRef]) -> Iterator[Array | None]:
    """Each image as (H, W, 3) uint8 RGB, None for one that cannot be decoded.

    Args:
        refs: images, or rising frames; frames of one video are neighbours.
    """
    for (file, video), group in groupby(refs, key=lambda p: (p.file, p.frame is not None)):
        if video:
            yield from read_frames(file, [p.frame for p in group if p.frame is not None])
            continue
        for _ in group:
            try:
                yield open_image(file)
            except UnreadableError:
                yield None
