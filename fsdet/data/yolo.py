"""Real images in the Ultralytics YOLO layout: a data.yaml, and images/ and labels/ side by side."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from fsdet.config import DataConfig
from fsdet.data.image_set import Array, ImageSet, cache_root, cached_image_set
from fsdet.data.transforms import letterbox
from fsdet.errors import DataError
from fsdet.progress import progress

NOVEL_FRACTION = 0.25
"""Part of the classes that are novel; half of them for validation, half for test."""
SUPPORT_VARIANTS = 8
"""Support crops kept per class."""
SUPPORT_MARGIN = 0.1
"""Context around a support crop, as a part of its box on every side."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def load_yolo(config: DataConfig, split: str) -> ImageSet:
    """The images of one split, from the cache or decoded into it.

    Classes are split by a fixed shuffle: the first quarter is novel, of which every other class
    validates and the rest tests. `train` holds the training images, the others the validation images.

    Raises:
        DataError: missing or broken files.
    """
    root, description = read_description(config)
    folder = root / str(description["train" if split == "train" else "val"])
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(
            f"{folder}: holds no images ({', '.join(sorted(SUFFIXES))}); check data_root"
        )
    classes = split_classes(class_names(description), split)
    stamp = "\n".join(f"{f.relative_to(root)} {f.stat().st_size} {_label_text(f)}" for f in files)
    recipe = {
        "source": "yolo",
        "version": 1,
        "content": hashlib.sha256(stamp.encode()).hexdigest(),
        "classes": classes,
        "image_size": config.image_size,
        "support_size": config.support_size,
    }
    build = partial(_build, files, classes, config.image_size, config.support_size)
    return cached_image_set(cache_root(config.cache_dir), f"yolo-{split}", recipe, build)


def read_description(config: DataConfig) -> tuple[Path, dict[str, Any]]:
    """Folder of the dataset and the content of its data.yaml.

    Raises:
        DataError: `data_root` is not given, not there, or no YOLO description.
    """
    if config.data_root is None:
        raise DataError("data_root: dataset 'yolo' needs the folder of a data.yaml; set data_root")
    file = config.data_root if config.data_root.is_file() else config.data_root / "data.yaml"
    if not file.is_file():
        raise DataError(f"{file}: no such file; data_root must be a data.yaml or the folder of one")
    try:
        description = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(description, dict | None):
        raise DataError(f"{file}: must hold `key: value` lines with the keys train, val and names")
    description = description or {}
    missing = [k for k in ("train", "val", "names") if k not in description]
    if missing:
        raise DataError(
            f"{file}: needs the keys train, val and names, but lacks {', '.join(missing)}"
        )
    return (file.parent / str(description.get("path", "."))).resolve(), description


def class_names(description: dict[str, Any]) -> list[str]:
    """Names by index; `names` may be a list or a mapping from index."""
    names = description["names"]
    if isinstance(names, dict):
        return [str(names[i]) for i in sorted(names)]
    return [str(name) for name in names]


def split_classes(names: list[str], split: str) -> list[int]:
    """Class indices of a split, in ascending order; base, val and test are disjoint."""
    order = np.random.default_rng(0).permutation(len(names)).tolist()
    count = round(len(names) * NOVEL_FRACTION)
    parts = {"val": order[:count:2], "test": order[1:count:2]}
    return sorted(parts.get(split, order[count:]))


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    if "images" not in parts:
        raise DataError(f"{image}: must lie below a folder images/, with labels/ beside it")
    position = len(parts) - 1 - parts[::-1].index("images")
    parts[position] = "labels"
    return Path(*parts).with_suffix(".txt")


def _label_text(image: Path) -> str:
    try:
        return _label_file(image).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise DataError(
            f"{_label_file(image)}: not a UTF-8 text file; write its labels anew"
        ) from None


def _read_labels(image: Path, width: int, height: int, classes: list[int]) -> tuple[Array, Array]:
    """Boxes xyxy in pixels inside the image, and labels as positions in `classes`."""
    boxes, labels = [], []
    for number, line in enumerate(_label_text(image).splitlines(), 1):
        try:
            name, cx, cy, w, h = np.array(line.split()[:5], np.float64)
            if not np.isfinite([name, cx, cy, w, h]).all():
                raise ValueError
        except ValueError:
            raise DataError(
                f"{_label_file(image)}:{number}: must be 'class cx cy w h', but is {line!r}"
            ) from None
        if int(name) in classes:
            box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]).clip(0, 1)
            box *= [width, height, width, height]
            if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
                boxes.append(box)
                labels.append(classes.index(int(name)))
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def _build(files: list[Path], classes: list[int], size: int, support_size: int) -> ImageSet:
    images, all_boxes, all_labels = [], [], []
    crops: list[list[tuple[int, Array]]] = [[] for _ in classes]
    for number, file in enumerate(progress(files, "decoding images")):
        try:
            with Image.open(file) as opened:
                picture = np.asarray(opened.convert("RGB"))
        except (OSError, ImportError, SyntaxError) as error:  # as Pillow and its plug-ins complain
            raise DataError(f"{file}: cannot be decoded as an image ({error}); remove it") from None
        boxes, labels = _read_labels(file, picture.shape[1], picture.shape[0], classes)
        for box, label in zip(boxes, labels, strict=True):
            if len(crops[label]) < SUPPORT_VARIANTS:
                crops[label].append((number, _crop(picture, box, support_size)))
        image, boxes = letterbox(picture, boxes, size)
        images.append(image)
        all_boxes.append(boxes)
        all_labels.append(labels)
    supports = np.zeros((len(classes), SUPPORT_VARIANTS, support_size, support_size, 3), np.uint8)
    origins = np.full((len(classes), SUPPORT_VARIANTS), -1)
    for label, found in enumerate(crops):
        for variant in range(SUPPORT_VARIANTS if found else 0):
            origins[label, variant], supports[label, variant] = found[variant % len(found)]
    return ImageSet(
        images=np.stack(images),
        offsets=np.cumsum([0, *(len(labels) for labels in all_labels)]),
        boxes=np.concatenate(all_boxes).astype(np.float32),
        labels=np.concatenate(all_labels),
        supports=supports,
        support_images=origins,
    )


def _crop(picture: Array, box: Array, size: int) -> Array:
    """The object with a little context, letterboxed to a square."""
    margin = SUPPORT_MARGIN * (box[2:] - box[:2])
    left, top = np.maximum(box[:2] - margin, 0).astype(int)
    right, bottom = np.ceil(np.minimum(box[2:] + margin, picture.shape[1::-1])).astype(int)
    return letterbox(picture[top:bottom, left:right], np.zeros((0, 4), np.float32), size)[0]
