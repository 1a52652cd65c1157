"""Distribution focal loss (Li et al. 2020, Generalized Focal Loss) and the box code around it.

A side's distance from the anchor point, in units of the stride, is the expectation over `reg_max`
bins. A uniform distribution costs ln(reg_max) nats a side: ln 16 = 2.773 for 16 bins. A target
between two bins leaves a floor, the entropy of its weights: about 0.5 nats on average.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dfl_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy to the two bins beside the target, weighted by nearness; mean over the sides.

    Args:
        logits: (N, 4, reg_max).
        targets: (N, 4) left, top, right, bottom in stride units; clamped (in a copy) to just below
            the last bin.

    Returns:
        (N,) nats per side.
    """
    bins = logits.shape[-1]
    clamped = targets.clamp(0, bins - 1 - 0.01)
    left = clamped.floor().long()
    right_weight = clamped - left
    log_p = F.log_softmax(logits.float(), dim=-1)
    lower = log_p.gather(-1, left[..., None])[..., 0]
    upper = log_p.gather(-1, left[..., None] + 1)[..., 0]
    return -((1 - right_weight) * lower + right_weight * upper).mean(dim=-1)


def decode_ltrb(logits: Tensor) -> Tensor:
    """(…, 4, reg_max) logits -> (…, 4) expected distances in stride units, float32."""
    # not a matrix product: autocast would round the distances to eight bits
    bins = torch.arange(logits.shape[-1], dtype=torch.float32, device=logits.device)
    return (logits.float().softmax(dim=-1) * bins).sum(dim=-1)


def ltrb_to_boxes(points: Tensor, distances: Tensor, strides: Tensor) -> Tensor:
    """Boxes (…, 4) xyxy in pixels.

    Args:
        points: (…, 2) anchor points in pixels.
        distances: (…, 4) left, top, right, bottom in stride units.
        strides: (…, 1) in pixels.
    """
    scaled = distances * strides
    return torch.cat([points - scaled[..., :2], points + scaled[..., 2:]], dim=-1)


def boxes_to_ltrb(points: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
    """Distances (…, 4) in stride units, the inverse of `ltrb_to_boxes`; negative outside the box.

    Args:
        points: (…, 2) anchor points in pixels.
        boxes: (…, 4) xyxy in pixels.
        strides: (…, 1) in pixels.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1) / strides
