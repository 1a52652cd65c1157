"""The rules of the health report about optimiser steps, one function per line or group of lines."""

from __future__ import annotations

import math

import numpy as np

from fsdet.config import MODULES, HealthConfig
from fsdet.health.run_record import (
    Check,
    RunRecord,
    build_check,
    check_band,
    finite_of,
    median,
)
from fsdet.health.spikes import DEVIATIONS

DEAD = 1e-12
"""A gradient norm up to this counts as none."""
PIECES = 5
"""Number of parts of a run whose median losses are compared."""
MIN_PIECE = 5
"""Minimum number of steps per part."""
RISE = 0.05
"""Fraction of the first median by which a median may exceed the previous one."""
ALWAYS = 0.98
"""With this fraction of clipped steps, every step counts as clipped."""
ABOVE = {
    "total": "weights of the terms differ from those of the band, or a term does not learn; see the terms",
    "bbox": "boxes are still far off; train longer, or raise head_lr_mult",
    "cls": "classes are still confused, or n_way is larger than that of the band; train longer",
    "supcon": "grows with ln(classes and crops in a step), so compare equal episodes; train longer",
    "dfl": "boxes are still blurred; see dfl_falls",
}
"""Loss term -> what a value above its band usually means."""


def exploded(run: RunRecord) -> Check:
    """Fails if a rule of `fsdet.health.stability` fired."""
    found = run.explosion
    if found is None:
        return build_check("explosion", "pass", "no rule fired")
    where = f", most in {found.module}" if found.module else ""
    advice = "lower lr or the multiplier of that module, or clip lower"
    message = f"step {found.step}: {found.reason}: {found.detail}{where}; {advice}"
    return build_check("explosion", "fail", message, found.step)


def all_finite(run: RunRecord) -> Check:
    """Fails on any loss or gradient that is inf or NaN; a loss scaler's few overflows pass."""
    losses, norms = (
        [not math.isfinite(row[name]) for row in run.steps if name in row]
        for name in ("train/loss/total", "grad/norm")
    )
    if not any(losses) and not any(norms):
        return build_check("finite", "pass", "no inf or NaN in losses or gradients", 0)
    count = max(sum(losses), sum(norms))
    message = f"{sum(losses)} losses and {sum(norms)} gradient norms of {len(run.steps)} steps are inf or NaN"
    early = not any(losses) and not any(norms[-run.window :])
    if early and run.config.mixed_precision == "fp16":
        return build_check("finite", "pass", f"{message}: the loss scaler found its scale", count)
    advice = "usually a too large lr, fp16 where bf16 is needed, or a division by zero; --debug finds the operation"
    return build_check("finite", "fail", f"{message}; {advice}", count)


def gradient_norm(run: RunRecord) -> Check:
    """Global norm before clipping, median of the last steps."""
    largest = max(MODULES, key=lambda name: np.nan_to_num(run.now(f"grad/norm/{name}")))
    above = f"usual while under-trained; largest in {largest}: if it stays, lower that multiplier"
    return check_band("gradient_norm", run.now("grad/norm"), run.config.health_norm, above)


def loss_terms(run: RunRecord) -> list[Check]:
    """The total, and every term that the stage has, with a weight and a band."""
    return [_loss(run, name.removeprefix("health_")) for name in _loss_bands()]


def _loss_bands() -> list[str]:
    return [name for name in HealthConfig.model_fields if name.removeprefix("health_") in ABOVE]


def _loss(run: RunRecord, term: str) -> Check:
    band = run.config.bands[f"health_{term}"]
    if getattr(run.config, f"{term}_weight", 1.0) == 0:
        return build_check(term, "skip", f"{term}_weight is 0", band=band)
    if not len(run.finite(f"train/loss/{term}")):
        return build_check(term, "skip", f"stage {run.config.stage} does not have it", band=band)
    if term == "bbox" and not run.config.bbox_loss.startswith("wiou"):
        message = f"the band is that of WIoU, the run has {run.config.bbox_loss}"
        return build_check(term, "skip", message, run.now("train/loss/bbox"))
    return check_band(term, run.now(f"train/loss/{term}"), band, ABOVE[term])


def total_falls(run: RunRecord) -> Check:
    """Warns if the total loss ends above its start, or rises on its way; compares medians of fifths."""
    values = run.all("train/loss/total")
    if len(values) < PIECES * MIN_PIECE:
        message = f"needs {PIECES * MIN_PIECE} steps"
        return build_check("total_falls", "skip", message)
    medians = np.array([median(finite_of(part)) for part in np.array_split(values, PIECES)])
    ratio = float(medians[-1] / medians[0])
    rises = np.flatnonzero(~(np.diff(medians) <= RISE * abs(medians[0])))
    if not ratio <= 1 + RISE:
        message = "ends above its start; usually a too large lr or wrong targets"
        return build_check("total_falls", "warn", message, ratio)
    if len(rises):
        message = f"rises after {20 * (rises[0] + 1):.0f} % of the run; a smaller lr or a longer warm-up smooths it"
        return build_check("total_falls", "warn", message, ratio)
    message = "falls smoothly" if ratio < 1 - RISE else "stays level"
    return build_check("total_falls", "pass", f"{message}: last over first fifth", ratio)


def learning(run: RunRecord) -> list[Check]:
    """One line per module: its gradient norm is above zero, unless its multiplier freezes it."""
    return [_learns(run, module) for module in MODULES]


def _learns(run: RunRecord, module: str) -> Check:
    name = f"learning/{module}"
    if run.config.lr_mults[module] == 0:
        return build_check(name, "skip", "frozen by its multiplier of 0")
    norm = run.now(f"grad/norm/{module}")
    if not math.isfinite(norm):
        return build_check(name, "skip", "not measured")
    if norm > DEAD:
        return build_check(name, "pass", "gradients arrive", norm)
    if run.finite(f"grad/norm/{module}").max() > DEAD:
        message = (
            "gradients no longer arrive: usually dead activations after too large steps; lower lr"
        )
    else:
        message = "no gradient ever arrived: usually a no_grad or detach, or a loss term that does not use it"
    return build_check(name, "fail", message, norm)


def dead_tensors(run: RunRecord) -> tuple[str, ...]:
    """Names of the tensors that never received a gradient and should have.

    The projection of a frozen support encoder is still trained.
    """
    frozen = {name for name, mult in run.config.lr_mults.items() if mult == 0}
    parts = {"support_encoder": "support_encoder.trunk."}
    excused = tuple(parts.get(name, f"{name}.") for name in frozen)
    return tuple(
        name for name, peak in run.peaks.items() if not peak > DEAD and not name.startswith(excused)
    )


def no_dead_tensors(run: RunRecord) -> Check:
    """Fails on any dead tensor; the message lists the first three."""
    if not run.peaks:
        return build_check("dead_tensors", "skip", "no peaks were recorded")
    dead = dead_tensors(run)
    if not dead:
        return build_check("dead_tensors", "pass", f"all of {len(run.peaks)} tensors learn", 0)
    names = ", ".join(dead[:3]) + (", …" if len(dead) > 3 else "")
    advice = "usually a branch whose output is not used, a detach, or a zero that multiplies it"
    return build_check("dead_tensors", "fail", f"no gradient ever in {names}; {advice}", len(dead))


def clipping(run: RunRecord) -> Check:
    """How often gradients were clipped, as one of three regimes."""
    config, clipped = run.config, run.finite("grad/clipped")
    if config.gradient_clip_mode == "none" or (
        config.gradient_clip_mode == "norm" and config.gradient_clip_norm == 0
    ):
        return build_check("clipping", "skip", "clipping is off")
    if not len(clipped):
        return build_check("clipping", "skip", "not measured")
    fraction = float(clipped.mean())
    if config.gradient_clip_mode in ("update", "adagc"):
        what = "update" if config.gradient_clip_mode == "update" else "gradient"
        message = f"the {what} of {fraction:.1%} of the tensors was clipped, over all steps"
    elif fraction == 0:
        message = "never clipped: the threshold had no effect"
    elif config.optimizer == "sgd":
        message = "some steps were clipped: under SGD a threshold limits how far a step goes"
    elif fraction >= ALWAYS:
        message = (
            "always clipped: AdamW ignores a constant scale, so another threshold changes little"
        )
    else:
        message = "sometimes clipped: the only regime in which the threshold matters under AdamW"
    return build_check("clipping", "pass", message, fraction)


def update_ratios(run: RunRecord) -> list[Check]:
    """One line per module: how far a step moves the weights."""
    return [_moves(run, module) for module in MODULES]


def _moves(run: RunRecord, module: str) -> Check:
    name, band = f"update_ratio/{module}", run.config.health_update
    if run.config.lr_mults[module] == 0:
        return build_check(name, "skip", "frozen by its multiplier of 0", band=band)
    measured = run.finite(name)
    now = median(measured[-max(1, len(measured) // 5) :])  # only some steps are measured
    return check_band(
        name, now, band, "the weights move too fast; lower lr or the module's multiplier"
    )


def spikes(run: RunRecord) -> list[Check]:
    """How often the norm and the loss jumped, and the largest g²/v; these describe a run and judge nothing."""
    return [
        _spiked(run, "norm_spikes", "grad/spike_score", "gradient norm"),
        _spiked(run, "loss_spikes", "train/spike_score", "loss"),
        _rms(run),
    ]


def _spiked(run: RunRecord, name: str, score: str, what: str) -> Check:
    found = run.finite(score)
    if not len(found):
        return build_check(name, "skip", "not measured")
    share = float(found[-1])
    message = (
        f"share of steps with a {what} {DEVIATIONS:g} standard deviations outside those before it"
    )
    return build_check(name, "pass", message, share)


def _rms(run: RunRecord) -> Check:
    found = run.all("grad/rms")
    if not np.isfinite(found).any():
        return build_check("grad_rms", "skip", "not measured: the optimiser has no second moment")
    at = int(np.nanargmax(np.where(np.isfinite(found), found, math.nan)))
    step = run.steps[at].get("step", at + 1)
    message = f"largest root mean square of g²/v of any tensor, at step {step:.0f}"
    if run.config.gradient_clip_mode != "update":
        message += "; gradient_clip_mode update limits such steps"
    return build_check("grad_rms", "pass", message, float(found[at]))


def positives(run: RunRecord) -> Check:
    """Fails if the last steps had no positive anchor point at all, warns if a tenth of all had none."""
    counts = run.finite("train/positives")
    if not len(counts):
        return build_check("positives", "skip", "not measured")
    empty, now = float((counts == 0).mean()), run.now("train/positives")
    if len(counts) >= run.window and not counts[-run.window :].any():
        message = "no anchor point is assigned to a target now: wrong boxes in the data, or dead predictions"
        return build_check("positives", "fail", message, now)
    if empty > 0.1:
        message = f"{empty:.0%} of the steps had none: many images without targets, or wrong boxes in the data"
        return build_check("positives", "warn", message, now)
    return build_check("positives", "pass", "anchor points are assigned to targets", now)
