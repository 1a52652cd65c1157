"""The evaluations of a run: when one is due, over how many episodes, and which epoch is the best."""

from __future__ import annotations

import logging
import math
import time

from fsdet.archive import finite
from fsdet.checkpoint.content import load_detector, store_score_threshold
from fsdet.config import TrainConfig
from fsdet.config.parsing import load_config
from fsdet.data.sources import load_image_set
from fsdet.errors import ConfigError
from fsdet.evaluation.detections_page import EPISODES, write_page
from fsdet.evaluation.findings import Findings
from fsdet.evaluation.matching import MATCH_IOU, ScoreThreshold
from fsdet.evaluation.metrics import evaluate_run
from fsdet.models.postprocess import SCORE_THRESHOLD
from fsdet.reading import Row
from fsdet.report import BEST_EPOCH, BEST_FILE, DETECTIONS_FILE, EARLY_EPISODES, Best
from fsdet.run_files import CONFIG_FILE, EvaluationLog, find_evaluation, metrics_of
from fsdet.training.logs import log_metrics
from fsdet.training.resuming import compared_settings
from fsdet.training.state import TrainState

log = logging.getLogger("fsdet.run")

ABOUT_PAGE = (
    "The first episodes of the last evaluation; each picture was searched for the class whose supports are beside it. "
    f"Right: IoU of at least {MATCH_IOU:g}."
)
"""What `detections.png` shows."""


def episodes_due(state: TrainState, end: int) -> int:
    """Number of episodes of the evaluation that is due now; 0 if none is.

    A full one is due after every `eval_interval`-th epoch, after the last one, and at a pause; an early one after
    every other epoch of `early_eval_epochs`.

    Args:
        state: after its last step.
        end: step at which the run pauses or ends.
    """
    config = state.config
    if state.step >= config.total_steps or state.ends_epoch(config.eval_interval):
        return config.eval_episodes
    if state.ends_epoch() and state.epoch in config.early_eval_epochs:
        return config.early_eval_episodes
    return config.eval_episodes if state.step >= end else 0


def evaluate_epoch(
    state: TrainState, evaluations: EvaluationLog, episodes: int
) -> dict[str, float]:
    """Evaluate the current weights on the first of the fixed episodes, and save them if they are the best.

    Args:
        state: after the last step of an epoch.
        evaluations: to which the metrics are appended.
        episodes: number of episodes, see `episodes_due`.
    """
    config = state.config.model_copy(update={"eval_episodes": episodes})
    began = time.monotonic()
    metrics = evaluate_run(state.eval_detector, config, state.device, final=False)
    state.evaluation_seconds = time.monotonic() - began
    full = episodes == state.config.eval_episodes
    early = {} if full else {EARLY_EPISODES: float(episodes)}
    what = f"epoch {state.epoch}" + ("" if full else f", {episodes} episodes")
    log_metrics(what, metrics, ", best" if is_better(state, metrics, full) else "")
    evaluations.append(state.step, state.epoch, {**early, **metrics}, state.device)
    save_if_best(state, metrics, full)
    return metrics


def stored_evaluation(state: TrainState, end: int) -> Row | None:
    """The line in the run's folder with the evaluation of the weights it resumes from; None if it must be computed.

    It must be computed if the line is missing, was written with other settings or data, or is an early evaluation
    where a full one is due. Call this before the settings in the folder are replaced.
    """
    changed_now = any(
        (change["stage"], change["step"]) == (state.config.stage, state.step)
        for change in state.changed
    )
    if not state.step or changed_now or not has_same_settings(state.config):
        return None
    row = find_evaluation(state.config.checkpoint_dir, state.step)
    if row is None or row.get(EARLY_EPISODES, math.inf) < episodes_due(state, end):
        return None
    return row


def has_same_settings(config: TrainConfig) -> bool:
    """Whether the run folder was last used with settings under which a stage may resume with `config`."""
    try:
        stored = load_config(config.checkpoint_dir / CONFIG_FILE)
    except ConfigError:
        return False
    before, now = (c.model_dump(mode="json") for c in (stored, config))
    return compared_settings(before) == compared_settings(now)


def evaluate_resumed(
    state: TrainState, evaluations: EvaluationLog, end: int
) -> dict[str, float] | None:
    """The metrics of the weights that a run resumes from; None if their evaluation is neither stored nor due.

    The process may have been killed before it evaluated or reported them, or before it saved them as the best.
    """
    row, episodes = evaluations.stored, episodes_due(state, end)
    if row is None:
        return evaluate_epoch(state, evaluations, episodes) if state.step and episodes else None
    metrics = metrics_of(row)
    log.info("epoch %d: its evaluation is stored already", state.epoch)
    save_if_best(state, metrics, full=EARLY_EPISODES not in row)
    return metrics


def save_if_best(state: TrainState, metrics: dict[str, float], full: bool) -> None:
    """Save the weights to `best.pt` if `metrics`, those of this epoch, are better than all before.

    Weights that are not finite are not saved: no reader accepts them, and training does not make them finite again.
    """
    if not is_better(state, metrics, full):
        return
    state.best = Best(state.epoch, state.step, metrics, full)
    if all(map(finite, state.eval_detector.state_dict().values())):
        state.save_best()
    else:
        log.warning("epoch %d: weights are not finite; %s is not written", state.epoch, BEST_FILE)
        state.best_path.unlink(missing_ok=True)


def is_better(state: TrainState, metrics: dict[str, float], full: bool) -> bool:
    """Whether this epoch's evaluation is the best so far; a full one is better than every early one."""
    config = state.config
    if state.best is None:
        return True
    if full != state.best.full:
        return full
    if config.stage == 1:  # without prototypes the last epoch is the best
        return True
    name = f"{config.novel_split}/{config.best_metric}"
    value, best = (found.get(name, math.nan) for found in (metrics, state.best.metrics))
    if math.isnan(best) or math.isnan(value):
        return math.isnan(best)
    return value > best if config.best_mode == "max" else value < best


def evaluate_best(state: TrainState, evaluations: EvaluationLog) -> dict[str, float]:
    """Evaluate the weights of the best epoch on episodes that were not used to select them, and log the metrics.

    Also stores their score threshold in `best.pt` and draws what they find.
    """
    detector, config = state.eval_detector, state.config
    if state.best_epoch != state.epoch and state.best_path.is_file():
        detector, _ = load_detector(state.best_path, state.device)
    findings = Findings(EPISODES)
    metrics = evaluate_run(detector, config, state.device, final=True, on_episode=findings.add)
    log_metrics(f"last evaluation, of epoch {state.best_epoch}", metrics)
    threshold = findings.threshold
    if config.reported_split == config.novel_split:  # what reports does not select
        store_threshold(state, threshold)
    draw_findings(state, findings, threshold, metrics)
    values = {BEST_EPOCH: float(state.best_epoch), **metrics}
    evaluations.append(state.step, state.epoch, values, state.device)
    return metrics


def store_threshold(state: TrainState, found: ScoreThreshold | None) -> None:
    """Add the score threshold with the best F1 to `best.pt`; nothing if no detection is right."""
    if found is not None and state.best_path.is_file():
        store_score_threshold(state.best_path, found.value)
        log.info("score threshold %.3f: F1 %.3f at IoU 0.5", found.value, found.f1)


def draw_findings(
    state: TrainState, findings: Findings, found: ScoreThreshold | None, metrics: dict[str, float]
) -> None:
    """Draw the first episodes of the last evaluation as `detections.png` in the run's folder."""
    config = state.config
    split = config.reported_split
    names = load_image_set(config, split).names
    heading = (
        f"Novel classes of split '{split}': AP50 {metrics[f'{split}/nAP50']:.3f}",
        f"Stage {config.stage}, weights of epoch {state.best_epoch}. {ABOUT_PAGE}",
        describe_threshold(found),
    )
    threshold = SCORE_THRESHOLD if found is None else found.value
    write_page(
        config.checkpoint_dir / DETECTIONS_FILE, findings.episodes, names, threshold, heading
    )


def describe_threshold(found: ScoreThreshold | None) -> str:
    """Which boxes are shown, and what that threshold means over the whole evaluation."""
    if found is None:
        return f"Boxes that score at least {SCORE_THRESHOLD:g}. At no score is any box right."
    return (
        f"Boxes that score at least {found.value:.2f}, where F1 is best. Over all episodes, each image searched for "
        f"every class of its episode: {found.recall:.0%} of the objects found, {found.precision:.0%} of the boxes "
        "right."
    )
