"""Checkpoints: everything a run needs to go on, written atomically, read with `weights_only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fsdet.config import HealthConfig, TrainConfig
from fsdet.errors import CheckpointError
from fsdet.files import atomic_path
from fsdet.unpickling import load_plain, reason

FORMAT = 1
ARCHITECTURE = ("support_encoder", "embed_dim", "reg_max")
"""Settings that must be the same for weights to fit."""

HARMLESS = {
    "checkpoint_dir": "where files go",
    "resume": "names this very checkpoint",
    "resume_with_changes": "the permission itself",
    "save_interval": "how often the state is saved",
    "eval_interval": "how often the same is measured",
    "share_interval": "how often gradients are measured on the side",
    "debug": "what is logged",
    "cache_dir": "where decoded images lie",
    "cache_limit_gb": "how many of them",
    "num_workers": "how fast they are decoded",
    "yolo_weights": "the checkpoint replaces these weights",
    "support_pretrained": "the checkpoint replaces these weights",
    **dict.fromkeys(HealthConfig.model_fields, "judges a run, does not change it"),
}
"""Settings that may change when a stage resumes, with the reason; all others are compared."""
BY_CONTENT = ("device", "data_root", "split_file", "shots_dir")
"""Settings of which not the value is compared but what it stands for (see `fsdet.engine.run.inputs_of`), so that a run
can move to another machine."""
SAME_DATA = "name the same data_root, split_file and shots_dir"
CURES = {
    "kind of device": "run on the same kind of device",
    **dict.fromkeys(("training data", "base data", "novel data"), SAME_DATA),
}
"""What to do where an input of the run differs; a setting is set back."""
DIGEST = 64
"""Length of the digest of data."""

Changes = dict[str, tuple[Any, Any]]
"""Setting or input -> its value in the checkpoint and now."""


def save_checkpoint(path: Path, state: dict[str, Any], config: TrainConfig) -> None:
    """Write `state` with the config it belongs to.

    Args:
        path: the file; replaced in one move.
        state: tensors, numbers, strings, lists and dicts of these, nothing else.
        config: stored as plain values.
    """
    with atomic_path(path) as part:
        torch.save({"format": FORMAT, "config": config.model_dump(mode="json"), **state}, part)


def load_checkpoint(path: Path, setting: str = "resume") -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        path: file that `save_checkpoint` wrote.
        setting: what names it, for the message.

    Raises:
        CheckpointError: missing, damaged, or not one of ours.
    """
    try:
        state = load_plain(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: {setting}: no such checkpoint; check the path") from None
    except Exception as error:
        raise CheckpointError(
            f"{path}: {setting}: not a checkpoint that can be read ({reason(error)}); name a file that "
            "`python -m fsdet.train` wrote"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: {setting}: not a checkpoint of this trainer; backbone weights of the Ultralytics "
            "package go to --yolo_weights"
        )
    return state


def check_architecture(state: dict[str, Any], config: TrainConfig, path: Path) -> None:
    """Refuse weights that do not fit `config`.

    Raises:
        CheckpointError: names the setting, both values and the cure.
    """
    stored = state["config"]
    fixed_size = config.support_encoder != "small_conv"  # a transformer is built for one size
    for key in (*ARCHITECTURE, *(["support_size"] if fixed_size else [])):
        if stored[key] != getattr(config, key):
            raise CheckpointError(
                f"{path}: resume: this checkpoint has {key} {stored[key]!r}, but the run asks for "
                f"{getattr(config, key)!r}; set {key}: {stored[key]} or name another checkpoint"
            )
    if continues(state, config):
        check_changes(find_changes(state, config), config, path)
    if stored["stage"] > config.stage:
        raise CheckpointError(
            f"{path}: resume: this checkpoint is of stage {stored['stage']}, but the run is stage "
            f"{config.stage}; a stage starts from a checkpoint of the same or an earlier one"
        )


def continues(state: dict[str, Any], config: TrainConfig) -> bool:
    """Whether a run resumes the stage that the checkpoint was saved in; an exported one starts it anew."""
    return state["config"]["stage"] == config.stage and "optimizer" in state


def compared(settings: dict[str, Any]) -> dict[str, Any]:
    """Those settings whose values must be the same when a stage resumes."""
    left_out = {*HARMLESS, *BY_CONTENT}
    return {key: value for key, value in settings.items() if key not in left_out}


def find_changes(
    state: dict[str, Any], config: TrainConfig, inputs: dict[str, str] | None = None
) -> Changes:
    """What differs from the run that wrote a checkpoint, of all that is not harmless.

    Args:
        state: of `load_checkpoint`.
        config: of the run that resumes.
        inputs: of the run that resumes, see `Run.inputs`; None compares settings alone.
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
        CheckpointError: names every change and the cures.
    """
    if not changes or config.resume_with_changes:
        return
    different = ", ".join(
        f"{key} was {shortened(a)} and is {shortened(b)}" for key, (a, b) in changes.items()
    )
    cures = dict.fromkeys(
        CURES.get(key, f"set {key}: {then}") for key, (then, _) in changes.items()
    )
    raise CheckpointError(
        f"{path}: resume: a stage resumes with the settings it was begun with, but {different}; {', '.join(cures)}, or "
        "start the stage anew from a checkpoint of an earlier one, or go on with --resume_with_changes"
    )


def shortened(value: object) -> str:
    """A value for a message: of a digest its first characters, which show that it is another."""
    return repr(value[:12] if isinstance(value, str) and len(value) == DIGEST else value)
