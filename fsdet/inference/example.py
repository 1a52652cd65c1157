"""An example to search: supports and images of a few classes of the dataset that a checkpoint was evaluated on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fsdet.config import TrainConfig
from fsdet.data.episodes import EVAL_SEED, EpisodeSource
from fsdet.data.image_set import Array, ImageSet
from fsdet.data.sources import load_image_set
from fsdet.evaluation.metrics import final_episodes
from fsdet.files import atomic_path

CLASSES, IMAGES_PER_CLASS = 3, 2
"""Largest number of classes, and of images that show each."""


@dataclass(frozen=True)
class Example:
    """Files as a user would provide them."""

    supports: dict[str, list[Path]]
    """Class name -> support images."""
    images: list[Path]


def write_example(config: TrainConfig, folder: Path) -> Example:
    """Write the supports and images of an example to `folder`, as PNG.

    The classes are the first ones of the last evaluation's first episode. No support was cut from one of the images.

    Args:
        config: of the checkpoint.
        folder: gets `supports/<class>/` and `images/`.

    Raises:
        DataError: the dataset cannot be used on this machine.
    """
    image_set = load_image_set(config, config.reported_split)
    source = EpisodeSource(image_set, config, EVAL_SEED, augment=False)
    episode = source.episode(final_episodes(config)[0])
    ids = episode.support_ids[0, :CLASSES].numpy()
    labels, variants = np.divmod(ids, image_set.supports.shape[1])
    supports = {
        (name := class_name(image_set, label)): [
            _write(image_set.supports[label, variant], folder / "supports" / name / f"{number}.png")
            for number, variant in enumerate(chosen.tolist(), 1)
        ]
        for label, chosen in zip(labels[:, 0].tolist(), variants, strict=True)
    }
    origins = image_set.support_images[labels, variants]
    images = [
        _write(image_set.image(image), folder / "images" / f"{number}.png")
        for number, image in enumerate(choose_images(image_set, labels[:, 0], origins), 1)
    ]
    return Example(supports, images)


def class_name(image_set: ImageSet, label: int) -> str:
    """The name of a class as the name of a folder."""
    name = image_set.names[label] if image_set.names else ""
    return re.sub(r"[^\w -]+", "_", name).strip() or f"class {label}"


def choose_images(image_set: ImageSet, labels: Array, origins: Array) -> list[int]:
    """The first images of each class that no support was cut from, each once."""
    chosen: list[int] = []
    for label in labels.tolist():
        shown = image_set.images_of_class[label]
        free = shown[~np.isin(shown, [*origins.flat, *chosen])]
        chosen += free[:IMAGES_PER_CLASS].tolist()
    return chosen


def _write(pixels: Array, path: Path) -> Path:
    with atomic_path(path) as part:
        Image.fromarray(np.asarray(pixels)).save(part, "PNG")
    return path
