"""`TrainConfig`: every setting of the trainer.

The field names are the command-line flags, the keys of a YAML file, the parameters of a search space and the names
that a tracker shows. Importing this package loads pydantic and nothing heavier, so that a search space can be checked
without loading torch.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from pydantic import model_validator

from fsdet.config.groups import (
    GRADIENT_SCALES,
    MODULES,
    MULTIPLIERS,
    Band,
    DataConfig,
    GradientConfig,
    Group,
    HealthConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
)

__all__ = [
    "GRADIENT_SCALES",
    "MODULES",
    "MULTIPLIERS",
    "Band",
    "DataConfig",
    "GradientConfig",
    "Group",
    "HealthConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "TrainConfig",
]


class TrainConfig(
    DataConfig, ModelConfig, LossConfig, OptimConfig, GradientConfig, HealthConfig, RunConfig
):
    """Everything a training run depends on."""

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.dataset == "openmoji" and self.image_size > 512:
            raise ValueError(
                f"image_size must be at most 512 for the embedded data, but got {self.image_size}"
            )
        if self.n_shot > self.k_shot:
            raise ValueError(
                f"n_shot must be at most k_shot, the number of supports per class, but got n_shot {self.n_shot} "
                f"and k_shot {self.k_shot}"
            )
        self._check_early_evaluations()
        if self.explosion_patience > self.explosion_window:
            raise ValueError(
                f"explosion_patience must be at most explosion_window, the steps over which it is counted, but got "
                f"{self.explosion_patience} and {self.explosion_window}"
            )
        if self.shots_dir is not None and self.dataset != "coco":
            raise ValueError(f"shots_dir needs dataset coco, but got {self.dataset}")
        for name, (low, high) in self.bands.items():
            if not low < high:
                raise ValueError(f"{name} must be two increasing numbers, but got {low} and {high}")
        if self.cuda_graph == "on" and (reason := self.graph_obstacle(self.device)):
            raise ValueError(f"cuda_graph on is impossible with {reason}; set it to auto or off")
        if self.gradient_clip_mode == "update" and self.optimizer == "sgd":
            raise ValueError(
                "gradient_clip_mode update needs optimizer adamw, since sgd has no second moment, but got sgd; "
                "choose another mode"
            )
        if not any(self.lr_mults.values()):
            raise ValueError("at least one of the four *_lr_mult must be above 0")
        return self

    def _check_early_evaluations(self) -> None:
        epochs = self.early_eval_epochs
        if any(a >= b for a, b in pairwise((0, *epochs))):
            raise ValueError(
                f"early_eval_epochs must be at least 1 and increasing, but got {', '.join(map(str, epochs))}"
            )
        if epochs and self.early_eval_episodes > self.eval_episodes:
            raise ValueError(
                f"early_eval_episodes must be at most eval_episodes, but got {self.early_eval_episodes} and "
                f"{self.eval_episodes}"
            )

    def graph_obstacle(self, device: str) -> str | None:
        """The setting with which the steps on `device` cannot be CUDA graphs; None if there is none."""
        if device == "cpu":
            return "device cpu"
        if self.mixed_precision == "fp16":
            return "mixed_precision fp16, where the host decides whether a step counts"
        if self.compile:
            return "compile, which may compile again at any step"
        return "debug, which checks every operator" if self.debug else None

    @property
    def reported_split(self) -> Literal["val", "test"]:
        """Novel classes of the last evaluation."""
        return self.final_split or self.novel_split

    @property
    def bands(self) -> dict[str, Band]:
        """Name of each health setting -> its band."""
        return {name: getattr(self, name) for name in HealthConfig.model_fields}

    @property
    def train_split(self) -> Literal["train", "shots"]:
        """Split that a run of this stage trains on."""
        return "shots" if self.stage == 3 else "train"

    @property
    def batches_per_epoch(self) -> int:
        """Forward passes per epoch."""
        return math.ceil(self.n_episodes / (self.batch_size if self.stage > 1 else 1))

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch; a last incomplete accumulation still steps."""
        return math.ceil(self.batches_per_epoch / self.gradient_accumulation)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def steps_until(self, epoch: int | None) -> int:
        """Optimiser steps up to the end of `epoch`; of the whole run if that is None or not before its end."""
        epochs = self.epochs if epoch is None else min(epoch, self.epochs)
        return epochs * self.steps_per_epoch
