"""Draws scenes of emoji glyphs on the photographs that scikit-image and scikit-learn ship.

The same seed gives the same pixels on any machine: sizes and places are drawn by NumPy's PCG64,
and Pillow resamples 8-bit images in integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
from PIL import Image, ImageEnhance

from fsdet.data.glyphs import load_classes, render_glyph
from fsdet.data.image_set import Array, Split
from fsdet.data.images import open_image

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
VAL_BACKGROUNDS = (
    "sklearn/flower.jpg",
    "skimage/grass.png",
    "skimage/ihc.png",
    "skimage/moon.png",
)
TEST_BACKGROUNDS = (
    "skimage/chelsea.png",
    "skimage/coffee.png",
    "skimage/cell.png",
    "skimage/clock_motion.png",
)
BACKGROUNDS: dict[Split, tuple[str, ...]] = {
    "train": TRAIN_BACKGROUNDS,
    "shots": TRAIN_BACKGROUNDS,
    "base": VAL_BACKGROUNDS,
    "val": VAL_BACKGROUNDS,
    "test": TEST_BACKGROUNDS,
}
"""Photographs of each split. Selection (`val`, `base`), reporting (`test`) and training share none."""
FOLDERS = {"sklearn": ("sklearn.datasets", "images"), "skimage": ("skimage", "data")}

OBJECT_SIDE = (0.18, 0.38)
"""Longer side of an object, as a part of the image's side."""
OBJECTS = (5, 8)
"""Range of the number of objects at which a scene takes no further class; the copies of its last class
may add two, a crowded scene may hold fewer."""
COPIES = (0.6, 0.25, 0.15)
"""Probability that a class appears once, twice, three times in its scene."""
ROTATION = 30.0
"""Largest rotation of an object, in degrees to either side."""
MAX_OVERLAP = 0.2
"""Part of the smaller box that another box may cover."""


def class_codes(split: Split) -> list[str]:
    """Code points of the classes of a split other than `shots`, in the order of their labels."""
    return load_classes()["base" if split == "train" else split]


def compose_scene(rng: np.random.Generator, split: Split, size: int) -> tuple[Array, Array, Array]:
    """Draw one scene.

    Returns:
        image (size, size, 3) uint8, boxes (m, 4) xyxy in pixels, labels (m,).
    """
    scene = background(rng, split, size).convert("RGBA")
    codes = class_codes(split)
    return place(rng, scene, codes, _draw_labels(rng, len(codes)))


def place(
    rng: np.random.Generator, scene: Image.Image, codes: list[str], classes: Iterable[int]
) -> tuple[Array, Array, Array]:
    """Add objects of the given classes, as far as there is space; returns what `compose_scene` returns."""
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    for label in classes:
        side = scene.width * rng.uniform(*OBJECT_SIDE)
        sprite = _jittered(rng, _sprite(codes[label]), side)
        box = _free_box(rng, sprite.size, scene.width, boxes)
        if box is not None:
            scene.alpha_composite(sprite, box[:2])
            boxes.append(box)
            labels.append(label)
    return np.asarray(scene.convert("RGB")), np.array(boxes, np.float32), np.array(labels)


def _draw_labels(rng: np.random.Generator, n_classes: int) -> list[int]:
    """Class of each object; the copies are shuffled, so that no class is favoured."""
    count = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    labels: list[int] = []
    while len(labels) < count:
        copies = int(rng.choice(len(COPIES), p=COPIES)) + 1
        labels += [int(rng.integers(n_classes))] * copies
    return [labels[i] for i in rng.permutation(len(labels))]


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


def _free_box(
    rng: np.random.Generator,
    sprite_size: tuple[int, int],
    size: int,
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int] | None:
    width, height = sprite_size
    for _ in range(30):
        x = int(rng.integers(0, size - width + 1))
        y = int(rng.integers(0, size - height + 1))
        box = (x, y, x + width, y + height)
        if all(_overlap(box, other) <= MAX_OVERLAP for other in taken):
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
        return Image.fromarray(open_image(path))


def background(rng: np.random.Generator, split: Split, size: int) -> Image.Image:
    """A square crop of a photograph, mirrored half the time, `size` pixels a side."""
    names = BACKGROUNDS[split]
    photograph = _photograph(names[int(rng.integers(len(names)))])
    side = int(min(photograph.size) * rng.uniform(0.4, 1.0))
    x = int(rng.integers(0, photograph.width - side + 1))
    y = int(rng.integers(0, photograph.height - side + 1))
    crop = photograph.crop((x, y, x + side, y + side)).resize((size, size), Image.Resampling.BOX)
    crop = ImageEnhance.Brightness(crop).enhance(float(rng.uniform(0.7, 1.2)))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def render_support(rng: np.random.Generator, code: str, split: Split, size: int) -> Array:
    """(size, size, 3): one glyph alone, nearly filling the crop, on a background of its split."""
    crop = background(rng, split, size).convert("RGBA")
    sprite = _jittered(rng, _sprite(code), size * float(rng.uniform(0.7, 0.95)))
    x = int(rng.integers(0, size - sprite.width + 1))
    y = int(rng.integers(0, size - sprite.height + 1))
    crop.alpha_composite(sprite, (x, y))
    return np.asarray(crop.convert("RGB"))
