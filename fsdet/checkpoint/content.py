"""Content of a checkpoint: everything that a run needs to continue; written atomically, read with `weights_only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsdet.checkpoint.validation import check_content
from fsdet.config import TrainConfig
from fsdet.config.parsing import build_config
from fsdet.errors import CheckpointError
from fsdet.files import atomic_path
from fsdet.models.detector import Detector, build_detector
from fsdet.unpickling import load_plain, reason

FORMAT = 1
MESSAGE = 300
"""Characters of what is wrong that a message shows."""
SCORE_THRESHOLD = "score_threshold"
"""Key of the score threshold that was best on validation; only `best.pt` of complete runs has it."""


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
    """Read a checkpoint onto the CPU, and check all that it must hold (see `fsdet.checkpoint.validation`).

    Args:
        path: file that `save_checkpoint` wrote.
        setting: or argument that gives the path, for the message.

    Raises:
        CheckpointError: missing, damaged, incomplete, with weights that are not finite or do not fit its settings, or
            written by another program.
    """
    state = read_checkpoint(path, setting)
    try:
        check_content(state)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: {setting}: not a checkpoint that can be used: {str(error)[:MESSAGE]}; name another, use the "
            "version that wrote it, or train again"
        ) from None
    return state


def read_checkpoint(path: Path, setting: str = "resume") -> dict[str, Any]:
    """Read a checkpoint of which only what describes the run is used; `load_checkpoint` checks its weights too.

    Args:
        path: file that `save_checkpoint` wrote.
        setting: or argument that gives the path, for the message.

    Raises:
        CheckpointError: missing, damaged, or written by another program.
    """
    try:
        state = load_plain(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: {setting}: no such checkpoint; check the path") from None
    except Exception as error:
        raise CheckpointError(
            f"{path}: {setting}: not a checkpoint that can be read ({reason(error, path)}); name a file that "
            "`python -m fsdet.train` wrote"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: {setting}: not a checkpoint of this trainer; backbone weights of the Ultralytics "
            "package go to --yolo_weights"
        )
    return state


def load_detector(path: Path, device: str) -> tuple[Detector, TrainConfig]:
    """The detector of a checkpoint in evaluation mode, and the config that it was trained with.

    The moving average of the weights is preferred, if there is one.

    Args:
        path: of a checkpoint that `python -m fsdet.train` or `fsdet.export` wrote.
        device: of `fsdet.device.usable_device`.

    Raises:
        CheckpointError: see `load_checkpoint`.
        ConfigError: its settings are not those of this version.
    """
    return restore_detector(load_checkpoint(path, "checkpoint"), path, device)


def restore_detector(
    state: dict[str, Any], path: Path, device: str
) -> tuple[Detector, TrainConfig]:
    """As `load_detector`, from the content of a checkpoint.

    Args:
        state: of `load_checkpoint`.
        path: where it comes from, for the messages.
        device: of `fsdet.device.usable_device`.
    """
    config = build_config(state["config"], str(path))
    # do not download pretrained weights that the checkpoint replaces
    bare = config.model_copy(update={"support_pretrained": False, "yolo_weights": None})
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays the same
        detector = build_detector(bare)
    detector.load_state_dict(weights_of(state))
    return detector.to(device).eval(), config


def store_score_threshold(path: Path, value: float) -> None:
    """Add a score threshold to a checkpoint; the rest stays as it is."""
    state = load_checkpoint(path)
    with atomic_path(path) as part:
        torch.save({**state, SCORE_THRESHOLD: value}, part)


def score_threshold_of(state: dict[str, Any]) -> float | None:
    """The score threshold in a checkpoint; None if it carries none, as those of earlier versions."""
    value = state.get(SCORE_THRESHOLD)
    return value if isinstance(value, float) and 0 <= value <= 1 else None


def weights_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """The detector's weights in a checkpoint, in single precision: the moving average, if there is one."""
    return as_float(state.get("ema") or state["detector"])


def as_float(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Half-precision tensors of a shipped checkpoint in single precision."""
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
