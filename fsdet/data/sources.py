"""Which image sets a config names: one for training, and fixed ones for evaluation."""

from __future__ import annotations

from fsdet.config import DataConfig
from fsdet.data.image_set import ImageSet
from fsdet.data.openmoji import Split, load_openmoji
from fsdet.data.yolo import load_yolo
from fsdet.errors import DataError


def load_image_set(config: DataConfig, split: Split) -> ImageSet:
    """The image set of `split`: `train`, `base`, `val` or `test`.

    Raises:
        DataError: the dataset is not there, is broken, or has too few classes.
    """
    load = load_yolo if config.dataset == "yolo" else load_openmoji
    image_set = load(config, split)
    if len(image_set.usable_classes) < config.n_way:
        raise DataError(
            f"{config.data_root or config.dataset}: an episode needs n_way = {config.n_way} classes, but split "
            f"'{split}' shows {len(image_set.usable_classes)}; lower n_way or give more images"
        )
    return image_set
