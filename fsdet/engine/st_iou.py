"""Spatio-temporal IoU: how well one object's boxes agree with the truth over the frames of a video.

The sum of the IoUs of the frames in which both have a box, over the number of frames in which either
has one: a missed frame and a false alarm both count as zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tube:
    """At most one box in every frame of a video."""

    boxes: Tensor
    """(F, 4) xyxy; of no meaning where there is no box."""
    present: Tensor
    """(F,) bool, True where there is a box."""


def st_iou(truth: Tube, found: Tube) -> float:
    """ST-IoU of one video, 0 … 1; 1 if neither has a box in any frame."""
    both, either = truth.present & found.present, truth.present | found.present
    if not either.any():
        return 1.0
    overlap = paired_iou(truth.boxes[both], found.boxes[both])
    return float(overlap.sum() / either.sum())


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """(n, 4) and (n, 4) xyxy -> (n,) IoU of each pair; 0 for two boxes without area."""
    corner = torch.maximum(first[:, :2], second[:, :2])
    extent = (torch.minimum(first[:, 2:], second[:, 2:]) - corner).clamp(min=0)
    shared = extent.prod(dim=1)
    union = _area(first) + _area(second) - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
