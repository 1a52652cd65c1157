"""The parts of one optimiser step, which `fsdet.training.trainer.training_step` calls in order."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

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


def step_values(
    state: TrainState,
    norms: Float[Tensor, " total_and_modules"],
    clipped: Float[Tensor, ""],
    losses: list[Losses],
    shares: dict[str, Tensor],
) -> dict[str, float]:
    """Everything measured in one step, brought from the device in a single copy.

    Args:
        state: before its step counter advances; its `ratios` are those of the step before, if measured.
        norms: total and per module, before clipping.
        clipped: total norm after clipping.
        losses: of each batch of the step.
        shares: of `gradient_shares` on some steps, and of `signals`.
    """
    terms = list(losses[0].raw)
    raw = torch.stack([torch.stack([part.raw[t].detach() for t in terms]) for part in losses])
    weighted = torch.stack(
        [torch.stack([part.weighted[t].detach() for t in terms]) for part in losses]
    )
    positives = torch.stack([part.positives for part in losses]).sum()
    names = [
        "grad/norm",
        *(f"grad/norm/{name}" for name in MODULES),
        "grad/norm_after",
        *(f"train/loss/{term}" for term in terms),
        *(f"train/weighted/{term}" for term in terms),
        "train/positives",
        *shares,
        *(f"update_ratio/{name}" for name in MODULES if state.ratios is not None),
    ]
    pieces = [norms, clipped[None], raw.mean(0), weighted.mean(0), positives[None]]
    pieces += [share[None] for share in shares.values()]
    pieces += [state.ratios] if state.ratios is not None else []
    flat = torch.cat([piece.float() for piece in pieces]).tolist()

    out = {"step": float(state.step + 1), **dict(zip(names, flat, strict=True))}
    return out | derived_values(state.optimizer, terms, out)


def derived_values(
    optimizer: Optimizer, terms: list[str], out: dict[str, float]
) -> dict[str, float]:
    """Values that follow from those of a step, computed on the host."""
    total = sum(out[f"train/weighted/{term}"] for term in terms)
    values = {"train/loss/total": total}
    for term in terms:
        values[f"train/share/{term}"] = out[f"train/weighted/{term}"] / total if total else math.nan
    each = sum(out.get(f"grad/term/{term}", 0.0) for term in terms)
    if each > 0:
        values |= {f"grad/share/{term}": out[f"grad/term/{term}"] / each for term in terms}
    if "grad/clipped" not in out:
        values["grad/clipped"] = float(out["grad/norm_after"] < out["grad/norm"] * (1 - 1e-6))
    values |= {f"lr/{name}": 0.0 for name in MODULES}
    values |= {f"lr/{group['name']}": group["lr"] for group in optimizer.param_groups}
    return values


def check_stability(
    stability: StabilityMonitor, scaler: torch.amp.GradScaler, values: dict[str, float]
) -> Explosion | None:
    """Apply the explosion rules to one step; an update ratio that is not finite means weights that are not.

    Args:
        stability: the rules, with their state from earlier steps.
        scaler: of the loss; a step is not judged while it is still backing off.
        values: of `step_values`.
    """
    overflow = math.isfinite(values["train/loss/total"]) and not math.isfinite(values["grad/norm"])
    if overflow and scaler.is_enabled() and scaler.get_scale() > 1:
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


def optimizer_step(state: TrainState, finite: bool) -> None:
    """Update the weights, unless the gradients are not finite; advance schedule, average and counter.

    A scaler decides by itself whether to step, so that its scale can back off. Every tenth step stores the
    update ratios in `state.ratios`.
    """
    measured = is_logged(state.step + 1)
    if measured:
        state.updates.before()
    if finite or state.scaler.is_enabled():
        with state.clipping.limited_update():
            state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()
    state.ratios = state.updates.after() if measured else None
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.detector, step=state.step)
