"""Reads reference-detection data: videos of one object each, with photos of that object.

    samples/<video_id>/object_images/*.jpg     photos of the object, the supports
    samples/<video_id>/drone_video.mp4
    annotations.json (or annotations/annotations.json)
        [{"video_id", "annotations": [{"bboxes": [{"frame", "x1", "y1", "x2", "y2"}]}]}]

Boxes are xyxy in pixels, frames count from 0, a class is a video. Of every video `frames_per_video` annotated frames
are used, evenly spaced, and a quarter as many without annotation, which serve as queries without a target.

Of a base video the last fifth of the annotated time is for evaluation; of a novel one the first fifth holds the K
shots of stage 3 and the rest is for evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsdet.config import DataConfig
from fsdet.data.image_set import Array
from fsdet.data.images import IMAGE_SUFFIXES, count_frames
from fsdet.data.problems import Problems
from fsdet.data.records import Dataset, ImageRef, Record, Subset
from fsdet.errors import DataError
from fsdet.progress import progress
from fsdet.reading import LARGEST_DATASET, read_json

VIDEO = "drone_video.mp4"
BACKGROUND = 0.25
"""Frames without annotation, as a fraction of those with one."""
HELD_OUT = 0.2
"""Fraction of a video's annotated time that is held out: the end of a base video, the start of a novel one."""

Boxes = dict[int, list[Array]]
"""Frame -> boxes (4,) xyxy in pixels."""


def read_refdet(config: DataConfig) -> Dataset:
    """The sampled frames of all videos, and the photos of their objects.

    Raises:
        DataError: `annotations.json` or `samples` is missing or broken, or no video can be used.
    """
    root = config.data_root
    if root is None:
        raise DataError("data_root: dataset 'refdet' needs the folder of samples/; set data_root")
    problems = Problems()
    annotations = _annotations(annotation_file(root), problems)
    videos = list(_videos(root, annotations, problems))
    if len(videos) < 2:
        raise DataError(
            f"{root}: {len(videos)} of {len(annotations)} annotated videos can be used, but base and novel take one "
            f"each; {'; '.join(map(str, problems.report())) or 'add videos'}"
        )
    names = tuple(video.name for video in videos)
    records = [
        record
        for label, video in enumerate(videos)
        for record in _records(video, label, config.frames_per_video)
    ]
    photos = {label: video.photos for label, video in enumerate(videos)}
    return Dataset(root, names, tuple(records), object_images=photos, problems=problems)


def annotation_file(root: Path) -> Path:
    """Where the annotations are.

    Raises:
        DataError: they, or the folder of the videos, are missing.
    """
    places = [root / "annotations.json", root / "annotations" / "annotations.json"]
    found = [place for place in places if place.is_file()]
    if not found:
        raise DataError(
            f"{places[0]}: no such file; data_root must hold annotations.json and samples/"
        )
    if not (root / "samples").is_dir():
        raise DataError(
            f"{root / 'samples'}: no such folder; data_root must hold a folder per video there"
        )
    return found[0]


def _annotations(file: Path, problems: Problems) -> dict[str, Boxes]:
    """Video -> its boxes by frame."""
    content = read_json(file, DataError, LARGEST_DATASET, "download or export it again")
    if not isinstance(content, list):
        raise DataError(f"{file}: must hold a list of videos, but holds a {type(content).__name__}")
    videos: dict[str, Boxes] = {}
    for entry in content:
        try:
            name, tracks = str(entry["video_id"]), list(entry["annotations"])
        except (KeyError, TypeError):
            problems.add("annotation malformed", f"{file.name}: {entry!r:.60}")
            continue
        frames = videos.setdefault(name, {})
        for box in _boxes(tracks, name, problems):
            frames.setdefault(int(box[0]), []).append(box[1:])
    return videos


def _boxes(tracks: list[Any], name: str, problems: Problems) -> Iterator[Array]:
    """(5,) frame and box of every annotation of a video."""
    for track in tracks:
        boxes = track.get("bboxes") if isinstance(track, dict) else None
        if not isinstance(boxes, list):
            problems.add("annotation malformed", name)
            continue
        for box in boxes:
            try:
                values = np.array([box[key] for key in ("frame", "x1", "y1", "x2", "y2")], float)
                if not (values[0] >= 0 and values[0] == int(values[0])):
                    raise ValueError
            except (KeyError, TypeError, ValueError, OverflowError):
                problems.add("annotation malformed", f"{name}: {box!r:.60}")
                continue
            yield values


@dataclass(frozen=True)
class _Video:
    name: str
    file: Path
    photos: tuple[Path, ...]
    boxes: Boxes
    n_frames: int


def _videos(root: Path, annotations: dict[str, Boxes], problems: Problems) -> Iterator[_Video]:
    """The videos that can be used, in the order of their names."""
    folders = {path.name for path in (root / "samples").iterdir() if path.is_dir()}
    for name in progress(sorted(folders | set(annotations)), "checking videos"):
        folder = root / "samples" / name
        photos = tuple(
            sorted(
                p
                for p in (folder / "object_images").glob("*")
                if p.suffix.lower() in IMAGE_SUFFIXES
            )
        )
        boxes = annotations.get(name, {})
        n_frames = count_frames(folder / VIDEO) if (folder / VIDEO).is_file() else None
        if n_frames:  # otherwise the video is left out for another reason
            boxes = _inside(boxes, n_frames, str((folder / VIDEO).relative_to(root)), problems)
        if n_frames is None:
            problems.add("video missing", name)
        elif not boxes:
            problems.add("video without annotation", name)
        elif not photos:
            problems.add("video without object images", name)
        elif n_frames == 0:
            problems.add("video unreadable", name)
        else:
            yield _Video(name, folder / VIDEO, photos, boxes, n_frames)


def _inside(boxes: Boxes, n_frames: int, place: str, problems: Problems) -> Boxes:
    """The boxes of existing frames: one far beyond the end would shift the split in time."""
    inside = {frame: found for frame, found in boxes.items() if frame < n_frames}
    if len(inside) < len(boxes):
        problems.add("frame beyond the end", place, len(boxes) - len(inside))
    return inside


def _records(video: _Video, label: int, count: int) -> Iterator[Record]:
    """The sampled frames in temporal order."""
    annotated = np.array(sorted(video.boxes))
    background = np.setdiff1d(np.arange(video.n_frames), annotated)
    sampled = [*_evenly(annotated, count), *_evenly(background, round(BACKGROUND * count))]
    first, last = int(annotated[0]), int(annotated[-1])
    for frame in sorted(map(int, sampled)):
        boxes = np.array(video.boxes.get(frame, []), np.float64).reshape(-1, 4)
        labels = np.full(len(boxes), label, np.int64)
        subset: Subset = "eval" if frame > last - HELD_OUT * (last - first) else "train"
        if_novel: Subset = "train" if frame <= first + HELD_OUT * (last - first) else "eval"
        image = ImageRef(video.file, frame)
        yield Record(image, subset, boxes, labels, video=label, subset_if_novel=if_novel)


def _evenly(frames: Array, count: int) -> Array:
    if len(frames) <= count:
        return frames
    chosen: Array = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    return chosen
