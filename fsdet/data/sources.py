"""Which image sets a config names: one for training, and fixed ones for evaluation."""

from __future__ import annotations

from fsdet.config import DataConfig
from fsdet.data.image_set import ImageSet
from fsdet.data.openmoji import Split, load_openmoji
from fsdet.data.yolo import load_yolo


def load_image_set(config: DataConfig, split: Split) -> ImageSet:
    """The image set of `split`: `train`, `base`, `val` or `test`.

    Raises:
        DataError: the dataset is not there, is broken, or has too few classes.
    """
    if config.dataset == "yolo":
        return load_yolo(config, split)
    return load_openmoji(config, split)
