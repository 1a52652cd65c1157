"""The parts of one optimiser step, which `fsdet.training.trainer.training_step` calls in order."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from fsdet.config import MODULES, GradientConfig, RunConfig, TrainConfig
from fsdet.data.episodes import Request
from fsdet.device import autocast_type
from fsdet.health.stability import StabilityMonitor
from fsdet.losses.criterion import Losses
from fsdet.models.detector import EncodedImages
from fsdet.report import Explosion
from fsdet.structures import Batch
from fsdet.training.clipping import Clipped
from fsdet.training.gradients import gradient_shares
from fsdet.training.optim import update_rms
from fsdet.training.state import TrainState
from fsdet.training.values import LOSS_SCALE

log = logging.getLogger("fsdet.run")

STEPS_PER_PASS, MIN_PASSES, MAX_PASSES = 30, 3, 10
"""The initial gradient norm is measured over one pass per 30 steps of the run, but at least 3 and at most 10."""
LOG_INTERVAL = 10
"""Steps between two entries of the debug log, and between two measurements of the update ratio."""


def is_logged(step: int) -> bool:
    """Whether this step (from 1) is logged at level INFO."""
    return step % LOG_INTERVAL == 1


def backward(state: TrainState) -> tuple[list[Losses], dict[str, Tensor]]:
    """Forward and backward over all batches of the run's next optimiser step; see `accumulate`."""
    due = shares_due(state.config, state.step, state.detector.frozen)
    return accumulate(state, state.step, due)


def accumulate(
    state: TrainState, step: int, with_shares: bool
) -> tuple[list[Losses], dict[str, Tensor]]:
    """Forward and backward over all batches of one optimiser step; gradients are their mean.

    Args:
        state: its gradients are replaced.
        step: 0-based number of the step whose batches are taken.
        with_shares: whether to measure the gradient of each loss term and each scale.

    Returns:
        the losses of each batch, and the gradient shares of the last one if requested.
    """
    state.detector.train()
    state.criterion.train()
    state.optimizer.zero_grad(set_to_none=True)
    requests = step_batches(state.config, step)
    following = [*requests[1:], *step_batches(state.config, step + 1)[:1]]
    parts, shares = [], {}
    for number, (request, next_request) in enumerate(zip(requests, following, strict=True)):
        batch = state.batches.take(request, next_request)
        with autocast(state.config, state.device):
            losses, encoded = forward(state, batch)
        if number == len(requests) - 1 and with_shares:
            shares = gradient_shares(losses, encoded.taps, state.detector.backbone.shared_weight)
        state.scaler.scale(losses.total / len(requests)).backward()  # type: ignore[no-untyped-call]
        parts.append(losses)
    state.gradients.scale_modules_(state.config.grad_scales)
    return parts, shares


def measure_reference(state: TrainState) -> None:
    """Measure the gradient norm before the first update and make it the reference of the explosion rules."""
    passes = min(max(state.config.total_steps // STEPS_PER_PASS, MIN_PASSES), MAX_PASSES)
    norm = initial_norm(state, passes)
    if norm is None:
        log.warning("no finite gradient norm before the first update: the rule norm_ratio is off")
        return
    state.stability.reference = norm
    log.info(
        "gradient norm before the first update: %.4g (largest of %d); a norm above %.4g at %d of %d steps counts as "
        "an explosion",
        *(norm, passes, state.stability.limit),
        *(state.config.explosion_patience, state.config.explosion_window),
    )


def initial_norm(state: TrainState, passes: int) -> float | None:
    """Largest gradient norm over the first `passes` steps' batches with the weights as they are.

    Weights, running statistics and random numbers are restored, so that the training that follows is the same bit for
    bit.

    Returns:
        None if no norm was finite.
    """
    modules = (state.detector, state.criterion)
    buffers = [buffer for module in modules for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    norms = []
    with torch.random.fork_rng():
        for step in range(passes):
            accumulate(state, step, with_shares=False)
            norms.append(state.gradients.total() / state.scaler.get_scale())
    state.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
    finite = [norm for norm in torch.stack(norms).tolist() if math.isfinite(norm)]
    return max(finite, default=None)


def forward(state: TrainState, batch: Batch) -> tuple[Losses, EncodedImages]:
    """Losses of one batch in the run's stage."""
    encoded = state.detector.encode(batch.images)
    supports = state.embed_supports(batch)
    if state.config.stage == 1:
        return state.criterion.base(state.detector.find_objects(encoded), supports, batch), encoded
    return state.criterion.episode(state.detector.search(encoded, supports), batch), encoded


def autocast(config: RunConfig, device: str) -> torch.autocast | nullcontext[None]:
    """Mixed precision if it is set and available."""
    dtype = autocast_type(config, device)
    return nullcontext() if dtype is None else torch.autocast("cuda", dtype)


def shares_due(config: GradientConfig, step: int, frozen: Collection[str]) -> bool:
    """Whether 0-based step `step` measures the gradient of each loss term and each scale."""
    interval = config.share_interval
    return interval is not None and step % interval == 0 and "backbone" not in frozen


def step_batches(config: TrainConfig, step: int) -> list[Request]:
    """The batches of 0-based optimiser step `step`, each as (first episode or image, count)."""
    epoch, within = divmod(step, config.steps_per_epoch)
    numbers = range(
        within * config.gradient_accumulation,
        min((within + 1) * config.gradient_accumulation, config.batches_per_epoch),
    )
    size = config.batch_size
    if config.stage == 1:
        return [((epoch * config.n_episodes + n) * size, size) for n in numbers]
    start = epoch * config.n_episodes
    return [(start + n * size, min(size, config.n_episodes - n * size)) for n in numbers]


def signals(state: TrainState, clipped: Clipped) -> dict[str, Tensor]:
    """Values of a step that say how unusual its gradient is, and how many tensors were clipped; scalars."""
    found = {} if clipped.share is None else {"grad/clipped": clipped.share}
    if state.config.optimizer == "adamw":
        rms = clipped.rms
        if rms is None:
            rms = update_rms(state.optimizer, state.gradients.parameters)
        found["grad/rms"] = rms.max()
    return found


def check_stability(stability: StabilityMonitor, values: dict[str, float]) -> Explosion | None:
    """Apply the explosion rules to one step; an update ratio that is not finite means weights that are not.

    Args:
        stability: the rules, with their state from earlier steps.
        values: of `StepValues.read`; a step is not judged while the scale of the loss is still backing off.
    """
    overflow = math.isfinite(values["train/loss/total"]) and not math.isfinite(values["grad/norm"])
    if overflow and values.get(LOSS_SCALE, 1.0) > 1:
        return None
    ratios = [values.get(f"update_ratio/{name}", 0.0) for name in MODULES]
    return stability.update(
        step=int(values["step"]),
        loss=values["train/loss/total"],
        norm=values["grad/norm"],
        module_norms={name: values[f"grad/norm/{name}"] for name in MODULES},
        positives=values["train/positives"],
        parameters_finite=all(map(math.isfinite, ratios)),
    )


def optimizer_step(state: TrainState, norm: Float[Tensor, ""]) -> None:
    """Update the weights, unless the gradients are not finite; advance schedule, average and counter.

    The device decides: AdamW's fused kernel leaves weights, moments and its count of steps alone where `found_inf`
    is 1, as gradient scalers ask it to. Every tenth step stores the update ratios in `state.ratios`.

    Args:
        state: with the gradients of the step, unscaled and clipped.
        norm: global norm before clipping.
    """
    measured = is_logged(state.step + 1)
    if measured:
        state.updates.before()
    if not state.scaler.is_enabled():  # a scaler sets it itself, so that its scale can back off
        state.optimizer.found_inf = 1 - norm.isfinite().float()  # type: ignore[attr-defined]
    with state.clipping.limited_update():
        state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()
    state.ratios = state.updates.after() if measured else None
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.detector, step=state.step)
