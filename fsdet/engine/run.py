"""`Run`: all that changes while a training run goes on, built from a config or from a checkpoint."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from fsdet.config import MODULES, RunConfig, TrainConfig
from fsdet.data.episodes import BaseSource, EpisodeSource
from fsdet.data.image_set import ImageSet
from fsdet.data.sources import load_image_set
from fsdet.engine.batches import Batches
from fsdet.engine.checkpoint import (
    check_architecture,
    check_changes,
    compared,
    continues,
    find_changes,
    load_checkpoint,
    save_checkpoint,
    shortened,
)
from fsdet.engine.gradients import GradientMonitor, UpdateRatio
from fsdet.engine.optim import build_optimizer, build_scheduler
from fsdet.engine.report import BEST_FILE, Best, Explosion
from fsdet.engine.stability import StabilityMonitor
from fsdet.engine.support_features import SupportFeatures
from fsdet.errors import CheckpointError
from fsdet.losses.criterion import Criterion
from fsdet.models.detector import Detector, build_detector
from fsdet.structures import Batch

log = logging.getLogger(__name__)


@dataclass
class Run:
    """The state of a run between two steps."""

    config: TrainConfig
    device: str
    batches: Batches
    detector: Detector
    criterion: Criterion
    optimizer: AdamW
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    gradients: GradientMonitor
    tensors: list[str]
    """Names of the trainable tensors, in the order of `gradients.peaks`."""
    clipped_units: list[nn.Parameter]
    """What adaptive clipping clips: all but the final layer."""
    updates: UpdateRatio
    stability: StabilityMonitor
    frozen_features: SupportFeatures | None = None
    """Embeddings of the training supports, where the encoder is frozen."""
    ema: ModelEmaV3 | None = None
    """Moving average of the weights."""
    step: int = 0
    """Optimiser steps done."""
    ratios: Tensor | None = None
    """(modules,) update ratios of the step before, if they were measured."""
    explosion: Explosion | None = None
    """The first verdict, where the run goes on in spite of it."""
    best: Best | None = None
    """The best evaluation so far; its weights are in `best_path`."""
    trained_on: tuple[str, ...] = ()
    """Names of all classes that the weights were trained on, in this run and those it started from."""
    inputs: dict[str, str] = field(default_factory=dict)
    """What the steps depend on beside the settings, see `inputs_of`."""
    changed: list[dict[str, Any]] = field(default_factory=list)
    """Every change with which a stage was resumed: `stage`, `step`, `setting`, `from` and `to`."""
    checkpoints: list[Path] = field(default_factory=list)
    """Files that this run wrote and that are still there, oldest first."""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.config.steps_per_epoch

    @property
    def best_epoch(self) -> int:
        """Epoch of the best evaluation; this one before there is any."""
        return self.epoch if self.best is None else self.best.epoch

    @property
    def best_path(self) -> Path:
        """File with the weights of the best epoch."""
        return self.config.checkpoint_dir / BEST_FILE

    @property
    def evaluated(self) -> Detector:
        """The weights that count: the moving average, where there is one."""
        return self.detector if self.ema is None else self.ema.module

    def shots(self, batch: Batch) -> Tensor:
        """(E, n_way, n_shot, D) embeddings of a batch's supports."""
        if self.frozen_features is not None:
            return self.frozen_features.look_up(batch.support_ids)
        return self.detector.embed_supports(batch.supports)

    def gradient_peaks(self) -> dict[str, float]:
        """Trainable tensor -> the largest norm that its gradient had in this stage."""
        return dict(zip(self.tensors, self.gradients.peaks.tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write everything that `load_state` needs, atomically."""
        save_checkpoint(path, self.state_dict(), self.config)

    def save_best(self) -> None:
        """Write the weights that were just evaluated to `best_path`, atomically; a stage can start from them."""
        state = {
            "stage": self.config.stage,
            "step": self.step,
            "epoch": self.epoch,
            "detector": self.evaluated.state_dict(),
            "criterion": self.criterion.state_dict(),
            "trained_on": list(self.trained_on),
        }
        save_checkpoint(self.best_path, state, self.config)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it can be read back with `weights_only`."""
        average = {} if self.ema is None else {"ema": self.ema.module.state_dict()}
        return {
            **average,
            "stage": self.config.stage,
            "step": self.step,
            "detector": self.detector.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"last_epoch": self.scheduler.last_epoch},
            "scaler": self.scaler.state_dict(),
            "stability": self.stability.state_dict(),
            "gradient_peaks": self.gradient_peaks(),
            "ratios": self.ratios,
            "explosion": None if self.explosion is None else asdict(self.explosion),
            "best": None if self.best is None else asdict(self.best),
            "trained_on": list(self.trained_on),
            "inputs": self.inputs,
            "changed": self.changed,
            "rng": torch.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was saved; learning rates and decay are those of the config."""
        self.detector.load_state_dict(state["detector"])
        self.criterion.load_state_dict(state["criterion"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if state["scaler"]:  # none was saved without fp16
            self.scaler.load_state_dict(state["scaler"])
        self.stability.load_state_dict(state["stability"])
        torch.set_rng_state(state["rng"])
        peaks = [state["gradient_peaks"][name] for name in self.tensors]
        self.gradients.peaks = torch.tensor(peaks, device=self.device)
        self.ratios = None if state["ratios"] is None else state["ratios"].to(self.device)
        self.explosion = None if state["explosion"] is None else Explosion(**state["explosion"])
        self.best = self._stored_best(state)
        if self.ema is not None:
            self.ema.module.load_state_dict(state.get("ema") or state["detector"])
        self.step = state["step"]
        self.scheduler = build_scheduler(
            self.optimizer, self.config, self.config.total_steps, last_epoch=self.step - 1
        )

    def _stored_best(self, state: dict[str, Any]) -> Best | None:
        """The best evaluation before a checkpoint, if `best.pt` holds its weights.

        A run that was killed behind the checkpoint may have replaced them by better ones of an epoch that is now
        trained again; the best is then sought from here on, and on a CPU found to be that epoch again. Weights that
        another run left there are not taken either.
        """
        stored = state["best"]
        if stored is None or not self.best_path.is_file():
            return None
        kept = load_checkpoint(self.best_path)
        same_run = compared(kept["config"]) == compared(state["config"])
        return Best(**stored) if same_run and kept.get("epoch") == stored["epoch"] else None

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether `state` is of the same trained tensors."""
        own, stored = self.criterion.state_dict(), state["criterion"]
        same_shapes = {k: v.shape for k, v in own.items()} == {
            k: v.shape for k, v in stored.items()
        }
        return same_shapes and list(state["gradient_peaks"]) == self.tensors

    def start_from(self, state: dict[str, Any]) -> None:
        """Begin a new stage: weights of the earlier one, all else fresh."""
        self.detector.load_state_dict(weights_of(state))
        if self.ema is not None:
            self.ema.set(self.detector)
        shared = {k: v for k, v in state["criterion"].items() if k.startswith("box_loss.")}
        self.criterion.load_state_dict({**self.criterion.state_dict(), **shared})


def build_run(config: TrainConfig, image_set: ImageSet, resume: Path | None) -> Run:
    """Build all parts, then load the checkpoint that is to be gone on from, if any.

    Args:
        config: of this run; `config.resume` may name a checkpoint of this or an earlier stage.
        image_set: training images.
        resume: a checkpoint of this very run; goes before `config.resume`.

    Raises:
        CheckpointError: the checkpoint is missing, unreadable or does not fit.
    """
    path = resume or config.resume
    inputs = inputs_of(config, image_set)
    if path is None:
        run = _fresh_run(config, image_set)
        return replace(run, inputs=inputs, trained_on=tuple(sorted(image_set.names)))
    state = load_checkpoint(path)
    check_architecture(state, config, path)
    # nothing is fetched that the checkpoint replaces anyway
    own = config.model_copy(update={"support_pretrained": False, "yolo_weights": None})
    run = replace(_fresh_run(own, image_set), config=config, inputs=inputs)
    run.trained_on = check_classes(state, config, image_set, path)
    run.changed = list(state.get("changed", ()))
    if continues(state, config):
        resume_stage(run, state, path)
        log.info("resumed stage %d at step %d from %s", config.stage, run.step, path)
    else:
        run.start_from(state)
        log.info("stage %d starts at epoch 0 with the weights of %s", config.stage, path)
    return run


def resume_stage(run: Run, state: dict[str, Any], path: Path) -> None:
    """Go on where `state` was saved, and record what has changed since, where the config allows it.

    Raises:
        CheckpointError: something has changed that must not.
    """
    changes = find_changes(state, run.config, run.inputs)
    check_changes(changes, run.config, path)
    if not run.fits(state):
        raise CheckpointError(
            f"{path}: resume: trains other tensors than this run, which no stage can resume with (changed: "
            f"{', '.join(changes) or 'nothing'}); start the stage anew from a checkpoint of an earlier one"
        )
    run.load_state(state)
    if changes:  # the norm that was measured may be that of other losses or data
        run.stability.reference = run.config.explosion_reference
    for setting, (then, now) in changes.items():
        log.warning("resumed with a change: %s %s -> %s", setting, shortened(then), shortened(now))
        where = {"stage": run.config.stage, "step": run.step}
        run.changed.append({**where, "setting": setting, "from": then, "to": now})


def inputs_of(config: TrainConfig, image_set: ImageSet) -> dict[str, str]:
    """Name -> value of all that the steps and figures of a run depend on beside the values of its settings."""
    return {
        "kind of device": pick_device(config.device).partition(":")[0],
        "training data": image_set.digest,
        "base data": load_image_set(config, "base").digest,
        "novel data": load_image_set(config, config.novel_split).digest,
    }


def check_classes(
    state: dict[str, Any], config: TrainConfig, image_set: ImageSet, path: Path
) -> tuple[str, ...]:
    """Refuse to call a class novel that the weights were trained on.

    Returns:
        all classes that the weights will have been trained on.

    Raises:
        CheckpointError: names such classes; of another dataset they are a warning, since a name may mean
            something else there.
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


def _fresh_run(config: TrainConfig, image_set: ImageSet) -> Run:
    device = pick_device(config.device)
    if config.mixed_precision != "off" and device == "cpu":
        log.info(
            "mixed_precision %s is for GPUs: on the CPU all is float32", config.mixed_precision
        )
    detector = _build_detector(config, device)
    criterion = Criterion(config, config.stage, config.embed_dim, image_set.n_classes).to(device)
    parameters = detector.parameters_by_module()
    # the tables of stage 1 belong to no module; they learn at the head's rate
    tables = list(criterion.parameters())
    parameters["detection_head"] = parameters["detection_head"] + tables
    names = {p: n for part in (detector, criterion) for n, p in part.named_parameters()}
    trained = [p for tensors in parameters.values() for p in tensors]
    final = {*detector.detection_head.final_parameters(), *tables}
    optimizer = build_optimizer(parameters, config)
    frozen = "support_encoder" in detector.frozen
    return Run(
        config=config,
        device=device,
        batches=Batches(build_source(config, image_set), device),
        detector=detector,
        criterion=criterion,
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, config, config.total_steps),
        scaler=torch.amp.GradScaler(device, enabled=autocast_type(config, device) == torch.float16),
        gradients=GradientMonitor(parameters),
        tensors=[names[p] for p in trained],
        clipped_units=[p for p in trained if p not in final],
        updates=UpdateRatio(parameters),
        stability=StabilityMonitor(config, MODULES, None),
        frozen_features=SupportFeatures(detector, image_set, device) if frozen else None,
        ema=build_ema(detector, config),
    )


def _build_detector(config: TrainConfig, device: str) -> Detector:
    """The detector on its device, in the memory order that suits it, with its frozen modules."""
    detector = build_detector(config, config, config.seed).to(device)
    if device.startswith("cuda"):
        detector = detector.to(memory_format=torch.channels_last)  # on a CPU it gains nothing
    for name, multiplier in config.lr_mults.items():
        if multiplier == 0:
            detector.freeze(name)
    if config.stage == 1:
        detector.leave_out_prototypes()
    if config.compile:
        detector.compile_modules()
    return detector


def build_ema(detector: Detector, config: RunConfig) -> ModelEmaV3 | None:
    """The moving average of all weights and statistics, its decay rising over the first steps."""
    if config.ema_decay is None:
        return None
    return ModelEmaV3(detector, decay=config.ema_decay, use_warmup=True)


def build_source(config: TrainConfig, image_set: ImageSet) -> EpisodeSource | BaseSource:
    """Plain batches for stage 1, episodes for the others."""
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


def weights_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """The detector's weights in a checkpoint, in single precision: the moving average, where there is one."""
    return as_float(state.get("ema") or state["detector"])


def as_float(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half-precision tensors of a shipped checkpoint in single precision."""
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
