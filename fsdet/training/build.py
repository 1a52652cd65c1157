"""Builds the state of a run: every part from the config, then the checkpoint to resume or start from."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from timm.utils import ModelEmaV3

from fsdet.checkpoint.content import load_checkpoint
from fsdet.config import MODULES, RunConfig, TrainConfig
from fsdet.data.episodes import BaseSource, BatchLoader, EpisodeSource
from fsdet.data.image_set import ImageSet
from fsdet.device import autocast_type, pick_device
from fsdet.health.spikes import SpikeScores
from fsdet.health.stability import StabilityMonitor
from fsdet.losses.criterion import Criterion
from fsdet.models.detector import Detector, build_detector
from fsdet.models.support_features import SupportFeatures
from fsdet.training.clipping import build_clipping
from fsdet.training.gradients import GradientMonitor, UpdateRatio
from fsdet.training.optim import build_optimizer, build_scheduler
from fsdet.training.resuming import (
    check_architecture,
    check_classes,
    inputs_of,
    is_same_stage,
    resume_stage,
    start_stage,
)
from fsdet.training.state import TrainState

log = logging.getLogger(__name__)


def build_state(config: TrainConfig, image_set: ImageSet, resume: Path | None) -> TrainState:
    """Build all parts, then load the checkpoint to resume or start from, if any.

    Args:
        config: of this run; `config.resume` may name a checkpoint of this or an earlier stage.
        image_set: training images.
        resume: a checkpoint of this very run; takes precedence over `config.resume`.

    Raises:
        CheckpointError: the checkpoint is missing, unreadable or does not fit.
    """
    path = resume or config.resume
    inputs = inputs_of(config, image_set)
    if path is None:
        state = _fresh_state(config, image_set)
        return replace(state, inputs=inputs, trained_on=tuple(sorted(image_set.names)))
    saved = load_checkpoint(path)
    check_architecture(saved, config, path)
    # do not download pretrained weights that the checkpoint replaces
    own = config.model_copy(update={"support_pretrained": False, "yolo_weights": None})
    state = replace(_fresh_state(own, image_set), config=config, inputs=inputs)
    state.trained_on = check_classes(saved, config, image_set, path)
    state.changed = list(saved.get("changed", ()))
    if is_same_stage(saved, config):
        resume_stage(state, saved, path)
        log.info("resumed stage %d at step %d from %s", config.stage, state.step, path.name)
    else:
        start_stage(state, saved, path)
        log.info("stage %d starts at epoch 0 with the weights of %s", config.stage, path.name)
    return state


def _fresh_state(config: TrainConfig, image_set: ImageSet) -> TrainState:
    device = pick_device(config.device)
    if config.mixed_precision != "off" and device == "cpu":
        log.info(
            "mixed_precision %s needs a GPU: this run computes in float32", config.mixed_precision
        )
    detector = _build_detector(config, device)
    criterion = Criterion(config, config.stage, config.embed_dim, image_set.n_classes).to(device)
    parameters = detector.parameters_by_module()
    # the class embeddings of stage 1 belong to no module; they learn at the head's rate
    tables = list(criterion.parameters())
    parameters["detection_head"] = parameters["detection_head"] + tables
    names = {p: n for part in (detector, criterion) for n, p in part.named_parameters()}
    trained = [p for tensors in parameters.values() for p in tensors]
    final = {*detector.detection_head.final_parameters(), *tables}
    optimizer, gradients = build_optimizer(parameters, config), GradientMonitor(parameters)
    units = [p for p in trained if p not in final]
    frozen = "support_encoder" in detector.frozen
    return TrainState(
        config=config,
        device=device,
        batches=BatchLoader(build_source(config, image_set, device), device),
        detector=detector,
        criterion=criterion,
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, config.total_steps),
        scaler=torch.amp.GradScaler(device, enabled=autocast_type(config, device) == torch.float16),
        gradients=gradients,
        tensors=[names[p] for p in trained],
        clipping=build_clipping(config, gradients, optimizer, units),
        updates=UpdateRatio(parameters),
        stability=StabilityMonitor(config, MODULES, None),
        spikes=SpikeScores(),
        frozen_features=SupportFeatures(detector, image_set, device) if frozen else None,
        ema=build_ema(detector, config),
    )


def _build_detector(config: TrainConfig, device: str) -> Detector:
    """The detector on its device, in the memory format for it, with its modules frozen as set."""
    detector = build_detector(config).to(device)
    if device.startswith("cuda"):
        detector = detector.to(memory_format=torch.channels_last)  # on a CPU it gains nothing
    for name, multiplier in config.lr_mults.items():
        if multiplier == 0:
            detector.freeze(name)
    if config.stage == 1:
        detector.freeze_prototype_parts()
    if config.compile:
        detector.compile_modules()
    return detector


def build_ema(detector: Detector, config: RunConfig) -> ModelEmaV3 | None:
    """The moving average of all weights and running statistics; its decay rises over the first steps."""
    if config.ema_decay is None:
        return None
    return ModelEmaV3(detector, decay=config.ema_decay, use_warmup=True)


def build_source(
    config: TrainConfig, image_set: ImageSet, device: str
) -> EpisodeSource | BaseSource:
    """Plain batches for stage 1, episodes for the others."""
    gpu = device.startswith("cuda")
    if config.stage == 1:
        return BaseSource(image_set, config.seed, channels_last=gpu)
    return EpisodeSource(image_set, config, config.seed, augment=True, channels_last=gpu)
