"""Gradient norms, update ratios and gradient shares, computed without synchronising with the device.

Gradient shares say how much of the gradient of the backbone comes from each loss term and each scale: the share of a
term in the *loss* says little about its share in the *gradient*. They are measured on one weight that every scale
depends on, the last convolution before P2. The gradient of a scale is the part that arrives there through that scale's
own path into the fusion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsdet.losses.criterion import Losses


class GradientMonitor:
    """Global L2 norms of the gradients, total and per module, and the largest norm of each tensor.

    Args:
        parameters: module name -> its trainable parameters, all on one device.
    """

    def __init__(self, parameters: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self._modules = {name: list(tensors) for name, tensors in parameters.items()}
        self.parameters = [p for tensors in parameters.values() for p in tensors]
        """All parameters, in the order given."""
        self.device = self.parameters[0].device
        self._sizes = [len(tensors) for tensors in parameters.values()]
        self._zero = torch.zeros((), device=self.device)
        self.each = torch.zeros(len(self.parameters), device=self.device)
        """(parameters,) gradient norm of each when `measure` was called last."""
        self.peaks = torch.zeros_like(self.each)
        """(parameters,) largest gradient norm of each so far."""

    def scale_modules_(self, factors: Mapping[str, float]) -> None:
        """Multiply the gradients of each module in place by its factor."""
        for name, factor in factors.items():
            grads = [p.grad for p in self._modules[name] if p.grad is not None]
            if factor != 1 and grads:
                torch._foreach_mul_(grads, factor)

    def measure(self) -> Float[Tensor, " total_and_modules"]:
        """Norms of the gradients as they are now; a parameter without gradient counts as zero.

        Returns:
            float32 on the device: the total, then each module.
        """
        self.each = self._norms()
        torch.fmax(self.peaks, self.each, out=self.peaks)  # fmax ignores NaN
        parts = self.each.split_with_sizes(self._sizes)
        modules = torch.stack([(part**2).sum() for part in parts])
        return torch.cat([modules.sum()[None], modules]).sqrt()

    def total(self) -> Float[Tensor, ""]:
        """The global norm alone, a scalar on the device."""
        total: Tensor = torch.linalg.vector_norm(self._norms())
        return total

    def clip_(self, total_norm: Float[Tensor, ""], max_norm: float) -> None:
        """Scale all gradients in place so that their global norm is at most `max_norm`; 0 = off.

        Equals `torch.nn.utils.clip_grad_norm_`, but takes the norm instead of computing it again.

        Args:
            total_norm: the first value of `measure`.
            max_norm: upper limit.
        """
        if max_norm > 0:
            self.scale_((max_norm / (total_norm + 1e-6)).clamp(max=1.0))

    def scale_(self, factor: Float[Tensor, ""]) -> None:
        """Multiply all gradients in place."""
        if grads := [p.grad for p in self.parameters if p.grad is not None]:
            torch._foreach_mul_(grads, factor)

    def _norms(self) -> Float[Tensor, " parameters"]:
        """float32; 0 for a parameter without gradient."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norms = iter(torch._foreach_norm(grads, 2, torch.float32) if grads else ())
        each = [self._zero if p.grad is None else next(norms) for p in self.parameters]
        return torch.stack(each)


class UpdateRatio:
    """Update ratio of each module: the norm of the change of its weights over the norm of the weights.

    Args:
        parameters: module name -> its trainable parameters, all on one device.
    """

    def __init__(self, parameters: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self._modules = [list(tensors) for tensors in parameters.values()]
        self._device = next(p.device for tensors in self._modules for p in tensors)
        self._before: list[list[Tensor]] = []

    def before(self) -> None:
        """Store a copy of the weights."""
        self._before = [[p.detach().clone() for p in tensors] for tensors in self._modules]

    def after(self) -> Float[Tensor, " modules"]:
        """Ratios since `before`; 0 for a module without trainable weights.

        Raises:
            RuntimeError: `before` was not called since the last `after`.
        """
        if not self._before:
            raise RuntimeError("UpdateRatio.after needs a call of before() ahead of the step")
        ratios = [
            self._ratio(tensors, old)
            for tensors, old in zip(self._modules, self._before, strict=True)
        ]
        self._before = []
        return torch.stack(ratios)

    def _ratio(self, tensors: list[nn.Parameter], old: list[Tensor]) -> Tensor:
        if not tensors:
            return torch.zeros((), device=self._device)
        now = [p.detach() for p in tensors]
        moved = torch._foreach_sub(now, old)
        change = torch.stack(torch._foreach_norm(moved)).norm()
        size = torch.stack(torch._foreach_norm(old)).norm()
        ratio: Tensor = change / size.clamp(min=1e-12)
        return ratio


SCALES = ("P2", "P3", "P4", "P5")
LOSS_SCALE = 2.0**10
"""The loss is scaled by this, since half precision would round small gradients to zero."""


def gradient_shares(losses: Losses, taps: list[Tensor], shared: Tensor) -> dict[str, Tensor]:
    """Norms of the parts of the gradient on `shared`; the graph is retained.

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
            loss, taps, torch.full_like(loss, LOSS_SCALE), retain_graph=True, materialize_grads=True
        )
        for term, loss in losses.weighted.items()
    }
    terms = {term: _gradient_on(shared, taps, grads) for term, grads in at_taps.items()}
    scales = [
        _gradient_on(shared, [tap], [torch.stack(parts).sum(0)])
        for tap, *parts in zip(taps, *at_taps.values(), strict=True)
    ]
    norms = torch.stack([scale.norm() for scale in scales])
    whole = torch.stack(scales).sum(0).norm()
    return {
        **{f"grad/term/{term}": grad.norm() for term, grad in terms.items()},
        **{f"grad/scale/{name}": norm for name, norm in zip(SCALES, norms, strict=True)},
        "grad/accumulation": whole / norms.mean().clamp(min=1e-12),
    }


def _gradient_on(
    shared: Tensor, taps: list[Tensor], grads: tuple[Tensor, ...] | list[Tensor]
) -> Tensor:
    """Gradient on `shared` of what arrives at `taps`, in single precision."""
    (found,) = torch.autograd.grad(
        taps, shared, grads, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return found.float() / LOSS_SCALE
