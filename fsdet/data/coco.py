"""Reads COCO JSON: `instances_*.json` with the images next to them, and TFA's K-shot files.

Files are looked for in `data_root` and `data_root/annotations`: `instances_train*.json` (or `trainvalno5k.json`)
holds training images, `instances_val*.json` (or `5k.json`) evaluation images. Where there is only one
`instances_*.json`, a fifth of its images, drawn by `split_seed`, is for evaluation. Images are looked for in
`data_root`, `data_root/images` and the folders in either.

K-shot files as in "Frustratingly Simple Few-Shot Object Detection" (Wang et al., 2020),
`full_box_{K}shot_{class}_trainval.json`, are COCO files with the annotations of K instances of one class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsdet.config import DataConfig
from fsdet.data.image_set import Array
from fsdet.data.problems import Problems
from fsdet.data.records import Dataset, ImageRef, Record, Subset
from fsdet.errors import DataError
from fsdet.progress import progress_if_many
from fsdet.reading import LARGEST_DATASET, read_json

PATTERNS: dict[Subset, tuple[str, ...]] = {
    "train": ("instances_train*.json", "trainvalno5k.json"),
    "eval": ("instances_val*.json", "5k.json"),
}
EVAL_FRACTION = 0.2
"""Fraction of the images that is for evaluation if there is only one file."""


def read_coco(config: DataConfig) -> Dataset:
    """All images listed in the JSON files, with their boxes.

    Raises:
        DataError: a file is missing or not COCO JSON, or two files have different classes.
    """
    files = annotation_files(config)
    contents = {file: _load(file) for file in dict.fromkeys(files.values())}
    names = _names(contents)
    assert config.data_root is not None
    reader = _Reader(config.data_root, {name: i for i, name in enumerate(names)})
    if len(contents) == 1:
        records = _divided(reader.records(*contents.popitem(), "train"), config.split_seed)
    else:
        records = [
            r
            for subset, file in files.items()
            for r in reader.records(file, contents[file], subset)
        ]
    if config.shots_dir is not None:
        for file in shot_files(config.shots_dir, config.k_shot):
            records += reader.records(file, _load(file), "shots")
    return Dataset(config.data_root, names, tuple(records), problems=reader.problems)


def annotation_files(config: DataConfig) -> dict[Subset, Path]:
    """Subset of the data -> its JSON file; the same file for both if there is only one.

    Raises:
        DataError: `data_root` is not given, or there is no annotation file, or an ambiguous one.
    """
    if config.data_root is None:
        raise DataError(
            "data_root: dataset 'coco' needs the folder of instances_*.json; set data_root"
        )
    folders = [config.data_root, config.data_root / "annotations"]
    found = {subset: _matching(folders, patterns) for subset, patterns in PATTERNS.items()}
    if not any(found.values()):
        single = _matching(folders, ("instances_*.json",))
        found = {"train": single, "eval": single}
    for subset, files in found.items():
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise DataError(
                f"{config.data_root}: must hold one of {' or '.join(PATTERNS[subset])} in itself or in annotations/, "
                f"but has {names}; remove the others or rename the file"
            )
    return {subset: files[0] for subset, files in found.items()}


def shot_files(folder: Path, k_shot: int) -> list[Path]:
    """The K-shot files of a folder.

    Raises:
        DataError: the folder has none for this K.
    """
    files = sorted(folder.glob(f"full_box_{k_shot}shot_*_trainval.json"))
    if not files:
        raise DataError(
            f"shots_dir: {folder} holds no full_box_{k_shot}shot_{{class}}_trainval.json; check shots_dir and k_shot"
        )
    return files


def _matching(folders: list[Path], patterns: tuple[str, ...]) -> list[Path]:
    return [file for d in folders for pattern in patterns for file in sorted(d.glob(pattern))]


def _load(file: Path) -> dict[str, Any]:
    content = read_json(file, DataError, LARGEST_DATASET, "download or export it again")
    keys = ("images", "annotations", "categories")
    missing = [
        k for k in keys if not isinstance(content, dict) or not isinstance(content.get(k), list)
    ]
    if missing:
        raise DataError(
            f"{file}: must have the lists images, annotations and categories, but has no {', '.join(missing)}"
        )
    return dict(content)


def _names(contents: dict[Path, dict[str, Any]]) -> tuple[str, ...]:
    """Class names in the order of their ids in the first file; all files must have the same."""
    first: tuple[str, ...] | None = None
    for file, content in contents.items():
        names = tuple(_categories(file, content).values())
        if len(set(names)) < len(names):
            raise DataError(f"{file}: categories: two classes have the same name; rename one")
        if first is not None and set(first) != set(names):
            odd = sorted(set(first) ^ set(names))[0]
            raise DataError(
                f"{file}: categories: '{odd}' is not in both files; use one list of categories"
            )
        first = first or names
    return first or ()


def _categories(file: Path, content: dict[str, Any]) -> dict[int, str]:
    try:
        return {
            c["id"]: str(c["name"]) for c in sorted(content["categories"], key=lambda c: c["id"])
        }
    except (KeyError, TypeError):
        raise DataError(f"{file}: categories: each must have a number `id` and a `name`") from None


def _divided(records: list[Record], seed: int) -> list[Record]:
    """The records of a single file with a seeded sample of them for evaluation."""
    order = np.random.default_rng((seed, len(records))).permutation(len(records))
    chosen = set(order[: max(1, round(EVAL_FRACTION * len(records)))].tolist())
    return [
        Record(
            r.image,
            "eval" if i in chosen else "train",
            r.boxes,
            r.labels,
            original_size=r.original_size,
        )
        for i, r in enumerate(records)
    ]


def _ambiguous_ids(images: list[Any]) -> set[Any]:
    """Ids that more than one file has."""
    sound = [i for i in images if isinstance(i, dict) and isinstance(i.get("id"), Hashable)]
    counts = Counter(
        number for number, _ in {(i.get("id"), str(i.get("file_name"))) for i in sound}
    )
    return {number for number, count in counts.items() if count > 1}


class _Images:
    """Finds image files by their names in an annotation file."""

    def __init__(self, root: Path, file: Path) -> None:
        places = [root, root / "images"]
        inner = [
            d for place in places if place.is_dir() for d in sorted(place.iterdir()) if d.is_dir()
        ]
        # instances_val2017.json means val2017/ first: names may be the same in train2017/
        self.folders = sorted([*places, *inner], key=lambda d: d.name not in file.stem)

    def find(self, name: str) -> Path | None:
        for folder in self.folders:
            if (folder / name).is_file():
                return folder / name
        return None


@dataclass(frozen=True)
class _Objects:
    boxes: list[Array]
    labels: list[int]


class _Reader:
    """Turns the content of COCO files into records."""

    def __init__(self, root: Path, labels: dict[str, int]) -> None:
        self.root, self.labels = root, labels
        self.problems = Problems()

    def records(self, file: Path, content: dict[str, Any], subset: Subset) -> list[Record]:
        """One record per existing image, in the order of the file."""
        objects, images = self._objects(file, content), _Images(self.root, file)
        ambiguous = _ambiguous_ids(content["images"])
        records = []
        for image in progress_if_many(content["images"], f"reading {file.name}"):
            try:
                number, name = image["id"], str(image["file_name"])
                found = objects.pop(number, _Objects([], []))
                original_size = (
                    (int(image["width"]), int(image["height"])) if "width" in image else None
                )
            except (KeyError, TypeError, ValueError, OverflowError):
                self.problems.add("annotation malformed", f"{file.name}: image {image!r:.60}")
                continue
            if number in ambiguous:
                self.problems.add("image id twice", f"{file.name}: {name}")
                continue
            path = images.find(name)
            if path is None:
                self.problems.add("image missing", name)
                continue
            boxes = np.array(found.boxes, np.float64).reshape(-1, 4)
            labels = np.array(found.labels, np.int64)
            records.append(
                Record(ImageRef(path), subset, boxes, labels, original_size=original_size)
            )
        for number, lost in objects.items():
            self.problems.add(
                "annotation malformed", f"{file.name}: image_id {number}", len(lost.labels)
            )
        return records

    def _objects(self, file: Path, content: dict[str, Any]) -> dict[Any, _Objects]:
        """Image id -> boxes xyxy in pixels and labels."""
        names = _categories(file, content)
        objects: dict[Any, _Objects] = {}
        for annotation in content["annotations"]:
            try:
                image, category = annotation["image_id"], annotation["category_id"]
                x, y, width, height = map(float, annotation["bbox"])
                hash((image, category))
                crowd = bool(annotation.get("iscrowd", 0))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                self.problems.add("annotation malformed", f"{file.name}: {annotation!r:.60}")
                continue
            if crowd:
                self.problems.add("crowd", file.name)
                continue
            same_image = objects.setdefault(image, _Objects([], []))
            same_image.boxes.append(np.array([x, y, x + width, y + height]))
            same_image.labels.append(self.labels.get(names.get(category, ""), -1))
        return objects
