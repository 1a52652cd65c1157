"""The clip modes: what keeps a single step from moving the weights too far.

| mode | what is limited | by what |
|---|---|---|
| `norm` | the global gradient norm | `gradient_clip_norm` |
| `agc` | the gradient of each unit | the norm of its weights (Brock et al. 2021) |
| `zclip` | the global gradient norm | its own running mean and variance (Kumar et al. 2025) |
| `adagc` | the gradient of each tensor | the running mean of its own norm (Wang et al. 2025) |
| `update` | AdamW's update of each tensor | the root mean square of g²/v (Wortsman et al. 2023) |
| `none` | nothing | |

AdamW divides a gradient by the root of its own running square, so that a factor that all steps share is lost; a mode
that scales gradients acts only where the factor changes from step to step. `update` acts after AdamW.

All computations stay on the device, and what a mode remembers is in its buffers, which are part of a checkpoint. A
step whose gradient is not finite changes no buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from timm.utils.agc import adaptive_clip_grad
from torch import Tensor, nn
from torch.optim import Optimizer

from fsdet.config import GradientConfig
from fsdet.training.gradients import GradientMonitor
from fsdet.training.optim import update_rms

AGC_EPS = 1e-3
"""Smallest weight norm that adaptive clipping uses."""
TINY = 1e-6
"""Added to a divisor, as in `torch.nn.utils.clip_grad_norm_` and in ZClip."""


@dataclass(frozen=True)
class Clipped:
    """What clipping did in one step; scalars on the device."""

    norm: Float[Tensor, ""]
    """Global norm of the gradient that the optimiser gets. In mode `update` the gradient stays as it is, and this is
    its norm with every tensor multiplied by the factor of its update."""
    share: Float[Tensor, ""] | None = None
    """Share of the tensors that were clipped; None if all are scaled alike, or by units."""
    rms: Float[Tensor, " parameters"] | None = None
    """Of `update_rms`, if the mode needs it."""


class Clipping(nn.Module):
    """Mode `none`, and the base of the others.

    Args:
        gradients: of all trained parameters.
    """

    def __init__(self, gradients: GradientMonitor) -> None:
        super().__init__()
        self._gradients = gradients

    def clip_(self, norm: Float[Tensor, ""]) -> Clipped:
        """Clip the gradients in place.

        Args:
            norm: their global norm, just measured by `gradients`.
        """
        return Clipped(norm)

    @contextmanager
    def limited_update(self) -> Iterator[None]:
        """Around the step of the optimiser, for the mode that limits what it does."""
        yield

    def _scale_each_(self, factors: Float[Tensor, " parameters"]) -> Clipped:
        """Multiply the gradient of each parameter by its factor, of at most 1."""
        pairs = zip(self._gradients.parameters, factors.unbind(), strict=True)
        found = [(p.grad, factor) for p, factor in pairs if p.grad is not None]
        if found:
            torch._foreach_mul_([grad for grad, _ in found], [factor for _, factor in found])
        return self._clipped(factors)

    def _clipped(
        self, factors: Float[Tensor, " parameters"], rms: Float[Tensor, " parameters"] | None = None
    ) -> Clipped:
        norm = torch.linalg.vector_norm(self._gradients.each * factors)
        return Clipped(norm, (factors < 1).float().mean(), rms)


class NormClipping(Clipping):
    """Scales all gradients so that their global norm is at most `max_norm`, above 0."""

    def __init__(self, gradients: GradientMonitor, max_norm: float) -> None:
        super().__init__(gradients)
        self._max_norm = max_norm

    def clip_(self, norm: Float[Tensor, ""]) -> Clipped:
        self._gradients.clip_(norm, self._max_norm)
        return Clipped(norm.clamp(max=self._max_norm))


class UnitClipping(Clipping):
    """Adaptive gradient clipping (Brock et al. 2021), by timm.

    The gradient of each unit (a row of a weight, a whole bias) is scaled so that its norm is at most `factor` times
    the norm of its weights, which counts as at least 1e-3, so that weights that start at zero can move.

    Args:
        gradients: of all trained parameters.
        units: the parameters that are clipped: all except those of the final layer, which the paper leaves out.
        factor: largest ratio of the two norms.
    """

    def __init__(
        self, gradients: GradientMonitor, units: Sequence[nn.Parameter], factor: float
    ) -> None:
        super().__init__(gradients)
        self._units = list(units)
        self._factor = factor

    def clip_(self, norm: Float[Tensor, ""]) -> Clipped:  # noqa: ARG002 - timm measures again
        adaptive_clip_grad(self._units, self._factor, eps=AGC_EPS)
        return Clipped(self._gradients.total())


class SpikeClipping(Clipping):
    """ZClip (Kumar et al. 2025), its mode of reciprocal z-scores.

    A norm whose z-score exceeds `z` is a spike. It is clipped to mean + z²/z-score standard deviations: the farther
    out, the closer to the mean. Mean and variance are those of the first `warmup` norms, then running ones of
    the norms after clipping.

    Args:
        gradients: of all trained parameters.
        config: `zclip_z`, `zclip_decay` and `zclip_warmup`.
    """

    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, gradients: GradientMonitor, config: GradientConfig) -> None:
        super().__init__(gradients)
        self._z, self._decay, self._warmup = config.zclip_z, config.zclip_decay, config.zclip_warmup
        for name in ("mean", "variance", "seen"):
            self.register_buffer(name, torch.zeros((), device=gradients.device))

    def clip_(self, norm: Float[Tensor, ""]) -> Clipped:
        deviation = self.variance.sqrt()
        score = (norm - self.mean) / (deviation + TINY)
        spike = (self.seen >= self._warmup) & (score > self._z) & norm.isfinite()
        limit = torch.where(spike, self.mean + deviation * self._z**2 / score, norm)
        self._gradients.scale_(torch.where(spike, limit / (norm + TINY), 1.0))
        self._remember(limit)
        return Clipped(limit)

    def _remember(self, norm: Float[Tensor, ""]) -> None:
        """Mean and variance of the steps so far while they are few (Welford 1962), then running ones."""
        early = self.seen < self._warmup
        weight = torch.where(early, 1 / (self.seen + 1), 1 - self._decay)
        mean = self.mean.lerp(norm, weight)
        apart = torch.where(early, norm - self.mean, norm - mean) * (norm - mean)
        valid = norm.isfinite()
        self.variance.copy_(torch.where(valid, self.variance.lerp(apart, weight), self.variance))
        self.mean.copy_(torch.where(valid, mean, self.mean))
        self.seen.add_(valid)


class TensorClipping(Clipping):
    """AdaGC (Wang et al. 2025): each tensor against the running mean of its own norm after clipping.

    The first `warmup` steps clip the global norm at `gradient_clip_norm` and record the smallest norm of each
    tensor after that. A norm of zero is left out of both: a tensor behind a layer that starts at zero, or without a
    target in a batch, would have a mean of zero from then on and never learn.

    Args:
        gradients: of all trained parameters.
        config: `adagc_factor`, `adagc_decay`, `adagc_warmup`, and `gradient_clip_norm` for the warm-up.
    """

    means: Tensor
    seen: Tensor

    def __init__(self, gradients: GradientMonitor, config: GradientConfig) -> None:
        super().__init__(gradients)
        self._factor, self._decay = config.adagc_factor, config.adagc_decay
        self._warmup = config.adagc_warmup
        self._max_norm = config.gradient_clip_norm or torch.inf
        self.register_buffer("means", torch.full_like(gradients.peaks, torch.inf))
        self.register_buffer("seen", torch.zeros((), device=gradients.device))

    def clip_(self, norm: Float[Tensor, ""]) -> Clipped:
        each, early = self._gradients.each, self.seen < self._warmup
        together = self._max_norm / (norm + TINY)
        factors = torch.where(early, together, self._factor * self.means / each).clamp(max=1.0)
        self._remember(each * factors, early, norm.isfinite())
        return self._scale_each_(factors)

    def _remember(
        self, norms: Float[Tensor, " parameters"], early: Tensor, valid: Float[Tensor, ""]
    ) -> None:
        smallest = torch.minimum(self.means, norms)
        running = self._decay * self.means + (1 - self._decay) * norms
        known = torch.where(early | self.means.isinf(), smallest, running)
        self.means.copy_(torch.where(valid & (norms > 0), known, self.means))
        self.seen.add_(valid)


class UpdateClipping(Clipping):
    """Update clipping as in StableAdamW (Wortsman et al. 2023).

    The update of each tensor, weight decay included, is divided by max(1, RMS / `limit`), where RMS² is the mean of
    g²/v over the tensor, with v that already contains g. The optimiser steps in full first; then each tensor is
    brought back, so that its moments and its fused kernel stay those of AdamW. timm has the same in an AdamW of its
    own, which it calls deprecated, which has no fused kernel and leaves weight decay unclipped.

    Args:
        gradients: of all trained parameters.
        optimizer: an AdamW.
        limit: the RMS up to which an update is left alone; 1 in the paper.
    """

    def __init__(self, gradients: GradientMonitor, optimizer: Optimizer, limit: float) -> None:
        super().__init__(gradients)
        self._optimizer = optimizer
        self._limit = limit
        self._factors = torch.ones_like(gradients.peaks)

    def clip_(self, norm: Float[Tensor, ""]) -> Clipped:  # noqa: ARG002 - it limits what comes of it
        rms = update_rms(self._optimizer, self._gradients.parameters)
        self._factors = torch.nan_to_num((self._limit / rms).clamp(max=1.0), nan=1.0)
        return self._clipped(self._factors, rms)

    @contextmanager
    def limited_update(self) -> Iterator[None]:
        weights = [p.detach() for p in self._gradients.parameters]
        before = [weight.clone() for weight in weights]
        yield
        moved = torch._foreach_sub(weights, before)
        torch._foreach_mul_(moved, list(self._factors.unbind()))
        torch._foreach_copy_(weights, before)
        torch._foreach_add_(weights, moved)


def build_clipping(
    config: GradientConfig,
    gradients: GradientMonitor,
    optimizer: Optimizer,
    units: Sequence[nn.Parameter],
) -> Clipping:
    """The clip mode of a run.

    Args:
        config: mode and its settings.
        gradients: of all trained parameters.
        optimizer: of the same parameters.
        units: the parameters that `agc` clips.
    """
    if config.gradient_clip_mode == "norm" and config.gradient_clip_norm > 0:
        return NormClipping(gradients, config.gradient_clip_norm)
    if config.gradient_clip_mode == "agc":
        return UnitClipping(gradients, units, config.agc_clip_factor)
    if config.gradient_clip_mode == "zclip":
        return SpikeClipping(gradients, config)
    if config.gradient_clip_mode == "adagc":
        return TensorClipping(gradients, config)
    if config.gradient_clip_mode == "update":
        return UpdateClipping(gradients, optimizer, config.update_clip_rms)
    return Clipping(gradients)
