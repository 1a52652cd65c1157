"""Small datasets of coloured rectangles: the colour of an object is its class."""

import json
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image

from fsdet.config import DataConfig
from fsdet.data.annotated import READERS, PreparedDataset, prepare_dataset
from fsdet.data.records import Subset

CLASSES = 16
WIDTH, HEIGHT = 96, 64
NAMES = tuple(f"class {i}" for i in range(CLASSES))


def config(root: Path, dataset: str = "yolo", **settings) -> DataConfig:
    values = {"image_size": 96, "support_size": 32, "cache_dir": root.parent / "cache"}
    return DataConfig(dataset=dataset, data_root=root, **{**values, **settings})


def load_annotated(settings: DataConfig) -> PreparedDataset:
    """The dataset read, decoded and checked, without the memory that `fsdet.data.sources` has of it."""
    return prepare_dataset(settings, READERS[settings.dataset](settings))


def colour(label: int) -> tuple[int, int, int]:
    return 40 + 60 * (label % 4), 40 + 60 * (label // 4), 250


def objects_of(number: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Class and box of the two objects of an image, one left and one right."""
    labels = (number % CLASSES, (number * 3 + 1) % CLASSES)
    return [(c, (8 + 48 * place, 12, 32 + 48 * place, 48)) for place, c in enumerate(labels)]


def draw(number: int, subset: Subset = "train") -> Image.Image:
    """An image; its background is grey in another shade for each number and subset."""
    shade = number + (100 if subset == "eval" else 0)
    picture = Image.new("RGB", (WIDTH, HEIGHT), (shade, shade, shade))
    for label, box in objects_of(number):
        picture.paste(colour(label), box)
    return picture


def write_yolo(root: Path, count: int = 32) -> Path:
    """Images as PNG, with a label line per object."""
    for split, subset in (("train", "train"), ("val", "eval")):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for number in range(count):
            lines = []
            for label, (x1, y1, x2, y2) in objects_of(number):
                centre = f"{(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT}"
                lines.append(f"{label} {centre} {(x2 - x1) / WIDTH} {(y2 - y1) / HEIGHT}")
            draw(number, subset).save(root / "images" / split / f"{number:03}.png")
            (root / "labels" / split / f"{number:03}.txt").write_text("\n".join(lines) + "\n")
    description = {"path": ".", "train": "images/train", "val": "images/val"}
    names = dict(enumerate(NAMES))
    (root / "data.yaml").write_text(yaml.safe_dump({**description, "names": names}))
    return root


def coco_content(numbers: range, first: int = 0) -> dict:
    """COCO JSON of images; category ids have gaps, as COCO's have."""
    images, annotations = [], []
    for number in numbers:
        size = {"width": WIDTH, "height": HEIGHT}
        images.append({"id": first + number, "file_name": f"{number:03}.png", **size})
        for label, (x1, y1, x2, y2) in objects_of(number):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": first + number,
                    "category_id": 2 * label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 2 * i + 1, "name": name} for i, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root: Path, count: int = 32) -> Path:
    """Images in a folder per subset, beside annotations/."""
    (root / "annotations").mkdir(parents=True)
    for split, subset in (("train", "train"), ("val", "eval")):
        (root / f"{split}2017").mkdir()
        for number in range(count):
            draw(number, subset).save(root / f"{split}2017" / f"{number:03}.png")
        content = coco_content(range(count))
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return root


def write_shots(folder: Path, label: int, k_shot: int, numbers: range) -> Path:
    """TFA's K-shot file of a class: its first K instances among the images `numbers`."""
    content = coco_content(numbers)
    mine = [a for a in content["annotations"] if a["category_id"] == 2 * label + 1][:k_shot]
    shown = {a["image_id"] for a in mine}
    images = [image for image in content["images"] if image["id"] in shown]
    folder.mkdir(exist_ok=True)
    file = folder / f"full_box_{k_shot}shot_{NAMES[label]}_trainval.json"
    file.write_text(json.dumps({**content, "images": images, "annotations": mine}))
    return file


def write_video(file: Path, frames: int, label: int) -> None:
    """A square in the colour of its class moves to the right by two pixels a frame."""
    video = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 10, (WIDTH, HEIGHT))
    assert video.isOpened()
    for frame in range(frames):
        picture = np.full((HEIGHT, WIDTH, 3), 5 * frame, np.uint8)
        x1, y1, x2, y2 = moving_box(frame)
        picture[y1:y2, x1:x2] = colour(label)[::-1]
        video.write(picture)
    video.release()


def moving_box(frame: int) -> tuple[int, int, int, int]:
    return 4 + 2 * frame, 20, 28 + 2 * frame, 44


def write_refdet(root: Path, videos: int = 4, frames: int = 30) -> Path:
    """Videos whose object is annotated in all frames but the first and the last five."""
    annotations = []
    for label in range(videos):
        folder = root / "samples" / f"video_{label}"
        (folder / "object_images").mkdir(parents=True)
        for photo in range(3):
            Image.new("RGB", (40, 30 + photo), colour(label)).save(
                folder / "object_images" / f"{photo}.jpg"
            )
        write_video(folder / "drone_video.mp4", frames, label)
        corners = ("x1", "y1", "x2", "y2")
        boxes = [
            {"frame": frame, **dict(zip(corners, moving_box(frame), strict=True))}
            for frame in range(5, frames - 5)
        ]
        annotations.append({"video_id": f"video_{label}", "annotations": [{"bboxes": boxes}]})
    (root / "annotations.json").write_text(json.dumps(annotations))
    return root
