"""`TrainState`: everything that changes while a run trains, and how it is saved and loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fsdet.checkpoint.content import save_checkpoint, weights_of
from fsdet.checkpoint.validation import MOMENTS
from fsdet.config import TrainConfig
from fsdet.data.episodes import BatchLoader
from fsdet.health.spikes import SpikeScores
from fsdet.health.stability import StabilityMonitor
from fsdet.losses.criterion import Criterion
from fsdet.models.detector import Detector
from fsdet.models.support_features import SupportFeatures
from fsdet.report import BEST_FILE, Best, Explosion, FirstStep
from fsdet.training.clipping import Clipping
from fsdet.training.gradients import GradientMonitor, UpdateRatio
from fsdet.training.optim import build_scheduler


@dataclass
class TrainState:
    """Everything that changes while a run trains, between two optimiser steps."""

    config: TrainConfig
    device: str
    batches: BatchLoader
    detector: Detector
    criterion: Criterion
    optimizer: Optimizer
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    gradients: GradientMonitor
    tensors: list[str]
    """Names of the trainable tensors, in the order of `gradients.peaks`."""
    clipping: Clipping
    updates: UpdateRatio
    stability: StabilityMonitor
    spikes: SpikeScores
    frozen_features: SupportFeatures | None = None
    """Features of the training supports, if their encoder is frozen."""
    ema: ModelEmaV3 | None = None
    """Moving average of the weights."""
    step: int = 0
    """Optimiser steps done."""
    explosion: Explosion | None = None
    """The first explosion, if the run continues in spite of it."""
    first_step: FirstStep | None = None
    """What the first step of this process used; None before it."""
    best: Best | None = None
    """The best evaluation so far; its weights are in `best_path`."""
    trained_on: tuple[str, ...] = ()
    """Names of all classes that the weights were trained on, in this run and those it started from."""
    inputs: dict[str, str] = field(default_factory=dict)
    """What the steps depend on besides the settings, see `fsdet.training.resuming.inputs_of`."""
    changed: list[dict[str, Any]] = field(default_factory=list)
    """Every change with which a stage was resumed: `stage`, `step`, `setting`, `from` and `to`."""
    evaluation_seconds: float = 0.0
    """Wall time of the latest evaluation of this process."""
    checkpoints: list[Path] = field(default_factory=list)
    """Checkpoints of this run that still exist, oldest first."""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.config.steps_per_epoch

    def ends_epoch(self, interval: int = 1) -> bool:
        """Whether the last step ended an `interval`-th epoch."""
        ended = self.step > 0 and self.step % self.config.steps_per_epoch == 0
        return ended and self.epoch % interval == 0

    @property
    def best_epoch(self) -> int:
        """Epoch of the best evaluation; the current one before the first."""
        return self.epoch if self.best is None else self.best.epoch

    @property
    def best_path(self) -> Path:
        """File with the weights of the best epoch."""
        return self.config.checkpoint_dir / BEST_FILE

    @property
    def eval_detector(self) -> Detector:
        """The detector to evaluate: the moving average of the weights, if there is one."""
        return self.detector if self.ema is None else self.ema.module

    def gradient_peaks(self) -> dict[str, float]:
        """Trainable tensor -> largest gradient norm in this stage."""
        return dict(zip(self.tensors, self.gradients.peaks.tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write everything that `load_state_dict` needs, atomically."""
        save_checkpoint(path, self.state_dict(), self.config)

    def save_best(self) -> None:
        """Write the weights that were just evaluated to `best_path`, atomically; a stage can start from them."""
        weights = {
            "stage": self.config.stage,
            "step": self.step,
            "epoch": self.epoch,
            "detector": self.eval_detector.state_dict(),
            "criterion": self.criterion.state_dict(),
            "trained_on": list(self.trained_on),
            "changed": self.changed,
        }
        save_checkpoint(self.best_path, weights, self.config)

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
            "clipping": dict(self.clipping.state_dict()),
            "stability": self.stability.state_dict(),
            "spikes": self.spikes.state_dict(),
            "gradient_peaks": self.gradient_peaks(),
            "explosion": None if self.explosion is None else asdict(self.explosion),
            "best": None if self.best is None else asdict(self.best),
            "trained_on": list(self.trained_on),
            "inputs": self.inputs,
            "changed": self.changed,
            "rng": torch.get_rng_state(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore the state in `saved`; learning rates and weight decay are those of the config."""
        self.detector.load_state_dict(saved["detector"])
        self.criterion.load_state_dict(saved["criterion"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**saved["optimizer"], "param_groups": groups})
        if saved["scaler"]:  # empty without fp16
            self.scaler.load_state_dict(saved["scaler"])
        remembered = saved.get("clipping", {})
        if remembered.keys() == self.clipping.state_dict().keys():  # else that of another mode
            self.clipping.load_state_dict(remembered)
        self.stability.load_state_dict(saved["stability"])
        if "spikes" in saved:  # an earlier version did not count them
            self.spikes.load_state_dict(saved["spikes"])
        torch.set_rng_state(saved["rng"])
        peaks = [saved["gradient_peaks"][name] for name in self.tensors]
        self.gradients.peaks = torch.tensor(peaks, device=self.device)
        self.explosion = None if saved["explosion"] is None else Explosion(**saved["explosion"])
        self.best = None if saved["best"] is None else Best(**saved["best"])
        if self.ema is not None:
            self.ema.module.load_state_dict(saved.get("ema") or saved["detector"])
        self.step = saved["step"]
        self.scheduler = build_scheduler(
            self.optimizer, self.config, self.config.total_steps, last_epoch=self.step - 1
        )

    def has_same_tensors(self, saved: dict[str, Any]) -> bool:
        """Whether `saved` was written by a run that trains the same tensors with the same optimiser."""
        own, stored = self.criterion.state_dict(), saved["criterion"]
        same_shapes = {k: v.shape for k, v in own.items()} == {
            k: v.shape for k, v in stored.items()
        }
        return (
            same_shapes
            and list(saved["gradient_peaks"]) == self.tensors
            and self._has_same_moments(saved["optimizer"]["state"])
        )

    def _has_same_moments(self, stored: dict[int, dict[str, Tensor]]) -> bool:
        """Whether each moment in `stored` is one of this optimiser and has the shape of its parameter."""
        own = [p for group in self.optimizer.param_groups for p in group["params"]]
        names = MOMENTS[self.config.optimizer]
        return all(
            number < len(own)
            and moments.keys() == {*names}
            and moments[names[-1]].shape == own[number].shape
            for number, moments in stored.items()
        )

    def start_from(self, saved: dict[str, Any]) -> None:
        """Begin a new stage: the weights of the earlier one, everything else fresh."""
        self.detector.load_state_dict(weights_of(saved))
        if self.ema is not None:
            self.ema.set(self.detector)
        shared = {k: v for k, v in saved["criterion"].items() if k.startswith("box_loss.")}
        self.criterion.load_state_dict({**self.criterion.state_dict(), **shared})
