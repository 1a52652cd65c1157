"""A detector as a checkpoint holds it, to be evaluated or used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fsdet.config import TrainConfig
from fsdet.config_file import build_config
from fsdet.engine.checkpoint import load_checkpoint
from fsdet.engine.run import pick_device, weights_of
from fsdet.errors import CheckpointError, ConfigError
from fsdet.models.detector import Detector, build_detector


def load_detector(path: Path, device: str) -> tuple[Detector, TrainConfig]:
    """The detector of a checkpoint in evaluation mode, and the config that it was trained with.

    The moving average of the weights is preferred, where there is one.

    Args:
        path: of a checkpoint that `python -m fsdet.train` or `fsdet.export` wrote.
        device: of `usable_device`.

    Raises:
        CheckpointError: missing, unreadable, or of another version of the detector.
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
        device: of `usable_device`.
    """
    config = build_config(state["config"], str(path))
    # nothing is fetched that the checkpoint replaces anyway
    bare = config.model_copy(update={"support_pretrained": False, "yolo_weights": None})
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers are not ours to seed
        detector = build_detector(bare, bare, bare.seed)
    try:
        detector.load_state_dict(weights_of(state))
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: checkpoint: its weights do not fit this version of the detector "
            f"({str(error).splitlines()[-1].strip()}); use the version that wrote it, or train anew"
        ) from None
    return detector.to(device).eval(), config


def usable_device(wanted: str) -> str:
    """`auto` becomes the first CUDA device, or the CPU where there is none.

    Raises:
        ConfigError: this machine has no such device.
    """
    device = pick_device(wanted)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: '{wanted}' cannot be used ({reason}); name auto, cpu or cuda:N"
        ) from None
    return device
