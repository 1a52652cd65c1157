"""The bug that the health report was made for: DFL taught absolute image coordinates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fsdet.config import TrainConfig
from fsdet.engine.health import HealthReport, health_of_run
from fsdet.losses import criterion
from fsdet.losses.dfl import boxes_to_ltrb, dfl_loss
from fsdet.train import train

BASE_TRAINING: dict[str, Any] = {
    "stage": 1,
    "seed": 1,
    "train_scenes": 512,
    "n_episodes": 200,
    "batch_size": 8,
    "epochs": 1,
    "eval_draws": 1,
    "lr": 2e-3,
    "dfl_weight": 1.5,
    "backbone_lr_mult": 1.0,
    "support_encoder_lr_mult": 1.0,
    "fusion_lr_mult": 1.0,
    "head_lr_mult": 1.0,
}
"""Two hundred steps of stage 1 from random weights: enough to find objects."""


def absolute(points: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
    """Corners in stride units where distances from the anchor point belong."""
    return boxes / strides


@pytest.fixture
def trained(small_config: Callable[..., TrainConfig], tmp_path: Path):
    """Trains with the targets and the DFL given, and judges the run by its folder."""

    def run(
        name: str, targets: Callable[..., Tensor], loss: Callable[..., Tensor], **settings: Any
    ):
        config = small_config(**BASE_TRAINING | settings, checkpoint_dir=tmp_path / name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(criterion, "boxes_to_ltrb", targets)
            patch.setattr(criterion, "dfl_loss", loss)
            result = train(config)
        assert result.explosion is None
        return health_of_run(config.checkpoint_dir)

    return run


def no_norm_rule_sees(report: HealthReport) -> bool:
    names = ("explosion", "finite", "gradient_norm", "dead_tensors", "clipping", "positives")
    return not any(report.check(name).status == "fail" for name in names)


@pytest.mark.slow
def test_absolute_targets_fail_the_report_and_right_ones_pass_it(trained):
    right = trained("right", boxes_to_ltrb, dfl_loss)
    wrong = trained("wrong", absolute, dfl_loss)
    assert right.check("dfl_falls").status == "pass"
    assert not right.failed
    assert no_norm_rule_sees(wrong)
    assert wrong.check("dfl_falls").status == "fail"
    assert "targets are not distances from the anchor point" in wrong.verdict
    assert wrong.check("dfl").value > 2 * right.check("dfl").value
    assert wrong.check("ap").value < right.check("ap").value - 0.05


@pytest.mark.slow
def test_absolute_targets_behind_a_clamp_fail_the_report(trained):
    def clamped(logits: Tensor, targets: Tensor) -> Tensor:
        return dfl_loss(logits, targets).clamp(max=2.5)

    report = trained("clamped", absolute, clamped, n_episodes=100, batch_size=1)
    assert no_norm_rule_sees(report)
    assert report.check("dfl_falls").status == "fail"
    assert "does not move" in report.verdict
