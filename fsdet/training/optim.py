"""AdamW with the parameter groups of each module, and the learning-rate schedule."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from fsdet.config import OptimConfig


def build_optimizer(parameters: dict[str, list[nn.Parameter]], config: OptimConfig) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019) with one or two groups per module, at `lr * multiplier`.

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
    return AdamW(groups, fused=True)


def build_scheduler(
    optimizer: AdamW, config: OptimConfig, total_steps: int, last_epoch: int = -1
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
