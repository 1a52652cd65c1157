"""Who moves the backbone: the gradient that each loss term and each scale sends into it.

The share of a term in the *loss* says little of its share in the *gradient*. All is measured on one
weight that every scale depends on, the last convolution before P2. The gradient of a scale is what
arrives there by that scale's own way into the fusion.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fsdet.losses.criterion import Losses

SCALES = ("P2", "P3", "P4", "P5")
BOOST = 2.0**10
"""The gradients are taken of a loss this many times larger: half precision would round small ones to zero."""


def gradient_shares(losses: Losses, taps: list[Tensor], shared: Tensor) -> dict[str, Tensor]:
    """Norms of the parts of the gradient on `shared`; the graph stays as it was.

    Args:
        losses: of one batch.
        taps: P2 … P5 as the fusion reads them, see `fsdet.models.detector.EncodedImages`.
        shared: a weight of the backbone that all scales depend on.

    Returns:
        `grad/term/<term>`: norm of each weighted term's gradient; `grad/scale/<scale>`: of each
        scale's; `grad/accumulation`: the norm of the sum of the scales over the mean of their
        norms: 4 if they are equal and agree, 2 if they are equal and unrelated. Scalars on the device.
    """
    at_taps = {
        term: torch.autograd.grad(
            loss, taps, torch.full_like(loss, BOOST), retain_graph=True, materialize_grads=True
        )
        for term, loss in losses.weighted.items()
    }
    terms = {term: _on(shared, taps, grads) for term, grads in at_taps.items()}
    scales = [
        _on(shared, [tap], [torch.stack(parts).sum(0)])
        for tap, *parts in zip(taps, *at_taps.values(), strict=True)
    ]
    norms = torch.stack([scale.norm() for scale in scales])
    whole = torch.stack(scales).sum(0).norm()
    return {
        **{f"grad/term/{term}": grad.norm() for term, grad in terms.items()},
        **{f"grad/scale/{name}": norm for name, norm in zip(SCALES, norms, strict=True)},
        "grad/accumulation": whole / norms.mean().clamp(min=1e-12),
    }


def _on(shared: Tensor, taps: list[Tensor], grads: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Gradient on `shared` of what arrives at `taps`, in single precision."""
    (found,) = torch.autograd.grad(
        taps, shared, grads, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return found.float() / BOOST
