"""Box losses: Wise-IoU v1, v2, v3 (Tong et al. 2023), CIoU (Zheng et al. 2020) and the distribution focal loss.

The distribution focal loss (DFL; Li et al. 2020, Generalized Focal Loss) acts on the head's distance distributions. A
uniform distribution costs ln(reg_max) nats per side: ln 16 = 2.773 for 16 bins. A target between two bins leaves a
minimum, the entropy of its weights: about 0.5 nats on average.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

BoxLossKind = Literal["wiou_v1", "wiou_v2", "wiou_v3", "ciou"]

EPS = 1e-7
"""Keeps quotients of degenerate boxes finite; far below a square pixel."""
GAMMA = 0.5
"""Exponent of the monotonic focusing of v2."""
ALPHA, DELTA = 1.9, 3.0
"""Shape of the non-monotonic focusing of v3."""
MOMENTUM = 0.01
"""Weight of a batch in the running mean of the IoU loss: a half-life of 69 batches."""


class BoxLoss(nn.Module):
    """Loss of each pair of a predicted and a target box, both xyxy in pixels.

    v2 and v3 weigh a box by its outlierness, its IoU loss over the running mean of that loss. The
    mean is a buffer, so it is part of the checkpoint; it is updated in training mode only and stays
    on the device. In WIoU neither the focusing nor the enclosing box carries a gradient.

    Args:
        kind: which loss.
    """

    iou_mean: Tensor

    def __init__(self, kind: BoxLossKind) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("iou_mean", torch.tensor(1.0))

    def forward(
        self,
        pred: Float[Tensor, "boxes 4"],
        target: Float[Tensor, "boxes 4"],
        counts: Bool[Tensor, " boxes"] | None = None,
    ) -> Float[Tensor, " boxes"]:
        """`counts` says which pairs enter the running mean; all if it is not given."""
        pred, target = _full_precision(pred), _full_precision(target)
        iou, distance, diagonal = iou_and_geometry(pred, target)
        loss = 1 - iou
        if self.kind == "ciou":
            return loss + distance / diagonal + aspect_penalty(pred, target, iou)
        if self.training and self.kind != "wiou_v1":
            self._update_mean(loss.detach(), counts)
        return self._focus(loss.detach()) * torch.exp(distance / diagonal.detach()) * loss

    def _update_mean(
        self, loss: Float[Tensor, " boxes"], counts: Bool[Tensor, " boxes"] | None
    ) -> None:
        counts = torch.ones_like(loss, dtype=torch.bool) if counts is None else counts
        mean = (loss.masked_fill(~counts, 0).sum() / counts.sum()).to(self.iou_mean.dtype)
        # NaN without boxes; one overflow under mixed precision must not stay in the mean, and so in every later loss
        self.iou_mean.lerp_(torch.where(mean.isfinite(), mean, self.iou_mean), MOMENTUM)

    def _focus(self, loss: Float[Tensor, " boxes"]) -> Float[Tensor, " boxes"]:
        outlierness = loss / self.iou_mean.clamp(min=EPS)
        if self.kind == "wiou_v2":
            return outlierness**GAMMA
        if self.kind == "wiou_v3":
            return outlierness / (DELTA * ALPHA ** (outlierness - DELTA))
        return torch.ones_like(loss)


def iou_and_geometry(
    a: Float[Tensor, "boxes 4"], b: Float[Tensor, "boxes 4"]
) -> tuple[Float[Tensor, " boxes"], Float[Tensor, " boxes"], Float[Tensor, " boxes"]]:
    """Compare two lists of boxes, xyxy, pair by pair.

    Returns:
        IoU, squared distance of the centres, squared diagonal of the box around both.
    """
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    # not prod(): its gradient synchronises with the host
    intersection = overlap[:, 0] * overlap[:, 1]
    iou = intersection / (_area(a) + _area(b) - intersection + EPS)
    distance = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) ** 2).sum(dim=1) / 4
    sides = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    return iou, distance, (sides**2).sum(dim=1) + EPS


def aspect_penalty(
    pred: Float[Tensor, "boxes 4"], target: Float[Tensor, "boxes 4"], iou: Float[Tensor, " boxes"]
) -> Float[Tensor, " boxes"]:
    """CIoU's term for different aspect ratios; its weight is detached, as in the paper."""
    v = (4 / math.pi**2) * (_aspect_angle(target) - _aspect_angle(pred)) ** 2
    weight = (v / (v - iou + 1 + EPS)).detach()
    return weight * v


def _aspect_angle(boxes: Float[Tensor, "boxes 4"]) -> Float[Tensor, " boxes"]:
    return torch.atan((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1] + EPS))


def _area(boxes: Float[Tensor, "boxes 4"]) -> Float[Tensor, " boxes"]:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def _full_precision(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def dfl_loss(
    logits: Float[Tensor, "points 4 reg_max"], targets: Float[Tensor, "points 4"]
) -> Float[Tensor, " points"]:
    """Cross-entropy to the two bins next to the target, weighted by their distance to it; mean over the sides.

    Args:
        logits: of the distance distributions.
        targets: left, top, right, bottom in stride units; clamped (in a copy) to just below the last bin.

    Returns:
        nats per side.
    """
    bins = logits.shape[-1]
    clamped = targets.clamp(0, bins - 1 - 0.01)
    left = clamped.floor().long()
    right_weight = clamped - left
    log_p = F.log_softmax(logits.float(), dim=-1)
    lower = log_p.gather(-1, left[..., None])[..., 0]
    upper = log_p.gather(-1, left[..., None] + 1)[..., 0]
    return -((1 - right_weight) * lower + right_weight * upper).mean(dim=-1)
