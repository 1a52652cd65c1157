"""Checkpoints: everything a run needs to go on, written atomically, read with `weights_only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fsdet.config import MULTIPLIERS, TrainConfig
from fsdet.errors import CheckpointError
from fsdet.files import atomic_path
from fsdet.unpickling import load_plain, reason

FORMAT = 1
ARCHITECTURE = ("support_encoder", "embed_dim", "reg_max")
"""Settings that must be the same for weights to fit."""

KEPT = (
    *("lr", "weight_decay", *MULTIPLIERS.values(), "ema_decay", "mixed_precision"),
    *("n_episodes", "batch_size", "gradient_accumulation", "n_way", "n_query", "n_shot", "seed"),
    *("dataset", "train_scenes", "k_shot", "split_seed", "novel_fraction", "image_size"),
    *("base_classes", "novel_classes"),
)
"""Settings that a stage keeps when it goes on: its optimiser, and what a step is."""


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
    if stored["stage"] == config.stage and "optimizer" in state:
        _check_same_run(stored, config, path)
    if stored["stage"] > config.stage:
        raise CheckpointError(
            f"{path}: resume: this checkpoint is of stage {stored['stage']}, but the run is stage "
            f"{config.stage}; a stage starts from a checkpoint of the same or an earlier one"
        )


def _check_same_run(stored: dict[str, Any], config: TrainConfig, path: Path) -> None:
    now = config.model_dump(mode="json")
    then = {**TrainConfig().model_dump(mode="json"), **stored}
    changed = [key for key in KEPT if then[key] != now[key]]
    if changed:
        key = changed[0]
        raise CheckpointError(
            f"{path}: resume: this checkpoint goes on in the middle of its stage, with {key} {then[key]!r}, but the "
            f"run asks for {now[key]!r}; set {key}: {then[key]}, or start the stage anew from a checkpoint of an "
            "earlier one"
        )
