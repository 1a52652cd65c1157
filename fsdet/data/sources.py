"""Loads the image sets of a config by the name of their split; see `fsdet.data.image_set.Split`.

A dataset is read once per process; later changes on the disk take effect in the next process.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from fsdet.config import DataConfig
from fsdet.data.annotated import (
    READERS,
    PreparedDataset,
    build_set,
    prepare_dataset,
    support_problems,
)
from fsdet.data.cache import cache_root
from fsdet.data.image_set import ImageSet, Split
from fsdet.data.openmoji import load_openmoji
from fsdet.data.problems import Problem, log_report
from fsdet.data.records import Dataset
from fsdet.data.scenes import class_codes
from fsdet.data.splits import split_classes
from fsdet.errors import DataError


def load_image_set(config: DataConfig, split: Split) -> ImageSet:
    """The image set of `split`: `train`, `base`, `val`, `test` or `shots`.

    Raises:
        DataError: the dataset is missing, is broken, or has too few classes.
    """
    image_set = _loaded(_settings(config), split)
    if len(image_set.usable_classes) < config.n_way:
        raise _too_few(config, split, len(image_set.usable_classes), image_set.n_classes)
    return image_set


def _too_few(config: DataConfig, split: Split, usable: int, classes: int) -> DataError:
    novel = "add images or novel classes, or a split_file with the same classes in val and test"
    fixes = {"shots": f"raise k_shot, {novel}", "val": novel, "test": novel}
    lower = f"set n_way: {usable}, or " if usable else ""
    return DataError(
        f"{config.data_root or config.dataset}: an episode needs n_way = {config.n_way} classes, but split "
        f"'{split}' shows {usable} of {classes} in an image and with a support "
        f"from another image; {lower}{fixes.get(split, 'add images or choose other classes')}"
    )


def load_problems(config: DataConfig) -> tuple[Problem, ...]:
    """The problems of the dataset and of the photos of its objects; none for `openmoji`.

    Raises:
        DataError: it is missing or broken.
    """
    return () if config.dataset == "openmoji" else _problems(_settings(config))


def check_data(config: DataConfig, splits: Iterable[Split] = ()) -> None:
    """Check the descriptions, annotations and class names of a dataset without decoding an image.

    Args:
        config: of the dataset.
        splits: those that are used: each needs enough classes for an episode. What only the images show is found by
            `load_image_set`.

    Raises:
        DataError: the first thing that cannot be used.
    """
    if config.dataset == "openmoji":
        for split in splits:
            count = len(class_codes(config.novel_split if split == "shots" else split))
            if count < config.n_way:
                raise _too_few(config, split, count, count)
        return
    dataset = _read(_settings(config))
    split_classes(config, dataset.names, range(len(dataset.names)))
    dataset.require_labels()
    images = dataset.images_per_class()
    classes = split_classes(config, dataset.names, [c for c, count in enumerate(images) if count])
    own = not dataset.object_images and config.shots_dir is None
    for split in splits:
        chosen = classes.classes(split, config)
        usable = sum(images[label] > own for label in chosen)  # a support is from another image
        if usable < config.n_way:
            raise _too_few(config, split, usable, len(chosen))


def log_problems(config: DataConfig) -> None:
    """Log one warning with all problems of the dataset and how they are handled, if there are any."""
    log_report(str(config.data_root), load_problems(config))


def _settings(config: DataConfig) -> DataConfig:
    """The data settings alone, with the cache folder resolved, as a key for the caches here."""
    settings = {name: getattr(config, name) for name in DataConfig.model_fields}
    return DataConfig(**{**settings, "cache_dir": cache_root(config.cache_dir)})


@lru_cache(maxsize=8)
def _loaded(config: DataConfig, split: Split) -> ImageSet:
    if config.dataset == "openmoji":
        return load_openmoji(config, split)
    return build_set(_prepared(config), config, split)


@lru_cache(maxsize=2)
def _problems(config: DataConfig) -> tuple[Problem, ...]:
    data = _prepared(config)
    return (*data.problems, *support_problems(data, config))


@lru_cache(maxsize=2)
def _prepared(config: DataConfig) -> PreparedDataset:
    return prepare_dataset(config, _read(config))


@lru_cache(maxsize=2)
def _read(config: DataConfig) -> Dataset:
    return READERS[config.dataset](config)
