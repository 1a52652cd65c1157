"""The training loop, as one sequence from top to bottom."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from fsdet.checkpoint import load_detector
from fsdet.config import TrainConfig
from fsdet.config.parsing import save_config
from fsdet.data.image_set import ImageSet
from fsdet.evaluation.metrics import evaluate_run
from fsdet.health.checklist import write_health
from fsdet.progress import progress
from fsdet.report import Best, Explosion, Phase, Report, Result
from fsdet.run_files import (
    CONFIG_FILE,
    EvaluationLog,
    StepHistory,
    set_aside,
    write_changes,
)
from fsdet.training.build import build_state
from fsdet.training.logs import log_metrics, log_step
from fsdet.training.state import TrainState
from fsdet.training.step import (
    backward,
    check_stability,
    clip,
    is_logged,
    measure_reference,
    optimizer_step,
    step_values,
)

log = logging.getLogger("fsdet.run")

MAX_CHECKPOINTS = 2
"""Number of checkpoints of a run on the disk; older ones are deleted."""


def run_training(
    config: TrainConfig,
    image_set: ImageSet,
    on_report: Callable[[Report], None] | None,
    resume: Path | None,
) -> Result:
    """Train to the end, to an explosion, or until `on_report` raises. See `fsdet.train.train`."""
    state = build_state(config, image_set, resume)
    history, evaluations = open_logs(state)
    if state.stability.reference is None:
        measure_reference(state)
    final: dict[str, float] = {}
    checkpoint: Path | None = None

    def report(phase: Phase, metrics: dict[str, float]) -> None:
        built = build_report(state, phase, metrics, final, history)
        if on_report is not None:
            on_report(built)

    def evaluate() -> None:
        nonlocal final
        metrics = evaluate_epoch(state, evaluations)
        if state.step < config.total_steps:
            report("running", metrics)
            return
        final = evaluate_best(state, evaluations)
        report("final", metrics)

    try:
        if state.step and evaluation_due(state):
            evaluate()  # the process may have been killed before it reported this epoch
        for _ in progress(range(state.step, config.total_steps), f"stage {config.stage}"):
            values, found = training_step(state)
            history.append(values)
            log_step(values, log_level(state))
            if found and state.explosion is None:
                record_explosion(state, found)
            if state.explosion and config.stop_on_explosion:
                report("exploded", {})
                break
            if save_due(state):
                checkpoint = save_epoch(state)
            if evaluation_due(state):
                evaluate()
    finally:
        history.close()
        write_health(config.checkpoint_dir, config, state.gradient_peaks(), state.explosion)
    return Result(
        final, state.step, state.explosion, checkpoint, config.checkpoint_dir, state.best_epoch
    )


def open_logs(state: TrainState) -> tuple[StepHistory, EvaluationLog]:
    """Write the settings to the run folder and open its `steps.jsonl` and `evaluations.jsonl`.

    A run that starts at step 0 first moves the files of an earlier run aside.
    """
    folder = state.config.checkpoint_dir
    if not state.step:
        set_aside(folder)
    save_config(state.config, folder / CONFIG_FILE)
    write_changes(folder, state.changed)
    return StepHistory(folder, state.step), EvaluationLog(folder, state.step)


def training_step(state: TrainState) -> tuple[dict[str, float], Explosion | None]:
    """Take one optimiser step; returns its measured values, and the explosion if a rule fired."""
    losses, shares = backward(state)
    state.scaler.unscale_(state.optimizer)
    norms = state.gradients.measure()
    clipped = clip(state.config, state.gradients, state.agc_parameters, norms[0])
    values = step_values(state, norms, clipped, losses, shares)  # the one copy from the device
    found = check_stability(state.stability, state.scaler, values)
    optimizer_step(state, finite=math.isfinite(values["grad/norm"]))
    return values, found


def log_level(state: TrainState) -> int:
    """Level at which the last step is logged: INFO for every tenth one, or for all with `debug`."""
    return logging.INFO if state.config.debug or is_logged(state.step) else logging.DEBUG


def record_explosion(state: TrainState, found: Explosion) -> None:
    """Store and log the first explosion of the run."""
    state.explosion = found
    log.error("step %d: exploded (%s): %s", found.step, found.reason, found.detail)


def evaluation_due(state: TrainState) -> bool:
    """Whether an evaluation is due: at the end of every `eval_interval`-th epoch, and of the last."""
    return at_epoch_end(state, state.config.eval_interval)


def save_due(state: TrainState) -> bool:
    """Whether a checkpoint is due: at the end of every `save_interval`-th epoch, and of the last."""
    return at_epoch_end(state, state.config.save_interval)


def at_epoch_end(state: TrainState, interval: int) -> bool:
    """Whether the last step ended an `interval`-th epoch or the run."""
    if state.step >= state.config.total_steps:
        return True
    return state.step % state.config.steps_per_epoch == 0 and state.epoch % interval == 0


def build_report(
    state: TrainState,
    phase: Phase,
    metrics: dict[str, float],
    final: dict[str, float],
    history: StepHistory,
) -> Report:
    """The state of the run for the caller's callback."""
    return Report(
        phase=phase,
        step=state.step,
        epoch=state.epoch,
        metrics=metrics,
        history=history.take(),
        best=state.best,
        final=final,
        explosion=state.explosion,
        peak_norm=state.stability.peak_norm,
        violation=state.stability.violation,
    )


def evaluate_epoch(state: TrainState, evaluations: EvaluationLog) -> dict[str, float]:
    """Evaluate the current weights on the fixed episodes, log the metrics, and save the weights if they are best."""
    metrics = evaluate_run(state.eval_detector, state.config, state.device, final=False)
    log_metrics(f"epoch {state.epoch}", metrics)
    evaluations.append(state.step, state.epoch, metrics, state.device)
    save_if_best(state, metrics)
    return metrics


def save_if_best(state: TrainState, metrics: dict[str, float]) -> None:
    """Save the weights to `best.pt` if `metrics`, those of this epoch, are better than all before."""
    if is_better(state, metrics):
        state.best = Best(state.epoch, state.step, metrics)
        state.save_best()


def is_better(state: TrainState, metrics: dict[str, float]) -> bool:
    """Whether this epoch's evaluation is the best so far."""
    config = state.config
    if state.best is None or config.stage == 1:  # without prototypes the last epoch is the best
        return True
    name = f"{config.novel_split}/{config.best_metric}"
    value, best = (found.get(name, math.nan) for found in (metrics, state.best.metrics))
    if math.isnan(best) or math.isnan(value):
        return math.isnan(best)
    return value > best if config.best_mode == "max" else value < best


def evaluate_best(state: TrainState, evaluations: EvaluationLog) -> dict[str, float]:
    """Evaluate the weights of the best epoch on episodes that were not used to select them, and log the metrics."""
    detector = state.eval_detector
    if state.best_epoch != state.epoch:
        detector, _ = load_detector(state.best_path, state.device)
    metrics = evaluate_run(detector, state.config, state.device, final=True)
    log_metrics(f"last evaluation, of epoch {state.best_epoch}", metrics)
    evaluations.append_final(state.step, state.epoch, metrics, state.device, state.best_epoch)
    return metrics


def save_epoch(state: TrainState) -> Path:
    """Write this epoch's checkpoint and delete all but the newest that this run wrote."""
    folder = state.config.checkpoint_dir
    path = folder / f"stage{state.config.stage}_epoch{state.epoch:04d}.pt"
    state.save(path)
    state.checkpoints = [old for old in state.checkpoints if old != path] + [path]
    while len(state.checkpoints) > MAX_CHECKPOINTS:
        state.checkpoints.pop(0).unlink(missing_ok=True)
    log.info("checkpoint %s", path)
    return path
