"""Rules for resuming: weights must fit, settings and data be the same, and no novel class have been trained on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fsdet.checkpoint.content import load_checkpoint
from fsdet.config import HealthConfig, TrainConfig
from fsdet.data.image_set import ImageSet
from fsdet.data.sources import load_image_set
from fsdet.device import kind_of, pick_device
from fsdet.errors import CheckpointError
from fsdet.report import Best
from fsdet.training.state import TrainState

log = logging.getLogger(__name__)

ARCHITECTURE = ("support_encoder", "embed_dim", "reg_max")
"""Settings that must be the same for the weights to fit."""

HARMLESS = {
    "checkpoint_dir": "where files are written",
    "resume": "the path of this checkpoint",
    "resume_with_changes": "the permission itself",
    "save_interval": "how often the state is saved",
    "eval_interval": "how often the run is evaluated",
    "early_eval_epochs": "how often too; early_eval_episodes is compared, since the values depend on it",
    "share_interval": "how often gradient shares are measured",
    "debug": "what is logged",
    "cuda_graph": "how kernels are launched",
    "cache_dir": "where decoded images are stored",
    "cache_limit_gb": "how many of them",
    "num_workers": "how fast they are decoded",
    "yolo_weights": "the checkpoint replaces these weights",
    "support_pretrained": "the checkpoint replaces these weights",
    **dict.fromkeys(HealthConfig.model_fields, "judges a run, does not change it"),
}
"""Settings that may change when a stage resumes, with the reason; all others are compared."""
BY_CONTENT = ("device", "data_root", "split_file", "shots_dir")
"""Settings that are not compared by value but by what they refer to (see `inputs_of`), so that a run
can move to another machine."""
SAME_DATA = "name the same data_root, split_file and shots_dir"
FIXES = {
    "kind of device": "run on the same kind of device",
    **dict.fromkeys(("training data", "base data", "novel data"), SAME_DATA),
}
"""How to fix a difference in an input of the run; a setting is set back."""
DIGEST = 64
"""Number of characters of a digest of data."""

Changes = dict[str, tuple[Any, Any]]
"""Setting or input -> its value in the checkpoint and now."""


def check_architecture(state: dict[str, Any], config: TrainConfig, path: Path) -> None:
    """Refuse weights that do not fit `config`.

    Raises:
        CheckpointError: the message gives the setting, both values and the fix.
    """
    stored = state["config"]
    fixed_size = config.support_encoder != "small_conv"  # a transformer is built for one size
    for key in (*ARCHITECTURE, *(["support_size"] if fixed_size else [])):
        if stored[key] != getattr(config, key):
            raise CheckpointError(
                f"{path}: resume: this checkpoint has {key} {stored[key]!r}, but the run asks for "
                f"{getattr(config, key)!r}; set {key}: {stored[key]} or name another checkpoint"
            )
    if is_same_stage(state, config):
        check_changes(find_changes(state, config), config, path)
    if stored["stage"] > config.stage:
        raise CheckpointError(
            f"{path}: resume: this checkpoint is of stage {stored['stage']}, but the run is stage "
            f"{config.stage}; a stage starts from a checkpoint of the same or an earlier one"
        )


def is_same_stage(state: dict[str, Any], config: TrainConfig) -> bool:
    """Whether a run resumes the stage that the checkpoint was saved in; an exported one starts it at epoch 0."""
    return state["config"]["stage"] == config.stage and "optimizer" in state


def compared_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings whose values must be the same when a stage resumes."""
    left_out = {*HARMLESS, *BY_CONTENT}
    return {key: value for key, value in settings.items() if key not in left_out}


def find_changes(
    state: dict[str, Any], config: TrainConfig, inputs: dict[str, str] | None = None
) -> Changes:
    """The differences to the run that wrote a checkpoint, except the harmless ones.

    Args:
        state: of `load_checkpoint`.
        config: of the run that resumes.
        inputs: of the run that resumes, see `TrainState.inputs`; None compares settings alone.
    """
    before = state.get("inputs")
    then = {**TrainConfig().model_dump(mode="json"), **state["config"], **(before or {})}
    now = {**config.model_dump(mode="json"), **(inputs or {})}
    left_out = {*HARMLESS, *(BY_CONTENT if before else ())}
    return {
        key: (then[key], now[key])
        for key in now
        if key not in left_out and key in then and then[key] != now[key]
    }


def check_changes(changes: Changes, config: TrainConfig, path: Path) -> None:
    """Refuse to resume a stage with other settings, unless `resume_with_changes` asks for it.

    Raises:
        CheckpointError: the message lists every change and the fixes.
    """
    if not changes or config.resume_with_changes:
        return
    different = ", ".join(
        f"{key} was {abbreviate(a)} and is {abbreviate(b)}" for key, (a, b) in changes.items()
    )
    fixes = dict.fromkeys(
        FIXES.get(key, f"set {key}: {then}") for key, (then, _) in changes.items()
    )
    raise CheckpointError(
        f"{path}: resume: a stage resumes with the settings it was started with, but {different}; {', '.join(fixes)}, "
        "or start the stage again from a checkpoint of an earlier one, or allow it with --resume_with_changes"
    )


def abbreviate(value: object) -> str:
    """A value for a message; a digest is cut to its first characters."""
    return repr(value[:12] if isinstance(value, str) and len(value) == DIGEST else value)


def resume_stage(state: TrainState, saved: dict[str, Any], path: Path) -> None:
    """Continue where `saved` was written, and record what has changed since, if the config allows it.

    Raises:
        CheckpointError: a setting or an input has changed that must not.
    """
    changes = find_changes(saved, state.config, state.inputs)
    check_changes(changes, state.config, path)
    if not state.has_same_tensors(saved):
        raise CheckpointError(
            f"{path}: resume: trains other tensors than this run, or with another optimizer, which no stage can "
            f"resume with (changed: {', '.join(changes) or 'nothing'}); start the stage again from a checkpoint of an "
            "earlier one"
        )
    state.load_state_dict(saved)
    state.best = stored_best(saved, state.best_path)
    if changes:  # the measured norm may be that of other losses or data
        state.stability.reference = state.config.explosion_reference
    for setting, (then, now) in changes.items():
        log.warning(
            "resumed with a change: %s %s -> %s", setting, abbreviate(then), abbreviate(now)
        )
        where = {"stage": state.config.stage, "step": state.step}
        state.changed.append({**where, "setting": setting, "from": then, "to": now})


def start_stage(state: TrainState, saved: dict[str, Any], path: Path) -> None:
    """Begin a stage with the weights of an earlier one.

    Raises:
        CheckpointError: the state of its losses is that of another version.
    """
    own = state.criterion.state_dict()
    for name, tensor in saved["criterion"].items():
        if name.startswith("box_loss.") and (name not in own or own[name].shape != tensor.shape):
            raise CheckpointError(
                f"{path}: resume: criterion.{name} is that of another version of the losses; use the version that "
                "wrote it, or train again"
            )
    state.start_from(saved)


def stored_best(saved: dict[str, Any], path: Path) -> Best | None:
    """The best evaluation before a checkpoint, if the `best.pt` at `path` holds its weights.

    A run that was killed after the checkpoint may have replaced them by the weights of a later epoch, which is now
    trained again. The search for the best then starts again from here; on a CPU that epoch gives the same weights
    again. Weights of another run in the same folder are ignored too.
    """
    best = saved["best"]
    if best is None or not path.is_file():
        return None
    stored = load_checkpoint(path)
    same_run = compared_settings(stored["config"]) == compared_settings(saved["config"])
    return Best(**best) if same_run and stored.get("epoch") == best["epoch"] else None


def inputs_of(config: TrainConfig, image_set: ImageSet) -> dict[str, str]:
    """Name -> value of everything that the results of a run depend on besides the values of its settings."""
    return {
        "kind of device": kind_of(pick_device(config.device)),
        "training data": image_set.digest,
        "base data": load_image_set(config, "base").digest,
        "novel data": load_image_set(config, config.novel_split).digest,
    }


def check_classes(
    state: dict[str, Any], config: TrainConfig, image_set: ImageSet, path: Path
) -> tuple[str, ...]:
    """Refuse a novel class that the weights were trained on.

    Returns:
        all classes that the weights will have been trained on.

    Raises:
        CheckpointError: the message lists such classes. With another dataset they are only a warning, since the
            same name may mean something else there.
    """
    before = set(state.get("trained_on", ()))
    known = sorted(before & set(load_image_set(config, config.novel_split).names))
    same_data = state["config"].get("data_root") == config.model_dump(mode="json")["data_root"]
    if known and config.stage < 3:
        message = (
            f"{path}: resume: this checkpoint was trained on {', '.join(known[:5])}"
            f"{', …' if len(known) > 5 else ''}, novel in this run; use the split it was trained with "
            "(split_seed, novel_fraction, base_classes, novel_classes, split_file)"
        )
        if same_data:
            raise CheckpointError(message)
        log.warning("%s", message)
    return tuple(sorted(before | set(image_set.names)))
