"""The optimiser with the parameter groups of each module, the learning-rate schedule, and AdamW's g²/v."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fsdet.config import OptimConfig

MOMENTUM = 0.9
"""Of SGD."""
BETA_2, EPS = 0.999, 1e-8
"""AdamW's decay of the running square v of a gradient, and the smallest root of v that it divides by."""


def build_optimizer(parameters: dict[str, list[nn.Parameter]], config: OptimConfig) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019) or SGD, with one or two groups per module, at `lr * multiplier`.

    Only matrices and kernels decay. Biases, scales of normalisation and gains, all of at most one dimension, form
    the group without: decay would pull a scale of 1 towards 0 without making anything simpler. Every group carries
    the module's `name`.
    """
    groups = []
    for name, tensors in parameters.items():
        lr = config.lr * config.lr_mults[name]
        for decay, wide in ((config.weight_decay, True), (0.0, False)):
            chosen = [p for p in tensors if (p.ndim > 1) is wide]
            if chosen:
                groups.append({"params": chosen, "lr": lr, "weight_decay": decay, "name": name})
    if config.optimizer == "sgd":
        sgd = SGD(groups, momentum=MOMENTUM, fused=True)
        for p in (p for group in sgd.param_groups for p in group["params"]):
            # a first step that is skipped would leave it undefined
            sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return sgd
    return AdamW(groups, betas=(0.9, BETA_2), eps=EPS, fused=True)


def update_rms(
    optimizer: Optimizer, parameters: Sequence[nn.Parameter]
) -> Float[Tensor, " parameters"]:
    """Root mean square of g²/v of each tensor, as AdamW is about to step (Wortsman et al. 2023).

    v is the running square of the gradient that the step will divide by: with this gradient in it, and corrected for
    its start at zero. A tensor whose gradients stay alike has about 1, one whose gradient suddenly grows up to 31.6.
    Computed without synchronising with the device.

    Args:
        optimizer: an AdamW.
        parameters: some of its parameters, with the gradients that it gets.

    Returns:
        float32; 0 for a parameter without gradient.
    """
    found = [p for p in parameters if p.grad is not None]
    if not found:
        return torch.zeros(len(parameters))
    grads = [p.grad for p in found if p.grad is not None]
    states = [optimizer.state.get(p) or _fresh_moments(p) for p in found]
    steps = torch.stack([state["step"] for state in states]) + 1
    squares = torch._foreach_mul(grads, grads)
    v = torch._foreach_lerp([state["exp_avg_sq"] for state in states], squares, 1 - BETA_2)
    torch._foreach_div_(v, list((1 - BETA_2**steps).unbind()))
    torch._foreach_clamp_min_(v, EPS**2)
    torch._foreach_sqrt_(v)
    norms = list(torch._foreach_norm(torch._foreach_div(grads, v), 2, torch.float32))
    torch._foreach_div_(norms, [math.sqrt(p.numel()) for p in found])
    rms, zero = iter(norms), torch.zeros((), device=steps.device)
    return torch.stack([zero if p.grad is None else next(rms) for p in parameters])


def _fresh_moments(parameter: nn.Parameter) -> dict[str, Tensor]:
    """AdamW's state before its first step; it has none yet."""
    zero = torch.zeros((), device=parameter.device)
    return {"step": zero, "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False)}


def build_scheduler(
    optimizer: Optimizer, config: OptimConfig, total_steps: int, last_epoch: int = -1
) -> LambdaLR:
    """Linear warm-up, then cosine; the ratio between the groups stays constant.

    Args:
        optimizer: its learning rates are set.
        config: shape of the schedule.
        total_steps: where the cosine ends.
        last_epoch: steps done - 1, for a resumed run.
    """
    warmup = round(config.warmup_fraction * total_steps)
    return LambdaLR(
        optimizer,
        lambda step: lr_factor(step, warmup, total_steps, config.final_lr_fraction),
        last_epoch,
    )


def lr_factor(step: int, warmup: int, total_steps: int, final: float) -> float:
    """Part of the full learning rate at 0-based `step`.

    Args:
        step: optimiser steps done.
        warmup: steps of the linear rise; the first step already has 1 / warmup.
        total_steps: the cosine ends here.
        final: value at the end.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
