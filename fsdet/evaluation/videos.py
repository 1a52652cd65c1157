"""Spatio-temporal IoU (ST-IoU) over the videos of an image set, each searched with its own supports.

ST-IoU says how well one object's boxes agree with the truth over the frames of a video: the sum of the IoUs of the
frames in which both have a box, over the number of frames in which either has one. A missed frame and a false alarm
both count as zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsdet.data.image_set import Array, ImageSet
from fsdet.models.detector import Detector
from fsdet.models.postprocess import SCORE_THRESHOLD, detect
from fsdet.models.support_features import SupportFeatures
from fsdet.progress import progress
from fsdet.structures import Detections


@dataclass(frozen=True)
class Tube:
    """At most one box in every frame of a video."""

    boxes: Float[Tensor, "frames 4"]
    """Corners xyxy; undefined where there is no box."""
    present: Bool[Tensor, " frames"]
    """True where there is a box."""


def st_iou(truth: Tube, found: Tube) -> float:
    """ST-IoU of one video, 0 … 1; 1 if neither has a box in any frame."""
    both, either = truth.present & found.present, truth.present | found.present
    if not either.any():
        return 1.0
    overlap = paired_iou(truth.boxes[both], found.boxes[both])
    return float(overlap.sum() / either.sum())


def paired_iou(
    first: Float[Tensor, "pairs 4"], second: Float[Tensor, "pairs 4"]
) -> Float[Tensor, " pairs"]:
    """IoU of each pair of boxes, xyxy; 0 for two boxes without area."""
    corner = torch.maximum(first[:, :2], second[:, :2])
    sides = (torch.minimum(first[:, 2:], second[:, 2:]) - corner).clamp(min=0)
    shared = sides.prod(dim=1)
    union = _area(first) + _area(second) - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def _area(boxes: Float[Tensor, "boxes 4"]) -> Float[Tensor, " boxes"]:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


FRAMES = 16
"""Frames in one forward pass."""


@torch.no_grad()
def evaluate_videos(
    detector: Detector,
    image_set: ImageSet,
    features: SupportFeatures,
    n_shot: int,
    device: str,
    label: str | None = None,
) -> float | None:
    """Mean ST-IoU over the objects of all videos; None if the set holds no video.

    Args:
        detector: in evaluation mode.
        image_set: `groups` gives the video of each frame, in order of time.
        features: embedded supports of `image_set`.
        n_shot: number of supports per object: the first ones of its class.
        device: of the detector.
        label: of the progress bar; None shows none.
    """
    values = []
    objects = list(_objects_in_videos(image_set))
    for searched, frames in progress(objects, label) if label and objects else objects:
        n_crops = min(n_shot, int(image_set.support_counts[searched]))
        ids = searched * image_set.supports.shape[1] + torch.arange(n_crops)
        shots = features.embed(ids[None, None])
        found = [
            detections
            for part in np.split(frames, range(FRAMES, len(frames), FRAMES))
            for detections in _search(detector, image_set, part, shots, device)
        ]
        best = best_boxes(found)
        values.append(st_iou(_true_boxes(image_set, searched, frames, best), best))
    return float(np.mean(values)) if values else None


def best_boxes(found: list[Detections]) -> Tube:
    """The best detection of every frame, where it scores at least `SCORE_THRESHOLD`."""
    boxes, present = torch.zeros(len(found), 4), torch.zeros(len(found), dtype=torch.bool)
    for frame, one in enumerate(found):
        if len(one.scores) and one.scores[0] >= SCORE_THRESHOLD:
            boxes[frame], present[frame] = one.boxes[0], True
    return Tube(boxes, present)


def _objects_in_videos(image_set: ImageSet) -> Iterator[tuple[int, Array]]:
    """Every class that a video shows, with the images that are the frames of this video."""
    for video in np.unique(image_set.groups[image_set.groups >= 0]):
        frames = np.flatnonzero(image_set.groups == video)
        labels = np.concatenate([image_set.objects(int(frame))[1] for frame in frames])
        for label in np.unique(labels):
            yield int(label), frames


def _search(
    detector: Detector,
    image_set: ImageSet,
    frames: Array,
    shots: Float[Tensor, "1 1 n_shot dim"],
    device: str,
) -> list[Detections]:
    pixels = np.stack([image_set.image(int(frame)) for frame in frames])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    return detect(detector.search(detector.encode(images), shots))


def _true_boxes(image_set: ImageSet, label: int, frames: Array, found: Tube) -> Tube:
    """The object's box in every frame; of several, the one nearest to what was found."""
    boxes, present = torch.zeros(len(frames), 4), torch.zeros(len(frames), dtype=torch.bool)
    for row, frame in enumerate(frames):
        corners, labels = image_set.objects(int(frame))
        own = torch.from_numpy(np.asarray(corners[labels == label], np.float32))
        if len(own):
            overlap = paired_iou(own, found.boxes[row].expand(len(own), 4))
            boxes[row], present[row] = own[overlap.argmax()], True
    return Tube(boxes, present)
