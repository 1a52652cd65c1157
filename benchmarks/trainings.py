"""The trainings that tests compare with thresholds: their settings, and the faults injected into them.

The tests and `benchmarks/spread.py` share them, so that a margin is measured on what a test runs. Those of the
explosion rules are in `benchmarks/stability.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

from fsdet.config import TrainConfig
from fsdet.data.episodes import EpisodeSource
from fsdet.data.sources import load_image_set
from fsdet.evaluation.metrics import evaluate
from fsdet.health.checklist import HealthReport, health_of_run
from fsdet.losses import criterion
from fsdet.losses.box import dfl_loss
from fsdet.models.head import boxes_to_ltrb
from fsdet.train import train
from fsdet.training.build import build_state

SHIPPED = Path(__file__).parents[1] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"
CEILING = 2.5
"""Nats per side at which some of the faulty trainings clamp DFL; uniform costs 2.77."""


def absolute(_: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
    """Corners in stride units where distances from the anchor point belong."""
    return boxes / strides


def clamp_each(logits: Tensor, targets: Tensor) -> Tensor:
    """DFL with a ceiling for every anchor point."""
    return dfl_loss(logits, targets).clamp(max=CEILING)


def clamp_mean(logits: Tensor, targets: Tensor) -> Tensor:
    """DFL with a ceiling for the mean over the anchor points."""
    return dfl_loss(logits, targets).mean().clamp(max=CEILING).expand(len(logits))


@dataclass(frozen=True)
class DflCase:
    """One way to train DFL."""

    name: str
    faulty: bool
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What differs from `STAGE_1`."""
    targets: Callable[[Tensor, Tensor, Tensor], Tensor] = boxes_to_ltrb
    loss: Callable[[Tensor, Tensor], Tensor] = dfl_loss


STAGE_1: dict[str, Any] = {
    "stage": 1, "image_size": 64, "support_size": 32, "train_scenes": 512,
    "n_way": 2, "n_query": 1, "n_shot": 2, "n_episodes": 200, "batch_size": 8, "gradient_accumulation": 1,
    "epochs": 1, "eval_episodes": 2, "eval_draws": 1, "lr": 2e-3, "dfl_weight": 1.5,
    "backbone_lr_mult": 1.0, "support_encoder_lr_mult": 1.0, "fusion_lr_mult": 1.0, "head_lr_mult": 1.0,
    "threads": 1, "device": "cpu",
}  # fmt: skip
"""Two hundred steps of stage 1 from random weights: enough to find objects."""
SHORT = {"n_episodes": 100, "batch_size": 1}
STAGE_2 = SHORT | {"stage": 2, "resume": SHIPPED, "dfl_weight": 0.5, "stop_on_explosion": False}
FROZEN = {"backbone_lr_mult": 0.0, "support_encoder_lr_mult": 0.0, "head_lr_mult": 0.0}

RIGHT = DflCase("right targets", False)
ABSOLUTE = DflCase("absolute targets", True, {}, absolute)
CLAMPED = DflCase("absolute, each clamped, batch 1", True, SHORT, absolute, clamp_each)
DFL_CASES = (
    RIGHT,
    DflCase("right, batch 1", False, SHORT),
    DflCase("right, batch 1, lr 1e-5", False, SHORT | {"lr": 1e-5}),
    DflCase("right, batch 1, lr 1e-8", False, SHORT | {"lr": 1e-8}),
    DflCase("right, batch 1, 500 steps, lr 1e-8", False, SHORT | {"lr": 1e-8, "n_episodes": 500}),
    DflCase("right, batch 8, lr 1e-8", False, {"lr": 1e-8, "n_episodes": 100}),
    DflCase("stage 2", False, STAGE_2),
    DflCase("stage 2, lr 1e-6", False, STAGE_2 | {"lr": 1e-6}),
    DflCase("stage 2, only the fusion learns", False, STAGE_2 | FROZEN),
    ABSOLUTE,
    CLAMPED,
    DflCase("absolute, each clamped, 300 steps", True, SHORT | {"n_episodes": 300}, absolute, clamp_each),
    DflCase("absolute, each clamped, batch 8", True, {}, absolute, clamp_each),
    DflCase("absolute, mean clamped, batch 1", True, SHORT, absolute, clamp_mean),
    DflCase("absolute, mean clamped, batch 8", True, {"n_episodes": 100}, absolute, clamp_mean),
    DflCase("absolute, batch 1", True, SHORT, absolute),
)  # fmt: skip
"""The corpus of the rule in `fsdet.health.dfl`."""


def train_dfl(case: DflCase, folder: Path, **settings: Any) -> HealthReport:
    """Train into `folder` to the end and judge the run by what it leaves there."""
    config = TrainConfig(**{**STAGE_1, **case.settings, **settings, "checkpoint_dir": folder})
    with (
        patch.object(criterion, "boxes_to_ltrb", case.targets),
        patch.object(criterion, "dfl_loss", case.loss),
    ):
        train(config)
    return health_of_run(folder)


OVERFIT: dict[str, Any] = STAGE_1 | {
    "stage": 2, "resume": SHIPPED, "train_scenes": 32, "support_size": 48, "n_query": 2, "n_episodes": 1,
    "batch_size": 1, "epochs": 2, "lr": 1e-3, "final_lr_fraction": 0.1, "dfl_weight": 0.5,
    "fusion_lr_mult": 2.0, "head_lr_mult": 2.0,
}  # fmt: skip


def overfit(seed: int = 0, steps: int = 250, **settings: Any) -> tuple[float, float]:
    """Train on one episode of four images; AP50 on it before and after."""
    config = TrainConfig(**{**OVERFIT, "seed": seed, **settings})
    train_set = load_image_set(config, "train")
    run = build_state(config, train_set, None)
    fixed = EpisodeSource(train_set, config, config.seed, augment=False)
    batch = fixed.batch(0, 1)
    assert len(batch.images) == 4
    before = evaluate(run.detector, fixed, range(1), config.device).ap50
    run.detector.train()
    for group in run.optimizer.param_groups:
        group["lr"] = config.lr
    for _ in range(steps):
        run.optimizer.zero_grad()
        run.criterion.episode(run.detector(batch.images, batch.supports), batch).total.backward()
        run.gradients.clip_(run.gradients.measure()[0], config.gradient_clip_norm)
        run.optimizer.step()
    return before, evaluate(run.detector, fixed, range(1), config.device).ap50


MAIN_JOB: dict[str, Any] = {
    "stage": 2, "resume": "fsdet/checkpoints/stage1_openmoji.pt", "train_scenes": 192,
    "n_way": 8, "n_query": 1, "batch_size": 1, "gradient_accumulation": 1, "n_episodes": 20, "epochs": 2,
    "lr": 0.003, "warmup_fraction": 0.1, "eval_episodes": 4, "threads": 1,
}  # fmt: skip
"""What the trials of `tests/sweeps/test_main_job.py` share."""
