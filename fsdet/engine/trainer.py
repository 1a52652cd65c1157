"""The training loop: one plain sequence, readable from top to bottom."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from fsdet.config import MODULES, TrainConfig
from fsdet.data.image_set import ImageSet
from fsdet.engine.evaluation import evaluate_run
from fsdet.engine.logs import StepHistory, log_metrics, log_step
from fsdet.engine.report import Explosion, Phase, Report, Result
from fsdet.engine.run import Run, autocast_type, build_run
from fsdet.losses.criterion import Losses
from fsdet.progress import progress
from fsdet.structures import Batch

log = logging.getLogger("fsdet.run")

LOG_INTERVAL = 10
"""Steps between two entries of the debug log, and between two measurements of the update ratio."""
KEPT_CHECKPOINTS = 2
"""Newest checkpoints of a run that stay on disk."""


def run_training(
    config: TrainConfig,
    image_set: ImageSet,
    on_report: Callable[[Report], None] | None,
    resume: Path | None,
) -> Result:
    """Train to the end, to an explosion, or until `on_report` raises. See `fsdet.train.train`."""
    run = build_run(config, image_set, resume)
    history = StepHistory(config.checkpoint_dir, run.step)
    metrics: dict[str, float] = {}
    explosion: Explosion | None = None
    checkpoint: Path | None = None
    ratios: Tensor | None = None

    def report(phase: Phase) -> None:
        if on_report is not None:
            on_report(build_report(run, phase, metrics, history, explosion))

    try:
        if (
            run.step >= config.total_steps
        ):  # resumed at its end: nothing left but to say how good it is
            metrics = evaluate_run(run.detector, config, run.device, final=True)
            report("final")
        for _ in progress(range(run.step, config.total_steps), f"stage {config.stage}"):
            losses = backward(run)
            run.scaler.unscale_(run.optimizer)
            norms = run.gradients.measure()
            run.gradients.clip_(norms[0], config.gradient_clip_norm)
            values = step_values(run, norms, losses, ratios)  # the step's one copy from the device
            found = judge(run, values, measured=ratios is not None)
            ratios = optimizer_step(run, finite=math.isfinite(values["grad/norm"]))
            run.step += 1
            history.append(values)
            log_step(values, logging.INFO if config.debug or is_logged(run.step) else logging.DEBUG)

            if found and explosion is None:
                explosion = found
                log.error("step %d: exploded (%s): %s", found.step, found.reason, found.detail)
            if explosion and config.stop_on_explosion:
                metrics = {}
                report("exploded")
                break
            if run.step % config.steps_per_epoch:
                continue
            last = run.step == config.total_steps
            if last or run.epoch % config.save_interval == 0:
                checkpoint = save_epoch(run)
            if last or run.epoch % config.eval_interval == 0:
                metrics = evaluate_run(run.detector, config, run.device, final=last)
                log_metrics(run.epoch, metrics)
                report("final" if last else "running")
    finally:
        history.close()
    return Result(metrics, run.step, explosion, checkpoint, config.checkpoint_dir)


def is_logged(step: int) -> bool:
    """Whether this step (from 1) is one of the few that stand out in the log."""
    return step % LOG_INTERVAL == 1


def backward(run: Run) -> list[Losses]:
    """Forward and backward over all batches of one optimiser step; gradients are their mean."""
    run.detector.train()
    run.criterion.train()
    run.optimizer.zero_grad(set_to_none=True)
    batches = step_batches(run.config, run.step)
    parts = []
    for first, count in batches:
        batch = run.source.batch(first, count).to(run.device)
        with autocast(run):
            losses = forward(run, batch)
        run.scaler.scale(losses.total / len(batches)).backward()  # type: ignore[no-untyped-call]
        parts.append(losses)
    return parts


def forward(run: Run, batch: Batch) -> Losses:
    """Losses of one batch in the run's stage."""
    if run.config.stage == 1:
        head = run.detector.find_objects(run.detector.encode(batch.images))
        return run.criterion.base(head, run.detector.embed_supports(batch.supports), batch)
    return run.criterion.episode(run.detector(batch.images, batch.supports), batch)


def autocast(run: Run) -> torch.autocast | nullcontext[None]:
    """Mixed precision where it is asked for and available."""
    dtype = autocast_type(run.config, run.device)
    return nullcontext() if dtype is None else torch.autocast("cuda", dtype)


def step_batches(config: TrainConfig, step: int) -> list[tuple[int, int]]:
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


def optimizer_step(run: Run, finite: bool) -> Tensor | None:
    """Update the weights, unless the gradients are not finite; advance the schedule.

    With a scaler the step is left to it, so that its scale can back off.

    Returns:
        update ratio per module, on every tenth step.
    """
    measured = is_logged(run.step + 1)
    if measured:
        run.updates.before()
    if finite or run.scaler.is_enabled():
        run.scaler.step(run.optimizer)
    run.scaler.update()
    run.scheduler.step()
    return run.updates.after() if measured else None


def step_values(
    run: Run, norms: Tensor, losses: list[Losses], ratios: Tensor | None
) -> dict[str, float]:
    """Everything measured in one step, brought from the device in a single copy.

    Args:
        run: before its step counter advances.
        norms: (1 + modules,) total and per module, before clipping.
        losses: of each batch of the step.
        ratios: (modules,) update ratios of the step before, where they were measured.
    """
    terms = list(losses[0].raw)
    raw = torch.stack([torch.stack([part.raw[t].detach() for t in terms]) for part in losses])
    weighted = torch.stack(
        [torch.stack([part.weighted[t].detach() for t in terms]) for part in losses]
    )
    positives = torch.stack([part.positives for part in losses]).sum()
    pieces = [norms, raw.mean(0), weighted.mean(0), positives[None]]
    flat = torch.cat([p.float() for p in [*pieces, *([ratios] if ratios is not None else [])]])
    values = iter(flat.tolist())

    out = {"step": float(run.step + 1), "grad/norm": next(values)}
    out |= {f"grad/norm/{name}": next(values) for name in MODULES}
    out |= {f"train/loss/{term}": next(values) for term in terms}
    out |= {f"train/weighted/{term}": next(values) for term in terms}
    out["train/positives"] = next(values)
    total = sum(out[f"train/weighted/{term}"] for term in terms)
    out["train/loss/total"] = total
    out |= {
        f"train/share/{term}": out[f"train/weighted/{term}"] / total if total else math.nan
        for term in terms
    }
    clip = run.config.gradient_clip_norm
    out["grad/clipped"] = float(0 < clip < out["grad/norm"])
    out |= {f"lr/{name}": 0.0 for name in MODULES}
    out |= {f"lr/{group['name']}": group["lr"] for group in run.optimizer.param_groups}
    out |= {f"update_ratio/{name}": next(values, math.nan) for name in MODULES}
    return out


def judge(run: Run, values: dict[str, float], measured: bool) -> Explosion | None:
    """Show one step to the stability rules.

    Args:
        run: before its step counter advances.
        values: of `step_values`.
        measured: whether they hold update ratios; a ratio that is not finite tells of such weights.
    """
    overflow = math.isfinite(values["train/loss/total"]) and not math.isfinite(values["grad/norm"])
    if overflow and run.scaler.is_enabled() and run.scaler.get_scale() > 1:
        return None  # the scaler is still backing off
    ratios = [values[f"update_ratio/{name}"] for name in MODULES]
    return run.stability.update(
        step=run.step + 1,
        loss=values["train/loss/total"],
        norm=values["grad/norm"],
        module_norms={name: values[f"grad/norm/{name}"] for name in MODULES},
        positives=values["train/positives"],
        parameters_finite=not measured or all(map(math.isfinite, ratios)),
    )


def build_report(
    run: Run,
    phase: Phase,
    metrics: dict[str, float],
    history: StepHistory,
    explosion: Explosion | None,
) -> Report:
    """The state of the run for whoever listens."""
    return Report(
        phase=phase,
        step=run.step,
        epoch=run.epoch,
        metrics=metrics,
        history=history.take(),
        save_checkpoint=run.save,
        explosion=explosion,
        peak_norm=run.stability.peak_norm,
        violation=run.stability.violation,
    )


def save_epoch(run: Run) -> Path:
    """Write this epoch's checkpoint and delete all but the newest that this run wrote."""
    folder = run.config.checkpoint_dir
    path = folder / f"stage{run.config.stage}_epoch{run.epoch:04d}.pt"
    run.save(path)
    run.checkpoints = [old for old in run.checkpoints if old != path] + [path]
    while len(run.checkpoints) > KEPT_CHECKPOINTS:
        run.checkpoints.pop(0).unlink(missing_ok=True)
    log.info("checkpoint %s", path)
    return path
