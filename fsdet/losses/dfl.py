"""Distribution focal loss (Li et al. 2020, Generalized Focal Loss) on the head's distance distributions.

A uniform distribution costs ln(reg_max) nats a side: ln 16 = 2.773 for 16 bins. A target
between two bins leaves a floor, the entropy of its weights: about 0.5 nats on average.
"""

from __future__ import annotations

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
