"""Prepares an annotated dataset of any format, and builds the image set of each split from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from fsdet.config import DataConfig
from fsdet.data.cleaning import Objects, merge_shots, usable_image_sizes, usable_objects
from fsdet.data.coco import read_coco
from fsdet.data.decoded import Decoded, decode
from fsdet.data.fingerprint import fingerprint
from fsdet.data.image_set import Array, ImageSet, Split
from fsdet.data.images import letterbox_boxes
from fsdet.data.problems import Problem, Problems
from fsdet.data.records import Dataset, ImageRef, Subset, divide_videos
from fsdet.data.refdet import read_refdet
from fsdet.data.splits import ClassSplit, split_classes
from fsdet.data.supports import Crop, Supports, cut_supports, draw_instances
from fsdet.data.yolo import read_yolo
from fsdet.errors import DataError

READERS: dict[str, Callable[[DataConfig], Dataset]] = {
    "yolo": read_yolo,
    "coco": read_coco,
    "refdet": read_refdet,
}


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset whose images are decoded, objects checked and classes split."""

    dataset: Dataset
    decoded: Decoded
    original_sizes: Array
    """(N, 2) original width and height of each record's image; zeros if it is left out."""
    objects: Objects
    split: ClassSplit
    shots: dict[int, Array]
    """Class -> the K instances, as indices into `objects`, that serve as supports and as shots."""
    problems: tuple[Problem, ...]

    def records_of(self, *subsets: Subset) -> Array:
        """(N,) bool: records of these subsets that have an image."""
        return self.original_sizes.all(axis=1) & np.isin(
            [r.subset for r in self.dataset.records], subsets
        )


def prepare_dataset(config: DataConfig, dataset: Dataset) -> PreparedDataset:
    """Decode the images of a dataset, check its objects and split its classes.

    Raises:
        DataError: the dataset is missing or broken, see `fsdet.data.problems`.
    """
    dataset.require_labels()
    problems = dataset.problems.copy()
    decoded = decode(config, dataset, problems)
    dataset, decoded = merge_shots(dataset, decoded)
    original_sizes = usable_image_sizes(dataset, decoded, problems)
    objects = usable_objects(dataset, original_sizes, problems)
    split = split_classes(config, dataset.names, np.unique(objects.labels).tolist())
    dataset = divide_videos(dataset, split.novel)
    data = PreparedDataset(dataset, decoded, original_sizes, objects, split, {}, ())
    given = any(record.subset == "shots" for record in dataset.records)
    shots = {c: _instances(data, c, config, given) for c in (*split.base, *split.novel)}
    for label, chosen in shots.items():
        kind = "class with fewer than K instances" if len(chosen) else "class without instance"
        if len(chosen) < config.k_shot and label not in dataset.object_images:
            problems.add(kind, dataset.names[label])
    return PreparedDataset(
        dataset, decoded, original_sizes, objects, split, shots, problems.report()
    )


def build_set(data: PreparedDataset, config: DataConfig, split: Split) -> ImageSet:
    """The image set of one split; its images are a view on those of the whole dataset.

    Raises:
        DataError: the supports would not fit into the cache.
    """
    classes = np.array(data.split.classes(split, config))
    chosen, shown = _shown(data, config, split, classes)
    rows = data.decoded.rows[chosen]
    place = np.full(len(data.decoded.images) + 1, -1)  # the last one for crops without a row
    place[rows] = np.arange(len(rows))
    supports = _supports(data, config, split, classes.tolist())
    per_image = np.bincount(np.searchsorted(chosen, shown.records), minlength=len(chosen))
    return ImageSet(
        images=data.decoded.images,
        offsets=np.cumsum([0, *per_image]),
        boxes=letterbox_boxes(shown.boxes, data.original_sizes[shown.records], config.image_size),
        labels=np.searchsorted(classes, shown.labels),
        supports=supports.crops,
        support_images=place[supports.rows],
        support_counts=supports.counts,
        rows=rows,
        groups=_groups(data, chosen, classes),
        names=tuple(data.dataset.names[c] for c in classes),
    )


def _shown(
    data: PreparedDataset, config: DataConfig, split: Split, classes: Array
) -> tuple[Array, Objects]:
    """Sorted numbers of the records of a split, and the objects that are its targets."""
    objects = data.objects
    if split == "shots":
        is_shot = np.zeros(len(objects.labels), bool)
        is_shot[np.concatenate([data.shots[c] for c in classes])] = True
        is_shot &= data.records_of("train", "shots")[objects.records]
        return np.unique(objects.records[is_shot]), objects.select(is_shot)
    chosen = _chosen_records(data, config, split, classes)
    is_target = np.isin(objects.labels, classes) & np.isin(objects.records, chosen)
    return chosen, objects.select(is_target)


def _groups(data: PreparedDataset, chosen: Array, classes: Array) -> Array:
    """(n,) the video of each chosen record as the label of its class, -1 for none."""
    videos = [data.dataset.records[record].video for record in chosen]
    label_of = {int(c): label for label, c in enumerate(classes)}
    return np.array([-1 if video is None else label_of[video] for video in videos], np.int64)


def _instances(data: PreparedDataset, label: int, config: DataConfig, given: bool) -> Array:
    """The K instances of a class: from K-shot files if there are any, otherwise from training, then evaluation images.

    Raises:
        DataError: there are K-shot files, but none for this novel class.
    """
    order: tuple[Subset, ...] = ("train", "eval")
    if given and label in data.split.novel:
        order = ("shots",)
    for subset in order:
        records = data.records_of(subset)
        chosen = draw_instances(data.objects, label, config.k_shot, config.split_seed, records)
        if len(chosen):
            return chosen
    if order == ("shots",):
        name = data.dataset.names[label]
        raise DataError(
            f"shots_dir: {config.shots_dir} has no usable instance of the novel class '{name}'; add "
            f"full_box_{config.k_shot}shot_{name}_trainval.json or take the class out of novel_classes"
        )
    return np.empty(0, np.int64)


def _chosen_records(
    data: PreparedDataset, config: DataConfig, split: Split, classes: Array
) -> Array:
    """Sorted numbers of the records that a split shows; frames only of videos of its classes."""
    chosen = _records_of_classes(data, "train" if split == "train" else "eval", classes.tolist())
    if split not in ("val", "test") or not data.split.shared:
        return chosen
    halves = _halved_records(data, config)
    return np.intersect1d(chosen, halves[0 if split == "val" else 1])


def _records_of_classes(data: PreparedDataset, subset: Subset, classes: Sequence[int]) -> Array:
    videos = [record.video for record in data.dataset.records]
    here = np.array([video is None or video in classes for video in videos])
    return np.flatnonzero(data.records_of(subset) & here)


def _halved_records(data: PreparedDataset, config: DataConfig) -> tuple[Array, Array]:
    """The evaluation records of `val` and of `test`: every other image of each novel class, so that both show all."""
    novel = data.objects.select(np.isin(data.objects.labels, data.split.novel))
    first = np.full(len(data.dataset.records), len(data.dataset.names))
    np.minimum.at(first, novel.records, novel.labels)
    rng = np.random.default_rng((config.split_seed, 1))
    shuffled = rng.permutation(_records_of_classes(data, "eval", data.split.novel))
    ordered = shuffled[np.argsort(first[shuffled], kind="stable")]
    return ordered[::2], ordered[1::2]


def support_problems(data: PreparedDataset, config: DataConfig) -> tuple[Problem, ...]:
    """Problems with the photos of the objects, which are found when crops are cut.

    Raises:
        DataError: the supports would not fit into the cache.
    """
    problems = Problems()
    splits: tuple[Split, ...] = ("base", "val", "test") if data.dataset.object_images else ()
    unreadable = [
        _supports(data, config, split, data.split.classes(split, config)).unreadable
        for split in splits
    ]
    for file in sorted({*chain(*unreadable)}):
        problems.add("object image unreadable", data.dataset.place(Path(file)))
    return problems.report()


def _supports(
    data: PreparedDataset, config: DataConfig, split: Split, classes: Sequence[int]
) -> Supports:
    name = {"train": "base", "shots": config.novel_split}.get(split, split)
    return cut_supports(config, name, [_crops(data, label) for label in classes])


def _crops(data: PreparedDataset, label: int) -> list[Crop]:
    name = data.dataset.names[label]
    if photos := data.dataset.object_images.get(label):
        return [Crop(name, ImageRef(photo), _content(photo)) for photo in photos]
    crops = []
    for number in data.shots[label]:
        record = int(data.objects.records[number])
        row = int(data.decoded.rows[record])
        box = tuple(data.objects.boxes[number].tolist())
        content = data.decoded.contents[row][0]
        crops.append(Crop(name, data.dataset.records[record].image, content, box, row))
    return crops


def _content(photo: Path) -> str:
    try:
        return fingerprint(photo)
    except OSError as error:
        raise DataError(f"{photo}: cannot be read ({error.strerror}); copy it again") from None
