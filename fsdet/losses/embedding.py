"""Losses on embeddings: supervised contrastive (stages 2 and 3) and triplet (stage 3).

Supervised contrastive: Khosla et al. 2020, L_out, with the sum outside the logarithm. Triplet: Hermans et al. 2017,
In Defense of the Triplet Loss, with the hardest positive and negative of the batch.

Of both, samples that do not count are neither anchors nor compared with: the number of samples can be fixed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

LOWEST = torch.finfo(torch.float32).min
"""A logit with no share in a softmax; of a row of minus infinities the gradient would be NaN."""


def supcon_loss(
    embeddings: Float[Tensor, "samples dim"],
    labels: Int[Tensor, " samples"],
    temperature: float,
    counts: Bool[Tensor, " samples"] | None = None,
) -> Float[Tensor, ""]:
    """Supervised contrastive loss: embeddings of one label attract, others repel each other.

    Args:
        embeddings: normalised here.
        labels: of the embeddings.
        temperature: divides the cosine similarities.
        counts: which samples count; all if it is not given.

    Returns:
        nats: mean over the embeddings with another one of the same label; 0, still
        part of the graph, if none has. float32, also under autocast.
    """
    unit = F.normalize(embeddings.float(), dim=-1)
    others = _others(unit, counts)
    with torch.autocast(unit.device.type, enabled=False):
        logits = (unit @ unit.T / temperature).masked_fill(~others, LOWEST)
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    partner = (labels[:, None] == labels) & others
    partners = partner.sum(dim=1)
    per_anchor = -log_p.masked_fill(~partner, 0).sum(dim=1) / partners.clamp(min=1)
    return per_anchor.sum() / (partners > 0).sum().clamp(min=1)


def triplet_loss(
    embeddings: Float[Tensor, "samples dim"],
    labels: Int[Tensor, " samples"],
    margin: float,
    counts: Bool[Tensor, " samples"] | None = None,
) -> Float[Tensor, ""]:
    """Triplet loss: the farthest positive must be nearer than the nearest negative, by a margin.

    Distances are 1 - cosine. The positive of an anchor has its label and is not the anchor itself;
    the negative has another label.

    Args:
        embeddings: at least one, normalised here.
        labels: of the embeddings.
        margin: in units of the distance.
        counts: which samples count; all if it is not given.

    Returns:
        the mean over the embeddings that have both a positive and a negative; 0, still part of
        the graph, if none has. float32, also under autocast.
    """
    unit = F.normalize(embeddings.float(), dim=-1)
    with torch.autocast(unit.device.type, enabled=False):
        distance = 1 - unit @ unit.T
    same = labels[:, None] == labels
    others = _others(unit, counts)
    partner, stranger = same & others, ~same & others
    farthest = distance.masked_fill(~partner, -1).amax(dim=1)
    nearest = distance.masked_fill(~stranger, 3).amin(dim=1)
    complete = partner.any(dim=1) & stranger.any(dim=1)
    loss = (farthest - nearest + margin).clamp(min=0) * complete
    return loss.sum() / complete.sum().clamp(min=1)


def _others(
    samples: Float[Tensor, "samples dim"], counts: Bool[Tensor, " samples"] | None
) -> Bool[Tensor, "samples samples"]:
    """Which pairs of samples that count are not a sample and itself."""
    itself = torch.eye(len(samples), dtype=torch.bool, device=samples.device)
    return ~itself if counts is None else ~itself & counts & counts[:, None]
