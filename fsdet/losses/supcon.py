"""Supervised contrastive loss (Khosla et al. 2020, L_out: the sum outside the logarithm)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def supcon_loss(embeddings: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Pull embeddings of one label together, push others apart.

    Args:
        embeddings: (N, D), normalised here.
        labels: (N,).
        temperature: divides the cosine similarities.

    Returns:
        Scalar in nats: mean over the embeddings that have a partner of the same label; 0, still
        part of the graph, if none has. float32, also under autocast.
    """
    unit = F.normalize(embeddings.float(), dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    with torch.autocast(unit.device.type, enabled=False):
        logits = (unit @ unit.T / temperature).masked_fill(itself, float("-inf"))
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    partner = (labels[:, None] == labels) & ~itself
    partners = partner.sum(dim=1)
    per_anchor = -log_p.masked_fill(~partner, 0).sum(dim=1) / partners.clamp(min=1)
    return per_anchor.sum() / (partners > 0).sum().clamp(min=1)
