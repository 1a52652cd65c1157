"""The failure that this project began with, mistake by mistake: docs/historical_failure.md.

A loss scaler works on a CPU too; what a GPU adds is that gradients are half precision, which hooks do here.
"""

import logging
from collections.abc import Callable

import pytest
import torch

from fsdet.config import TrainConfig
from fsdet.data.image_set import ImageSet
from fsdet.health.checklist import HealthReport, write_health
from fsdet.training.build import build_state
from fsdet.training.inputs import next_inputs
from fsdet.training.logs import debug_log, log_step
from fsdet.training.state import TrainState
from fsdet.training.step import accumulate
from fsdet.training.trainer import open_logs, training_step

SCALE = 2.0**16
"""Of a new loss scaler."""
WEIGHTS = ("bbox_weight", "cls_weight", "dfl_weight", "supcon_weight")

Build = Callable[..., TrainConfig]


class NewAtEachOverflow(torch.amp.GradScaler):
    """A loss scaler that is replaced by a new one whenever a step was not finite, so that its scale never falls."""

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        super().update(new_scale)
        if self.get_scale() < SCALE:
            super().update(SCALE)


def with_norm(build: Build, train_set: ImageSet, norm: float, **settings: object) -> TrainConfig:
    """Settings whose first gradient norm is `norm`: it grows with the weights of all terms together."""
    plain = build(gradient_clip_mode="none", **settings)
    first = training_step(build_state(plain, train_set, None))[0]["grad/norm"]
    factors = {name: getattr(plain, name) * norm / first for name in WEIGHTS}
    return plain.model_copy(update=factors)


def with_scaler(config: TrainConfig, train_set: ImageSet, scaler: torch.amp.GradScaler):
    """A run in half precision, as far as a CPU can: gradients of the scaled loss above 65504 become inf."""
    run = build_state(config, train_set, None)
    run.scaler = scaler
    for p in run.gradients.parameters:
        p.register_hook(lambda grad: grad.half().to(grad.dtype))
    return run


def train_on(run: TrainState, steps: int) -> tuple[list[dict[str, float]], HealthReport]:
    """Take some steps with the log and the report that a run has."""
    folder, rows = run.config.checkpoint_dir, []
    folder.mkdir(parents=True, exist_ok=True)
    with debug_log(folder):
        history, _ = open_logs(run, steps)
        for _ in range(steps):
            values, run.explosion = training_step(run)
            rows.append(values)
            history.append(values)
            log_step(values, logging.INFO)
        history.close()
    return rows, write_health(folder, run.config, run.gradient_peaks(), run.explosion)


def log_of(run: TrainState) -> list[str]:
    text = (run.config.checkpoint_dir / "training_debug.log").read_text()
    return [line for line in text.splitlines() if "Gradient norm" in line]


def test_a_sum_of_scaled_norms_reads_in_the_millions_where_the_norm_is_8(small_config, train_set):
    config = with_norm(small_config, train_set, 8.0)
    old = build_state(config, train_set, None)
    old.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    accumulate(old, next_inputs(old))  # and no unscale_ before the norms are read
    grads = [p.grad for p in old.gradients.parameters if p.grad is not None]
    assert 2e6 < sum(float(grad.norm()) for grad in grads) < 2e7
    run = build_state(config, train_set, None)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    rows, health = train_on(run, 4)
    assert rows[0]["grad/norm"] == pytest.approx(8.0, rel=1e-4)
    assert "Gradient norm 8" in log_of(run)[0]
    assert run.explosion is None
    assert max(row["grad/norm"] for row in rows) < 100
    assert health.check("gradient_norm").value < 100
    assert health.check("finite").status == "pass"


def test_a_scaler_that_backs_off_finds_its_scale_and_one_built_anew_never_does(
    small_config, train_set
):
    settings = {"mixed_precision": "fp16", "n_episodes": 24}
    config = with_norm(small_config, train_set, 300.0, **settings)
    good = with_scaler(config, train_set, torch.amp.GradScaler("cpu", init_scale=SCALE))
    rows, health = train_on(good, 16)
    overflows = [row["grad/norm"] == float("inf") for row in rows]
    assert overflows[:2] == [True, True]
    assert not any(overflows[-6:])
    assert good.scaler.get_scale() < SCALE
    assert good.explosion is None
    assert health.check("finite").status == "pass"
    assert "the loss scaler found its scale" in health.check("finite").message

    config = config.model_copy(update={"checkpoint_dir": config.checkpoint_dir / "broken"})
    broken = with_scaler(config, train_set, NewAtEachOverflow("cpu", init_scale=SCALE))
    before = {name: w.clone() for name, w in broken.detector.named_parameters()}
    rows, health = train_on(broken, 16)
    assert all(row["grad/norm"] == float("inf") for row in rows)
    assert all(torch.equal(w, before[n]) for n, w in broken.detector.named_parameters())
    assert all("Gradient norm inf" in line for line in log_of(broken))
    assert broken.explosion is None  # the rules wait for a scaler
    assert health.check("finite").status == "fail"
    assert health.verdict.startswith("not healthy after 16 steps. ")
    assert "16 gradient norms of 16 steps are inf or NaN" in health.verdict
