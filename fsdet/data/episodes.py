"""Draws episodes (stages 2 and 3, evaluation) or plain batches (stage 1) from an `ImageSet`.

Every draw is a function of (seed, index) alone: a resumed run needs only its step, evaluation
episodes are the same for every run, and on a GPU `BatchLoader` can build the next batch while the device works.

No support crop of an episode was cut from one of its query images. If a draw leaves a class without other crops, the
queries are drawn again with an image per class reserved for its crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from fsdet.config import DataConfig
from fsdet.data.image_set import Array, ImageSet
from fsdet.data.images import mirror
from fsdet.errors import DataError
from fsdet.structures import Batch, Targets

EMPTY_QUERIES = 0.1
"""Fraction of the query images that show none of the episode's classes."""
BASE_CROPS = 48
"""Support crops of random base classes in a batch of stage 1."""
MAX_REDRAWS = 100
"""Number of redraws of an episode before its image set is refused."""
EVAL_SEED = 20_000
"""Seed of all evaluation episodes, different from those of training."""
NONE = np.empty(0, np.int64)


class EpisodeSource:
    """Episodes of one image set.

    Args:
        image_set: where images and supports come from.
        config: `n_way`, `n_query` and `n_shot`.
        seed: of all episodes of this source.
        augment: mirror images at random (training).
        channels_last: leave pixels in memory as they are decoded; a GPU reads them so, and the host need not sort them.
    """

    def __init__(
        self,
        image_set: ImageSet,
        config: DataConfig,
        seed: int,
        augment: bool,
        channels_last: bool = False,
    ) -> None:
        self.image_set = image_set
        self.channels_last = channels_last
        self.n_way, self.n_query, self.n_shot = config.n_way, config.n_query, config.n_shot
        self.seed = seed
        self.augment = augment

    def batch(self, first: int, count: int) -> Batch:
        """Episodes `first` to `first + count` as one batch."""
        return _concatenate([self.episode(index) for index in range(first, first + count)])

    def episode(self, index: int) -> Batch:
        """One episode; the same index gives the same episode."""
        rng = np.random.default_rng((self.seed, index))
        classes = rng.choice(self.image_set.usable_classes, self.n_way, replace=False)
        images = self._queries(rng, classes)
        if not self._has_crops(classes, images):
            classes, images = self._redraw(rng, classes)
        variants = np.stack([self._variants(rng, label, images) for label in classes])
        crops = SupportCrops(classes[:, None], variants)
        chance = rng if self.augment else None
        return _episode_batch(self.image_set, images, classes, crops, chance, self.channels_last)

    def _queries(self, rng: np.random.Generator, classes: Array, reserved: Array = NONE) -> Array:
        """(n_way * n_query,): images that show each class, a few of them replaced by images of none of the classes."""
        return np.concatenate(
            [self._queries_of(rng, label, classes, reserved) for label in classes]
        )

    def _queries_of(
        self, rng: np.random.Generator, label: int, classes: Array, reserved: Array
    ) -> Array:
        shown = self.image_set.images_of_class[label]
        shown = shown[~np.isin(shown, reserved)] if len(reserved) else shown
        chosen = rng.choice(shown, self.n_query, replace=len(shown) < self.n_query)
        for position in np.flatnonzero(rng.random(self.n_query) < EMPTY_QUERIES):
            empty = self._image_without(rng, classes)
            if empty is not None and empty not in reserved:
                chosen[position] = empty
        return chosen

    def _image_without(self, rng: np.random.Generator, classes: Array) -> int | None:
        for image in rng.integers(0, len(self.image_set), 20):
            _, labels = self.image_set.objects(int(image))
            if not np.isin(labels, classes).any():
                return int(image)
        return None

    def _has_crops(self, classes: Array, queries: Array) -> bool:
        return all(len(self.image_set.free_crops(label, queries)) for label in classes)

    def _redraw(self, rng: np.random.Generator, classes: Array) -> tuple[Array, Array]:
        """Classes and queries that leave each class a crop."""
        failed: set[int] = set()
        for _ in range(MAX_REDRAWS):
            reserved = self._reserved_images(rng, classes)
            lost = [
                c for c in classes if np.isin(self.image_set.images_of_class[c], reserved).all()
            ]
            if not lost:
                return classes, self._queries(rng, classes, reserved)
            failed.update(map(int, lost))
            classes = rng.choice(self.image_set.usable_classes, self.n_way, replace=False)
        names = ", ".join(
            self.image_set.names[c] if self.image_set.names else str(c) for c in failed
        )
        raise DataError(
            f"n_way: no {self.n_way} classes can be searched together, because the supports of one would be cut "
            f"from the only image of another ({names}); lower n_way or give these classes more images"
        )

    def _reserved_images(self, rng: np.random.Generator, classes: Array) -> Array:
        """Images to exclude from the queries, so that each class has a crop from one of them or from elsewhere."""
        reserved: list[int] = []
        for label in rng.permutation(classes):
            origins = self.image_set.origins(label)
            if not np.isin(origins, [-1, *reserved]).any():
                reserved.append(int(rng.choice(origins)))
        return np.array(reserved, np.int64)

    def _variants(self, rng: np.random.Generator, label: int, queries: Array) -> Array:
        """(n_shot,): crops of the class that were not cut from a query image; repeated only when used up."""
        pool = self.image_set.free_crops(label, queries)
        if len(pool) < self.n_shot:
            return np.resize(rng.permutation(pool), self.n_shot)
        return rng.choice(pool, self.n_shot, replace=False)


class BaseSource:
    """Plain batches for stage 1: images with all their objects, and crops of random classes.

    The order is a fresh permutation of all images every time they run out.
    """

    def __init__(self, image_set: ImageSet, seed: int, channels_last: bool = False) -> None:
        self.image_set = image_set
        self.channels_last = channels_last
        self.n_crops = min(BASE_CROPS, len(image_set.usable_classes))
        self.seed = seed

    def batch(self, first: int, count: int) -> Batch:
        """Images `first` to `first + count` of the endless shuffled sequence as one batch."""
        rng = np.random.default_rng((self.seed, first, 1))
        images = np.array([self._image(position) for position in range(first, first + count)])
        classes = rng.choice(self.image_set.usable_classes, self.n_crops, replace=False)
        variants = rng.integers(0, self.image_set.supports.shape[1], self.n_crops)
        variants %= self.image_set.support_counts[classes]  # no effect if all crops differ
        crops = SupportCrops(classes[:, None], variants[:, None])
        return _episode_batch(self.image_set, images, None, crops, rng, self.channels_last)

    def _image(self, position: int) -> int:
        cycle, place = divmod(position, len(self.image_set))
        return int(_permutation(self.seed, cycle, len(self.image_set))[place])


@lru_cache(maxsize=4)
def _permutation(seed: int, cycle: int, size: int) -> Array:
    return np.random.default_rng((seed, cycle)).permutation(size)


class SupportCrops(NamedTuple):
    """The support crops of an episode, as indices into an image set."""

    classes: Array
    """(n_way, 1)."""
    variants: Array
    """(n_way, n_shot)."""


def _episode_batch(
    image_set: ImageSet,
    images: Array,
    ways: Array | None,
    crops: SupportCrops,
    rng: np.random.Generator | None,
    channels_last: bool,
) -> Batch:
    """Tensors of one episode; with `ways` only objects of these classes are targets, numbered by way."""
    shown, boxes, labels = [], [], []
    for image in images:
        pixels = image_set.image(image)
        corners, names = image_set.objects(int(image))
        if ways is not None:
            way = np.argmax(names[:, None] == ways, axis=1)
            kept = ways[way] == names
            corners, names = corners[kept], way[kept]
        if rng is not None and rng.random() < 0.5:
            pixels, corners = mirror(pixels, corners)
        shown.append(pixels)
        boxes.append(corners)
        labels.append(names)
    numbers = crops.classes * image_set.supports.shape[1] + crops.variants
    return Batch(
        images=_as_images(np.stack(shown), channels_last),
        targets=_padded(boxes, labels),
        supports=_as_images(image_set.supports[crops.classes, crops.variants], channels_last)[None],
        support_ids=torch.from_numpy(numbers)[None],
        classes=torch.from_numpy(crops.classes[:, 0])[None],
        image_ids=torch.from_numpy(images),
    )


def _as_images(pixels: Array, channels_last: bool) -> torch.Tensor:
    """(…, H, W, 3) as a tensor (…, 3, H, W); with `channels_last` the pixels stay where they are."""
    if channels_last:
        return torch.from_numpy(pixels).movedim(-1, -3)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3)))


def _padded(boxes: list[Array], labels: list[Array]) -> Targets:
    most = max(1, *(len(names) for names in labels))
    targets = Targets(
        boxes=torch.zeros(len(labels), most, 4),
        labels=torch.zeros(len(labels), most, dtype=torch.int64),
        mask=torch.zeros(len(labels), most, dtype=torch.bool),
        limit=sum(map(len, labels)),
    )
    for row, (corners, names) in enumerate(zip(boxes, labels, strict=True)):
        targets.boxes[row, : len(names)] = torch.from_numpy(np.ascontiguousarray(corners))
        targets.labels[row, : len(names)] = torch.from_numpy(np.ascontiguousarray(names))
        targets.mask[row, : len(names)] = True
    return targets


def _concatenate(episodes: list[Batch]) -> Batch:
    """Several episodes as one batch, padded to the same number of objects."""
    if len(episodes) == 1:
        return episodes[0]
    most = max(episode.targets.mask.shape[1] for episode in episodes)
    targets = [episode.targets.padded(most) for episode in episodes]
    return Batch(
        images=torch.cat([e.images for e in episodes]),
        targets=Targets(
            boxes=torch.cat([t.boxes for t in targets]),
            labels=torch.cat([t.labels for t in targets]),
            mask=torch.cat([t.mask for t in targets]),
            limit=sum(t.mask.numel() if t.limit is None else t.limit for t in targets),
        ),
        supports=torch.cat([e.supports for e in episodes]),
        support_ids=torch.cat([e.support_ids for e in episodes]),
        classes=torch.cat([e.classes for e in episodes]),
        image_ids=torch.cat([e.image_ids for e in episodes]),
    )


Request = tuple[int, int]
"""First episode or image, and how many."""


class BatchLoader:
    """Batches of `source` on `device`; on a GPU the next ones are prefetched by a thread, and they have few shapes.

    Args:
        source: a batch depends on its request alone, so prefetching does not change it.
        device: on a CPU batches are not prefetched, since the thread would compete for the core.
    """

    def __init__(self, source: EpisodeSource | BaseSource, device: str) -> None:
        self.source, self._device = source, device
        gpu = device.startswith("cuda")
        self._pool = ThreadPoolExecutor(1, "batches") if gpu else None
        self._prefetched: dict[Request, Future[Batch]] = {}

    def take(self, request: Request, following: Sequence[Request] = ()) -> Batch:
        """The batch of `request`; those of the probable next requests, `following`, are prefetched."""
        if self._pool is None:
            return self.source.batch(*request)
        future = self._prefetched.pop(request, None) or self._submit(request)
        self._prefetched = {
            next_one: self._prefetched.get(next_one) or self._submit(next_one)
            for next_one in following
        }
        return future.result().to(self._device)

    def _submit(self, request: Request) -> Future[Batch]:
        assert self._pool is not None
        return self._pool.submit(self._pinned, *request)

    def _pinned(self, first: int, count: int) -> Batch:
        return with_few_shapes(self.source.batch(first, count)).map(torch.Tensor.pin_memory)


def with_few_shapes(batch: Batch) -> Batch:
    """The same, padded to a power of two of objects per image, so that the steps of a run have few different shapes."""
    most = batch.targets.mask.shape[1]
    padded = batch.targets.padded(1 << (most - 1).bit_length())
    return replace(batch, targets=replace(padded, limit=None))
