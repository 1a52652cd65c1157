"""The task-aligned assigner (Feng et al. 2021, TOOD) of Ultralytics, with shapes that do not depend on the values.

A target takes the ten anchor points inside it with the largest product of class score and CIoU, each to a power; an
anchor point that several take stands for the one that its box overlaps most. Ultralytics computes the product for the
pairs of a target and an anchor point inside it alone, and so has to know their number: the host waits for the device.
Here it is computed for all pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from fsdet.models.backbone import STRIDES
from fsdet.structures import Targets

TOPK = 10
"""Most anchor points that a target takes."""
ALPHA, BETA = 0.5, 6.0
"""Exponents of the class score and of the CIoU in the alignment."""
MIN_SIDE = float(STRIDES[1])
"""Targets with a shorter side, in pixels, are enlarged to it for the choice of anchor points."""
BOX_EPS, EPS = 1e-7, 1e-9
"""Keep quotients finite: of boxes, of alignments."""


@dataclass(frozen=True)
class Assignment:
    """The target of every positive anchor point."""

    positive: Bool[Tensor, "images anchors"]
    target_index: Int[Tensor, "images anchors"]
    """Index into the image's targets; meaningful where positive."""
    scores: Float[Tensor, "images anchors classes"]
    """Soft class targets."""
    max_positives: int
    """Upper limit of the number of positives, known without looking: the number of slots."""

    @cached_property
    def slots(self) -> Int[Tensor, " slots"]:
        """Indices of the positive anchor points among those of all images, ascending; then -1 in every free slot."""
        found = torch.nonzero_static(
            self.positive.flatten(), size=self.max_positives, fill_value=-1
        )
        return found[:, 0]

    @cached_property
    def taken(self) -> Bool[Tensor, " slots"]:
        """Whether a slot holds a positive; the values of a free one are those of any anchor point."""
        return self.slots >= 0

    @property
    def anchors(self) -> Int[Tensor, " slots"]:
        """The anchor point of each slot."""
        return self.slots % self.positive.shape[1]

    @cached_property
    def images(self) -> Int[Tensor, " slots"]:
        """The image of each slot."""
        return self.slots // self.positive.shape[1]

    def of_positives(
        self, values: Shaped[Tensor, "images anchors *rest"]
    ) -> Shaped[Tensor, " slots *rest"]:
        """The values of the anchor point of each slot."""
        return values.flatten(0, 1)[self.slots]

    def of_targets(
        self, values: Shaped[Tensor, "images objects *rest"]
    ) -> Shaped[Tensor, " slots *rest"]:
        """The values of the target of each slot."""
        return values[self.images, self.of_positives(self.target_index)]


@torch.no_grad()
def assign(
    boxes: Float[Tensor, "images anchors 4"],
    logits: Float[Tensor, "images anchors classes"],
    points: Float[Tensor, "anchors 2"],
    targets: Targets,
) -> Assignment:
    """Choose the positive anchor points.

    Args:
        boxes: predicted, xyxy in pixels.
        logits: predicted, of each class.
        points: anchor points in pixels, at least ten.
        targets: labels in 0 … classes - 1.
    """
    outside = ~(targets.mask[..., None] & points_inside(points, targets))
    overlaps = ciou(targets.boxes, boxes.float()).clamp_(min=0).masked_fill_(outside, 0)
    scores = logits.float().sigmoid().transpose(1, 2)
    scores = scores.gather(1, targets.labels[..., None].expand_as(overlaps))
    aligned = (scores.pow_(ALPHA) * overlaps.pow(BETA)).masked_fill_(outside, 0)

    best = aligned.topk(TOPK, dim=-1).indices
    chosen = torch.zeros_like(outside).scatter_(-1, best, True) & ~outside
    chosen = _one_target_each(chosen, overlaps)
    positive, target_index = chosen.view(torch.int8).max(dim=1)

    quality = _quality(aligned * chosen, overlaps * chosen)
    labels = targets.labels.gather(1, target_index)
    soft = torch.zeros_like(logits, dtype=torch.float32)
    soft.scatter_(2, labels[..., None], (quality * positive)[..., None])
    limit = targets.mask.numel() if targets.limit is None else targets.limit
    return Assignment(positive.bool(), target_index, soft, min(TOPK * limit, positive.numel()))


def points_inside(
    points: Float[Tensor, "anchors 2"], targets: Targets
) -> Bool[Tensor, "images objects anchors"]:
    """Whether each anchor point lies inside each target, of which the smallest are enlarged."""
    top_left, bottom_right = targets.boxes.chunk(2, dim=-1)
    centres = (top_left + bottom_right) / 2
    half = (bottom_right - top_left).clamp(min=MIN_SIDE) / 2
    (left, top), (right, bottom) = (
        (corner[..., :1], corner[..., 1:]) for corner in (centres - half, centres + half)
    )
    x, y = points.T.contiguous()
    inside: Tensor = (x - left > EPS) & (y - top > EPS) & (right - x > EPS) & (bottom - y > EPS)
    return inside


def ciou(
    targets: Float[Tensor, "images objects 4"], boxes: Float[Tensor, "images anchors 4"]
) -> Float[Tensor, "images objects anchors"]:
    """CIoU (Zheng et al. 2020) of all pairs, in the order of operations of Ultralytics, so that ties stay ties."""
    x1, y1, x2, y2 = targets[..., None].unbind(2)
    u1, v1, u2, v2 = boxes.transpose(1, 2).contiguous()[:, :, None].unbind(1)
    width, height = x2 - x1, y2 - y1 + BOX_EPS
    box_width, box_height = u2 - u1, v2 - v1 + BOX_EPS
    shared = _shared(x1, x2, u1, u2).mul_(_shared(y1, y2, v1, v2))
    union = (width * height + box_width * box_height).sub_(shared).add_(BOX_EPS)
    iou = shared.div_(union)
    diagonal = _around(x1, x2, u1, u2).pow_(2).add_(_around(y1, y2, v1, v2).pow_(2)).add_(BOX_EPS)
    distance = (u1 + u2 - x1).sub_(x2).pow_(2).add_((v1 + v2 - y1).sub_(y2).pow_(2)).div_(4)
    angles = (box_width / box_height).atan() - (width / height).atan()
    aspect = angles.pow_(2).mul_(4 / math.pi**2)
    weight = aspect / (1 - iou).add_(aspect).add_(BOX_EPS)
    found: Tensor = iou.sub_(distance.div_(diagonal).add_(aspect.mul_(weight)))
    return found


def _shared(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
    """Length of the intersection of two ranges."""
    return high.minimum(other_high).sub_(low.maximum(other_low)).clamp_(min=0)


def _around(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
    """Length of the range around two ranges."""
    return high.maximum(other_high).sub_(low.minimum(other_low))


def _one_target_each(
    chosen: Bool[Tensor, "images objects anchors"],
    overlaps: Float[Tensor, "images objects anchors"],
) -> Bool[Tensor, "images objects anchors"]:
    """An anchor point that several targets chose goes to the one it overlaps most, be it one of them or not."""
    largest = overlaps.max(dim=1).indices
    alone = torch.zeros_like(chosen).scatter_(1, largest[:, None], True)
    return torch.where(chosen.sum(dim=1, keepdim=True) > 1, alone, chosen)


def _quality(
    aligned: Float[Tensor, "images objects anchors"],
    overlaps: Float[Tensor, "images objects anchors"],
) -> Float[Tensor, "images anchors"]:
    """Alignment of each positive, scaled so that the largest of a target is the largest overlap of that target."""
    largest = aligned.amax(dim=-1, keepdim=True)
    return (aligned * overlaps.amax(dim=-1, keepdim=True)).div_(largest + EPS).amax(dim=1)
