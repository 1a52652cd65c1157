"""Classification losses: BCE over all anchor points, and cross-entropy over base classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy in nats, summed over all anchor points and classes, background included.

    Args:
        logits: (B, A, C).
        targets: (B, A, C) soft, 0 … 1.

    Returns:
        Scalar, float32.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")


def base_class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats; 0, still part of the graph, for no rows.

    Args:
        logits: (N, C) scaled cosine similarities.
        labels: (N,) in 0 … C - 1.

    Returns:
        Scalar, float32.
    """
    return F.cross_entropy(logits.float(), labels, reduction="sum") / max(len(labels), 1)
