"""The training loop: one plain sequence, readable from top to bottom."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from fsdet.config import TrainConfig
from fsdet.config_file import save_config
from fsdet.data.image_set import ImageSet
from fsdet.engine.evaluation import evaluate_run
from fsdet.engine.health import write_health
from fsdet.engine.logs import (
    CONFIG_FILE,
    EvaluationLog,
    StepHistory,
    log_metrics,
    log_step,
    set_aside,
    write_changes,
)
from fsdet.engine.report import Best, Explosion, Phase, Report, Result
from fsdet.engine.restore import load_detector
from fsdet.engine.run import Run, build_run
from fsdet.engine.step import (
    backward,
    clip,
    is_logged,
    judge,
    measure_reference,
    optimizer_step,
    step_values,
)
from fsdet.progress import progress

log = logging.getLogger("fsdet.run")

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
    if not run.step:
        set_aside(config.checkpoint_dir)
    save_config(config, config.checkpoint_dir / CONFIG_FILE)
    write_changes(config.checkpoint_dir, run.changed)
    history = StepHistory(config.checkpoint_dir, run.step)
    evaluations = EvaluationLog(config.checkpoint_dir, run.step)
    if run.stability.reference is None:
        measure_reference(run)
    final: dict[str, float] = {}
    checkpoint: Path | None = None

    def report(phase: Phase, metrics: dict[str, float]) -> None:
        built = build_report(run, phase, metrics, final, history)
        if on_report is not None:
            on_report(built)

    def evaluate() -> None:
        nonlocal final
        metrics = evaluate_run(run.evaluated, config, run.device, final=False)
        log_metrics(f"epoch {run.epoch}", metrics)
        evaluations.append(run.step, run.epoch, metrics, run.device)
        keep_best(run, metrics)
        if run.step < config.total_steps:
            report("running", metrics)
            return
        final = evaluate_best(run)
        evaluations.append_final(run.step, run.epoch, final, run.device, run.best_epoch)
        report("final", metrics)

    try:
        if run.step and evaluation_due(run):
            evaluate()  # the process may have been killed before it reported this epoch
        for _ in progress(range(run.step, config.total_steps), f"stage {config.stage}"):
            values, found = training_step(run)
            history.append(values)
            log_step(values, logging.INFO if config.debug or is_logged(run.step) else logging.DEBUG)

            if found and run.explosion is None:
                run.explosion = found
                log.error("step %d: exploded (%s): %s", found.step, found.reason, found.detail)
            if run.explosion and config.stop_on_explosion:
                report("exploded", {})
                break
            if save_due(run):
                checkpoint = save_epoch(run)
            if evaluation_due(run):
                evaluate()
    finally:
        history.close()
        write_health(config.checkpoint_dir, config, run.gradient_peaks(), run.explosion)
    return Result(final, run.step, run.explosion, checkpoint, config.checkpoint_dir, run.best_epoch)


def training_step(run: Run) -> tuple[dict[str, float], Explosion | None]:
    """One optimiser step: what was measured in it, and the verdict if it is one too many."""
    losses, shares = backward(run)
    run.scaler.unscale_(run.optimizer)
    norms = run.gradients.measure()
    clipped = clip(run, norms[0])
    values = step_values(run, norms, clipped, losses, shares)  # the one copy from the device
    found = judge(run, values)
    optimizer_step(run, finite=math.isfinite(values["grad/norm"]))
    return values, found


def evaluation_due(run: Run) -> bool:
    """Whether the run stands at the end of an epoch that is to be evaluated."""
    return at_epoch_end(run, run.config.eval_interval)


def save_due(run: Run) -> bool:
    """Whether the run stands at the end of an epoch that is to be saved."""
    return at_epoch_end(run, run.config.save_interval)


def at_epoch_end(run: Run, interval: int) -> bool:
    """Whether the run stands at the end of every `interval`-th epoch, or of the last."""
    if run.step >= run.config.total_steps:
        return True
    return run.step % run.config.steps_per_epoch == 0 and run.epoch % interval == 0


def build_report(
    run: Run,
    phase: Phase,
    metrics: dict[str, float],
    final: dict[str, float],
    history: StepHistory,
) -> Report:
    """The state of the run for whoever listens."""
    return Report(
        phase=phase,
        step=run.step,
        epoch=run.epoch,
        metrics=metrics,
        history=history.take(),
        save_checkpoint=run.save,
        best=run.best,
        final=final,
        explosion=run.explosion,
        peak_norm=run.stability.peak_norm,
        violation=run.stability.violation,
    )


def keep_best(run: Run, metrics: dict[str, float]) -> None:
    """Keep the weights in `best.pt` if `metrics`, those of this epoch, are the best so far; of equals the first."""
    if is_better(run, metrics):
        run.best = Best(run.epoch, run.step, metrics)
        run.save_best()


def is_better(run: Run, metrics: dict[str, float]) -> bool:
    """Whether this epoch's evaluation is the best so far."""
    config = run.config
    if run.best is None or config.stage == 1:  # without prototypes the last epoch is the best
        return True
    name = f"{config.novel_split}/{config.best_metric}"
    value, best = (found.get(name, math.nan) for found in (metrics, run.best.metrics))
    if math.isnan(best) or math.isnan(value):
        return math.isnan(best)
    return value > best if config.best_mode == "max" else value < best


def evaluate_best(run: Run) -> dict[str, float]:
    """Metrics of the last evaluation: the weights of the best epoch on other episodes."""
    detector = run.evaluated
    if run.best_epoch != run.epoch:
        detector, _ = load_detector(run.best_path, run.device)
    metrics = evaluate_run(detector, run.config, run.device, final=True)
    log_metrics(f"last evaluation, of epoch {run.best_epoch}", metrics)
    return metrics


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
