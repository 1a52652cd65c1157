"""One optimiser step: what the device computes (`run_step`), and what the host does behind it."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from fsdet.config import MODULES, RunConfig
from fsdet.device import autocast_type
from fsdet.health.stability import StabilityMonitor
from fsdet.losses.criterion import Losses
from fsdet.models.detector import Detector, EncodedImages
from fsdet.report import Explosion
from fsdet.training.clipping import Clipped
from fsdet.training.gradients import gradient_shares
from fsdet.training.inputs import StepInput, StepInputs, inputs_of_step
from fsdet.training.optim import update_rms
from fsdet.training.state import TrainState
from fsdet.training.values import LOSS_SCALE, Measured, measured_values

log = logging.getLogger("fsdet.run")

STEPS_PER_PASS, MIN_PASSES, MAX_PASSES = 30, 3, 10
"""The initial gradient norm is measured over one pass per 30 steps of the run, but at least 3 and at most 10."""


def run_step(state: TrainState, inputs: StepInputs) -> Measured:
    """Take one optimiser step on the device, at the optimiser's present learning rates.

    Everything that changes from step to step is in `inputs`, in the learning rates, or in tensors that are changed in
    place, and no value is asked of the device: so the operators of one step can be replayed as another one of its kind.

    Args:
        state: weights, running statistics, optimiser and clip mode are changed; not its counter of steps.
        inputs: of this step.
    """
    losses, found = accumulate(state, inputs)
    state.scaler.unscale_(state.optimizer)
    norms = state.gradients.measure()
    clipped = state.clipping.clip_(norms[0])
    found |= signals(state, clipped)
    if state.scaler.is_enabled():
        found[LOSS_SCALE] = state.scaler.scale(torch.ones((), device=state.device))
    ratios = update_weights(state, norms[0], inputs.with_ratios)
    return measured_values(norms, clipped.norm, losses, found, ratios)


def accumulate(state: TrainState, inputs: StepInputs) -> tuple[list[Losses], dict[str, Tensor]]:
    """Forward and backward over all batches of one optimiser step; gradients are their mean.

    Args:
        state: its gradients are replaced.
        inputs: of the step.

    Returns:
        the losses of each batch, and the gradient shares of the last one if requested.
    """
    state.detector.train()
    state.criterion.train()
    state.optimizer.zero_grad(set_to_none=True)
    parts, shares = [], {}
    for part in inputs.parts:
        with autocast(state.config, state.device):
            losses, encoded = forward(state, part)
        if part is inputs.parts[-1] and inputs.with_shares:
            shares = gradient_shares(losses, encoded.taps, state.detector.backbone.shared_weight)
        state.scaler.scale(losses.total / len(inputs.parts)).backward()  # type: ignore[no-untyped-call]
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
            accumulate(state, inputs_of_step(state, step))
            norms.append(state.gradients.total() / state.scaler.get_scale())
    state.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
    finite = [norm for norm in torch.stack(norms).tolist() if math.isfinite(norm)]
    return max(finite, default=None)


def forward(state: TrainState, part: StepInput) -> tuple[Losses, EncodedImages]:
    """Losses of one batch in the run's stage."""
    encoded = state.detector.encode(part.batch.images)
    supports = embed_supports(state.detector, part)
    if state.config.stage == 1:
        found = state.detector.find_objects(encoded)
        return state.criterion.base(found, supports, part.batch), encoded
    return state.criterion.episode(state.detector.search(encoded, supports), part.batch), encoded


def embed_supports(
    detector: Detector, part: StepInput
) -> Float[Tensor, "episodes n_way n_shot dim"]:
    """Embeddings of a batch's supports."""
    if part.features is None:
        return detector.embed_supports(part.batch.supports)
    embeddings: Tensor = detector.support_encoder.project(part.features)
    return embeddings


def autocast(config: RunConfig, device: str) -> torch.autocast | nullcontext[None]:
    """Mixed precision if it is set and available."""
    dtype = autocast_type(config, device)
    return nullcontext() if dtype is None else torch.autocast("cuda", dtype)


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


def update_weights(
    state: TrainState, norm: Float[Tensor, ""], with_ratios: bool
) -> Float[Tensor, " modules"] | None:
    """Update the weights, unless the gradients are not finite.

    The device decides: AdamW's fused kernel leaves weights, moments and its count of steps alone where `found_inf`
    is 1, as gradient scalers ask it to.

    Args:
        state: with the gradients of the step, unscaled and clipped.
        norm: global norm before clipping.
        with_ratios: whether to measure the update ratio of each module, which is returned.
    """
    if with_ratios:
        state.updates.before()
    if not state.scaler.is_enabled():  # a scaler sets it itself, so that its scale can back off
        state.optimizer.found_inf = 1 - norm.isfinite().float()  # type: ignore[attr-defined]
    with state.clipping.limited_update():
        state.scaler.step(state.optimizer)
    state.scaler.update()
    return state.updates.after() if with_ratios else None


def advance(state: TrainState) -> None:
    """Advance schedule, counter and moving average behind a step."""
    state.scheduler.step()
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.detector, step=state.step)
