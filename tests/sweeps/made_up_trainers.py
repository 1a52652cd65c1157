"""Trainers that cost nothing: the trainer's entry point with made-up numbers, for real Ray trials.

The searched `lr` says what happens, so that a sweep's choices decide its trials' ends.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fsdet.config import TrainConfig
from fsdet.engine.report import Explosion, Phase, Report, Result

STEPS = 3
"""Steps of an epoch."""
SPIKE = 5e4
"""Gradient norm of an explosion; five times the limit."""


def report_of(
    config: TrainConfig, epoch: int, value: float | None, phase: Phase = "running"
) -> Report:
    """A report after `epoch` epochs, with three steps of history."""
    steps = np.arange(epoch * STEPS - STEPS + 1, epoch * STEPS + 1, dtype=np.float64)
    exploded = phase == "exploded"
    norms = np.full(STEPS, SPIKE if exploded else 8.0)
    if exploded:
        norms[-1] = math.inf
    metrics = {} if value is None else {"val/nAP50": value, "val/nAP50_se": 0.015}
    return Report(
        phase=phase,
        step=int(steps[-1]),
        epoch=epoch,
        metrics=metrics,
        history={
            "step": steps,
            "grad/norm": norms,
            "grad/clipped": np.ones(STEPS),
            "update_ratio/backbone": np.array([0.1] + [math.nan] * (STEPS - 1)),
        },
        save_checkpoint=lambda _: None,
        explosion=Explosion("norm_ceiling", int(steps[-1]), "scs_fusion", "norm above 1e4")
        if exploded
        else None,
        peak_norm=float(norms[np.isfinite(norms)].max()),
        violation=math.log10(norms[0] / config.explosion_norm),
    )


def run_files(config: TrainConfig) -> None:
    """The files that a run leaves."""
    config.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    (config.checkpoint_dir / "config.yaml").write_text(f"lr: {config.lr}\n", encoding="utf-8")
    (config.checkpoint_dir / "training_debug.log").write_text("Gradient norm\n", encoding="utf-8")


def made_up(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,
) -> Result:
    """A run whose every epoch is as good as `lr`, but for the special values below.

    3: explodes in its second epoch. 4: raises. 5: measures NaN. 6: the process dies.
    7: never reports. 8: explodes before its first evaluation. 9: reports once, then hangs.
    """
    assert on_report is not None
    run_files(config)
    lr = round(config.lr, 6)
    if lr == 4:
        raise RuntimeError("no such luck")
    if lr == 6:
        os._exit(1)
    if lr == 8:
        on_report(report_of(config, 1, None, "exploded"))
    if lr in (7, 8):
        return Result({}, 0, None, None, config.checkpoint_dir)
    value = math.nan if lr == 5 else lr
    for epoch in range(1, config.epochs + 1):
        if lr == 3 and epoch == 2:
            on_report(report_of(config, epoch, None, "exploded"))
            break
        if lr == 9 and epoch == 2:
            time.sleep(600)
        last = epoch == config.epochs
        on_report(report_of(config, epoch, value - 0.01 * epoch, "final" if last else "running"))
    return Result({"val/nAP50": value}, config.epochs * STEPS, None, None, config.checkpoint_dir)
