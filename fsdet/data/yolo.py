"""Reads the Ultralytics YOLO layout: a data.yaml, and images/ next to labels/.

`train` and `val` of data.yaml are a folder, a list of folders, or a text file that lists images. A label line is
`class cx cy w h` or a polygon `class x1 y1 x2 y2 x3 y3 …`, in fractions of the image; a polygon is replaced by its
bounding box.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fsdet.config import DataConfig
from fsdet.data.image_set import Array
from fsdet.data.images import IMAGE_SUFFIXES
from fsdet.data.problems import Problems
from fsdet.data.records import Dataset, ImageRef, Record, Subset
from fsdet.errors import DataError, cut, shown
from fsdet.files import read_text
from fsdet.progress import progress_if_many
from fsdet.reading import exists, read_yaml

SUBSETS: dict[Subset, str] = {"train": "train", "eval": "val"}
"""Subset of the data -> key of data.yaml."""
NO_CLASS = 2.0**31
"""Larger class numbers are clipped to this, so that they fit into an integer."""


def read_yolo(config: DataConfig) -> Dataset:
    """All images listed in data.yaml, with the boxes of their label files.

    Raises:
        DataError: the description is missing or broken, or a folder holds no images.
    """
    root, description = read_description(config)
    names = class_names(description)
    problems = Problems()
    files = [
        (subset, file)
        for subset, key in SUBSETS.items()
        for file in _image_files(root, description[key], key)
    ]
    records = tuple(
        _record(file, subset, root, problems)
        for subset, file in progress_if_many(files, "reading labels")
    )
    for file in _unused_label_files([file for _, file in files]):
        problems.add("label file without image", _place(file, root))
    return Dataset(root, names, records, fractions=True, problems=problems)


def read_description(config: DataConfig) -> tuple[Path, dict[str, Any]]:
    """Folder of the dataset and the content of its data.yaml.

    Raises:
        DataError: `data_root` is not set, does not exist, or has no YOLO description.
    """
    if config.data_root is None:
        raise DataError("data_root: dataset 'yolo' needs the folder of a data.yaml; set data_root")
    file = config.data_root if config.data_root.is_file() else config.data_root / "data.yaml"
    if not exists(file) or not file.is_file():
        raise DataError(
            f"{cut(str(file))}: no such file; data_root must be a data.yaml or the folder of one"
        )
    description = read_yaml(file, DataError, text_keys=False).values
    if not isinstance(description, dict | None):
        raise DataError(f"{file}: must hold `key: value` lines with the keys train, val and names")
    description = description or {}
    missing = [k for k in ("train", "val", "names") if not description.get(k)]
    if missing:
        raise DataError(
            f"{file}: needs the keys train, val and names, but has no {', '.join(missing)}"
        )
    class_names(description, file)
    folder = os.path.realpath(file.parent / str(description.get("path") or "."))
    return Path(folder), description


def class_names(description: dict[str, Any], file: Path = Path("data.yaml")) -> tuple[str, ...]:
    """Names by index; `names` may be a list or a mapping from each index 0 … n - 1.

    Raises:
        DataError: an index is missing or not a number, or two classes have the same name.
    """
    names = description["names"]
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(
                f"{file}: names: must be numbered 0 to {len(names) - 1}, but has {list(names)[:5]}; "
                "number the classes without a gap"
            )
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{file}: names: must be a list or a mapping, but is {shown(names)}")
    listed = [str(name) for name in names]
    twice = sorted(name for name, count in Counter(listed).items() if count > 1)
    if twice:
        raise DataError(f"{file}: names: '{twice[0]}' is the name of two classes; rename one")
    return tuple(listed)


def _image_files(root: Path, value: object, key: str) -> Iterator[Path]:
    places = value if isinstance(value, list) else [value]
    found = [file for place in places for file in _files_of(root / str(place))]
    if not found:
        raise DataError(
            f"{cut(str(root / str(places[0])))}: holds no images "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}); check data_root and "
            f"the key {key} of data.yaml"
        )
    return iter(found)


def _files_of(place: Path) -> list[Path]:
    if not exists(place):
        return []
    if place.suffix == ".txt" and place.is_file():
        try:
            lines = read_text(place).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{place}: must list images as UTF-8 text, but: {error}") from None
        return [place.parent / line.strip() for line in lines if line.strip()]
    return sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _unused_label_files(images: list[Path]) -> list[Path]:
    """Label files in the same folders that belong to none of `images`."""
    labels = {_label_file(image) for image in images}
    folders = sorted({file.parent for file in labels})
    files = [file for folder in folders for file in sorted(folder.glob("*.txt"))]
    return [file for file in files if file not in labels and file.name != "classes.txt"]


def _place(file: Path, root: Path) -> Path:
    return file.relative_to(root) if file.is_relative_to(root) else file


def _record(file: Path, subset: Subset, root: Path, problems: Problems) -> Record:
    label_file = _label_file(file)
    place = _place(label_file, root)
    boxes, labels = [], []
    for number, line in enumerate(_label_lines(label_file, place, problems), 1):
        try:
            label, box = _parsed(line)
        except ValueError:
            if line.strip():
                problems.add("label line malformed", f"{place}:{number}")
            continue
        boxes.append(box)
        labels.append(label)
    return Record(
        ImageRef(file),
        subset,
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(labels, np.int64),
    )


def _label_lines(file: Path, place: Path, problems: Problems) -> list[str]:
    """Lines of a label file; none if it is missing, empty or not text.

    Raises:
        DataError: the disk or the permissions do not let it be read.
    """
    try:
        text = read_text(file)
        if not text.strip():
            problems.add("label file empty", place)
    except FileNotFoundError:
        problems.add("label file missing", place)
        text = ""
    except UnicodeDecodeError:
        problems.add("label line malformed", place)
        text = ""
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); a label file must be a text file or missing"
        ) from None
    return text.splitlines()


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    if "images" not in parts:
        raise DataError(f"{image}: must lie below a folder images/, with labels/ next to it")
    position = len(parts) - 1 - parts[::-1].index("images")
    parts[position] = "labels"
    return Path(*parts).with_suffix(".txt")


def _parsed(line: str) -> tuple[int, Array]:
    """Class and box xyxy in fractions of one line.

    Raises:
        ValueError: it is neither a box nor a polygon.
    """
    values = np.array(line.split(), np.float64)
    if not len(values) or not np.isfinite(values[0]) or values[0] != int(values[0]):
        raise ValueError
    label = int(np.clip(values[0], -1, NO_CLASS))
    if len(values) >= 7 and len(values) % 2:
        corners = values[1:].reshape(-1, 2)
        return label, np.concatenate([corners.min(0), corners.max(0)])
    if len(values) not in (5, 6):  # a sixth value is the confidence of a predicted label
        raise ValueError
    centre, half = values[1:3], values[3:5] / 2
    return label, np.concatenate([centre - half, centre + half])
