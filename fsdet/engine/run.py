"""`Run`: all that changes while a training run goes on, built from a config or from a checkpoint."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from fsdet.config import MODULES, TrainConfig
from fsdet.data.episodes import BaseSource, EpisodeSource
from fsdet.data.image_set import ImageSet
from fsdet.engine.checkpoint import check_architecture, load_checkpoint, save_checkpoint
from fsdet.engine.gradients import GradientMonitor, UpdateRatio
from fsdet.engine.optim import build_optimizer, build_scheduler
from fsdet.engine.stability import StabilityMonitor
from fsdet.losses.criterion import Criterion
from fsdet.models.detector import Detector, build_detector

log = logging.getLogger(__name__)


@dataclass
class Run:
    """The state of a run between two steps."""

    config: TrainConfig
    device: str
    source: EpisodeSource | BaseSource
    detector: Detector
    criterion: Criterion
    optimizer: AdamW
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    gradients: GradientMonitor
    updates: UpdateRatio
    stability: StabilityMonitor
    step: int = 0
    """Optimiser steps done."""
    checkpoints: list[Path] = field(default_factory=list)
    """Files that this run wrote and that are still there, oldest first."""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.config.steps_per_epoch

    def save(self, path: Path) -> None:
        """Write everything that `load_state` needs, atomically."""
        save_checkpoint(path, self.state_dict(), self.config)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it can be read back with `weights_only`."""
        return {
            "stage": self.config.stage,
            "step": self.step,
            "detector": self.detector.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"last_epoch": self.scheduler.last_epoch},
            "scaler": self.scaler.state_dict(),
            "stability": self.stability.state_dict(),
            "reference_norm": self.stability.median(),
            "rng": torch.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was saved."""
        self.detector.load_state_dict(state["detector"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.stability.load_state_dict(state["stability"])
        torch.set_rng_state(state["rng"])
        self.step = state["step"]
        self.scheduler = build_scheduler(
            self.optimizer, self.config, self.config.total_steps, last_epoch=self.step - 1
        )

    def start_from(self, state: dict[str, Any]) -> None:
        """Begin a new stage: weights and healthy gradient norm of the earlier one, all else fresh."""
        self.detector.load_state_dict(as_float(state["detector"]))
        shared = {k: v for k, v in state["criterion"].items() if k.startswith("box_loss.")}
        self.criterion.load_state_dict({**self.criterion.state_dict(), **shared})
        self.stability = StabilityMonitor(self.config, MODULES, state["reference_norm"])


def build_run(config: TrainConfig, image_set: ImageSet, resume: Path | None) -> Run:
    """Build all parts, then load the checkpoint that is to be gone on from, if any.

    Args:
        config: of this run; `config.resume` may name a checkpoint of this or an earlier stage.
        image_set: training images.
        resume: a checkpoint of this very run; goes before `config.resume`.

    Raises:
        CheckpointError: the checkpoint is missing, unreadable or does not fit.
    """
    run = _fresh_run(config, image_set)
    path = resume or config.resume
    if path is None:
        return run
    state = load_checkpoint(path)
    check_architecture(state, config, path)
    if state["stage"] == config.stage and "optimizer" in state:
        run.load_state(state)
        log.info("resumed stage %d at step %d from %s", config.stage, run.step, path)
    else:
        run.start_from(state)
        log.info("stage %d starts at epoch 0 with the weights of %s", config.stage, path)
    return run


def _fresh_run(config: TrainConfig, image_set: ImageSet) -> Run:
    device = pick_device(config.device)
    detector = build_detector(config, config, config.seed).to(device)
    for name, multiplier in config.lr_mults.items():
        if multiplier == 0:
            getattr(detector, name).requires_grad_(False)
    criterion = Criterion(config, config.stage, config.embed_dim, image_set.n_classes).to(device)
    parameters = detector.parameters_by_module()
    # the tables of stage 1 belong to no module; they learn at the head's rate
    parameters["detection_head"] = parameters["detection_head"] + list(criterion.parameters())
    optimizer = build_optimizer(parameters, config)
    return Run(
        config=config,
        device=device,
        source=build_source(config, image_set),
        detector=detector,
        criterion=criterion,
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, config.total_steps),
        scaler=torch.amp.GradScaler(device, enabled=autocast_type(config, device) == torch.float16),
        gradients=GradientMonitor(parameters),
        updates=UpdateRatio(parameters),
        stability=StabilityMonitor(config, MODULES, None),
    )


def build_source(config: TrainConfig, image_set: ImageSet) -> EpisodeSource | BaseSource:
    """Episodes for stage 2, plain batches for stage 1."""
    if config.stage == 1:
        return BaseSource(image_set, config.seed)
    return EpisodeSource(image_set, config, config.seed, augment=True)


def pick_device(wanted: str) -> str:
    """`auto` becomes the first CUDA device, or the CPU where there is none."""
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def autocast_type(config: TrainConfig, device: str) -> torch.dtype | None:
    """The type of mixed precision; None on a CPU, where it is many times slower."""
    if config.mixed_precision == "off" or not device.startswith("cuda"):
        return None
    return torch.bfloat16 if config.mixed_precision == "bf16" else torch.float16


def as_float(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half-precision tensors of a shipped checkpoint in single precision."""
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
