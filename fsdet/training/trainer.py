"""The training loop, as one sequence from top to bottom."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from fsdet.config import TrainConfig
from fsdet.config.parsing import save_config
from fsdet.data.image_set import ImageSet
from fsdet.device import kind_of
from fsdet.health.checklist import write_health
from fsdet.progress import TrainingProgress
from fsdet.report import MAX_CHECKPOINTS, Explosion, Phase, Report, Result
from fsdet.run_files import (
    CONFIG_FILE,
    EvaluationLog,
    StepHistory,
    set_aside,
    write_changes,
)
from fsdet.training.build import build_state
from fsdet.training.evaluating import (
    episodes_due,
    evaluate_best,
    evaluate_epoch,
    evaluate_resumed,
    stored_evaluation,
)
from fsdet.training.first_step import record_first_step
from fsdet.training.graphs import StepGraphs, build_graphs
from fsdet.training.inputs import is_logged, next_inputs
from fsdet.training.logs import log_step
from fsdet.training.state import TrainState
from fsdet.training.step import advance, check_stability, measure_reference, run_step
from fsdet.training.values import StepValues, copy_values

log = logging.getLogger("fsdet.run")

STEPS_BEHIND = {"cpu": 0, "cuda": 1}
"""Number of steps that are under way on a device while the host reads the values of an earlier one."""


def run_training(
    config: TrainConfig,
    image_set: ImageSet,
    on_report: Callable[[Report], None] | None,
    resume: Path | None,
    until: int | None,
) -> Result:
    """Train to the end, to a pause or an explosion, or until `on_report` raises. See `fsdet.train.train`."""
    state = build_state(config, image_set, resume)
    graphs = build_graphs(state)
    end = config.steps_until(until)
    history, evaluations = open_logs(state, end)
    if state.stability.reference is None:
        measure_reference(state)
    final: dict[str, float] = {}
    phase: Phase = "running"
    checkpoint = (resume or config.resume) if state.step else None
    if checkpoint is not None and checkpoint.parent == config.checkpoint_dir:
        state.checkpoints += written_before(checkpoint)

    def report(now: Phase, metrics: dict[str, float]) -> None:
        nonlocal phase
        phase = now
        built = build_report(state, phase, metrics, final, history)
        if on_report is not None:
            on_report(built)

    def report_evaluation(metrics: dict[str, float]) -> None:
        nonlocal final
        now = phase_at(state, end)
        if now == "final":
            final = evaluate_best(state, evaluations)
        report(now, metrics)

    try:
        if (metrics := evaluate_resumed(state, evaluations, end)) is not None:
            report_evaluation(metrics)
        with build_progress(state, end) as shown:
            outstanding: deque[StepValues] = deque()
            while state.step < end:
                outstanding.append(take_step(state, graphs))
                while len(outstanding) > steps_behind(state, end):
                    values, found = judge_step(state, outstanding.popleft())
                    if state.first_step is None:
                        record_first_step(state, values)
                    step = int(values["step"])
                    history.append(values)
                    log_step(values, log_level(config, step))
                    shown.show_step(step, values["train/loss/total"], values["grad/norm"])
                    if found and state.explosion is None:
                        record_explosion(state, found)
                if state.explosion and config.stop_on_explosion:
                    report("exploded", {})
                    break
                if save_due(state, end):
                    checkpoint = save_epoch(state)
                if episodes := episodes_due(state, end):
                    report_evaluation(evaluate_epoch(state, evaluations, episodes))
    except BaseException:
        with contextlib.suppress(Exception):  # the caller must learn what ended the run
            close_run(state, history)
        raise
    close_run(state, history)
    return build_result(state, final, checkpoint, paused=phase == "paused")


def close_run(state: TrainState, history: StepHistory) -> None:
    """Write what is left of its steps, and its health report."""
    history.close()
    config = state.config
    write_health(config.checkpoint_dir, config, state.gradient_peaks(), state.explosion)


def open_logs(state: TrainState, end: int) -> tuple[StepHistory, EvaluationLog]:
    """Write the settings to the run folder and open its `steps.jsonl` and `evaluations.jsonl`.

    A run that starts at step 0 first moves the files of an earlier run aside.

    Args:
        state: of the run.
        end: step at which it pauses or ends.
    """
    folder = state.config.checkpoint_dir
    if not state.step:
        set_aside(folder)
    stored = stored_evaluation(state, end)  # compares the settings that are replaced now
    evaluations = EvaluationLog(folder, state.step, stored)
    save_config(state.config, folder / CONFIG_FILE)
    write_changes(folder, state.changed)
    return StepHistory(folder, state.step), evaluations


def build_progress(state: TrainState, end: int) -> TrainingProgress:
    """The display of the run's progress; `end` is the step at which it pauses or ends."""
    config = state.config
    return TrainingProgress(f"stage {config.stage}", state.step, end, config.steps_per_epoch)


def take_step(state: TrainState, graphs: StepGraphs | None = None) -> StepValues:
    """Take one optimiser step without waiting for the device; its shapes depend on those of the batch alone."""
    inputs = next_inputs(state)
    measured = run_step(state, inputs) if graphs is None else graphs.run(inputs)
    values = copy_values(state, measured)
    advance(state)
    return values


def judge_step(state: TrainState, taken: StepValues) -> tuple[dict[str, float], Explosion | None]:
    """The values of a step, and the explosion if a rule fired at it; the steps must come in order."""
    values = taken.read()
    values |= state.spikes.update(values)
    return values, check_stability(state.stability, values)


def training_step(state: TrainState) -> tuple[dict[str, float], Explosion | None]:
    """Take one optimiser step and judge it at once."""
    return judge_step(state, take_step(state))


def stepper(state: TrainState) -> Callable[[], None]:
    """A function that takes the next step and judges the one whose values are there, without logs and files."""
    graphs = build_graphs(state)
    outstanding: deque[StepValues] = deque()

    def take() -> None:
        outstanding.append(take_step(state, graphs))
        while len(outstanding) > behind_on(state.device):
            judge_step(state, outstanding.popleft())

    return take


def behind_on(device: str) -> int:
    """Number of steps that are under way on a device while the host reads the values of an earlier one."""
    return STEPS_BEHIND.get(kind_of(device), 0)


def steps_behind(state: TrainState, end: int) -> int:
    """Number of steps whose values may still be outstanding; none before a checkpoint or an evaluation, nor after the
    first step, whose weights and gradients are recorded."""
    if state.first_step is None or state.step >= end or state.ends_epoch():
        return 0
    return behind_on(state.device)


def log_level(config: TrainConfig, step: int) -> int:
    """Level at which a step is logged: INFO for every tenth one, or for all with `debug`."""
    return logging.INFO if config.debug or is_logged(step) else logging.DEBUG


def record_explosion(state: TrainState, found: Explosion) -> None:
    """Store and log the first explosion of the run."""
    state.explosion = found
    log.error("step %d: exploded (%s): %s", found.step, found.reason, found.detail)


def save_due(state: TrainState, end: int) -> bool:
    """Whether a checkpoint is due: after every `save_interval`-th epoch, and at the step `end`."""
    return state.step >= end or state.ends_epoch(state.config.save_interval)


def phase_at(state: TrainState, end: int) -> Phase:
    """Phase of the report of an evaluation; `end` is the step at which the run pauses or ends."""
    if state.step < end:
        return "running"
    return "paused" if end < state.config.total_steps else "final"


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
        first_step=state.first_step,
        evaluation_seconds=state.evaluation_seconds,
    )


def build_result(
    state: TrainState, final: dict[str, float], checkpoint: Path | None, paused: bool
) -> Result:
    """The outcome of the run for its caller."""
    return Result(
        metrics=final,
        steps=state.step,
        explosion=state.explosion,
        checkpoint=checkpoint,
        run_dir=state.config.checkpoint_dir,
        best_epoch=state.best_epoch,
        paused=paused,
    )


def written_before(checkpoint: Path) -> list[Path]:
    """The checkpoints that this run had kept when it wrote `checkpoint`, this one included."""
    stage = checkpoint.name.partition("_")[0]
    older = [p for p in checkpoint.parent.glob(f"{stage}_epoch*.pt") if p.name < checkpoint.name]
    return [*sorted(older)[1 - MAX_CHECKPOINTS :], checkpoint]


def save_epoch(state: TrainState) -> Path:
    """Write this epoch's checkpoint and delete all but the newest that this run wrote."""
    folder = state.config.checkpoint_dir
    path = folder / f"stage{state.config.stage}_epoch{state.epoch:04d}.pt"
    state.save(path)
    state.checkpoints = [old for old in state.checkpoints if old != path] + [path]
    while len(state.checkpoints) > MAX_CHECKPOINTS:
        state.checkpoints.pop(0).unlink(missing_ok=True)
    log.debug("checkpoint %s", path.name)
    return path
