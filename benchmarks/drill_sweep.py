"""The sweep that the drills break: the real command line over a trainer that only sleeps and saves.

`python -m drill_sweep FILE …` takes the arguments of `python -m sweeps.run`. The searched `lr` determines
what happens to a trial, so that a drill can choose the failure.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fsdet.config import TrainConfig
from fsdet.report import Best, Explosion, Phase, Report, Result
from sweeps.run import main

STEPS = 3
"""Steps of an epoch."""
EXPLODES = 5.0
"""Learning rate from which a trial explodes in its second epoch."""
EPOCH_SECONDS = float(os.environ.get("DRILL_EPOCH_SECONDS", "1"))
HOLD = os.environ.get("DRILL_HOLD")
"""While this file exists, no trial begins its second epoch."""
HELD = "held"
"""File in the folder of a trial that waits there; holds the number of its process."""

SWEEP = """
name: drill
space:
  lr: {low: 0.01, high: 10, log: true}
baselines:
  base: {lr: 0.5}
fixed:
  epochs: 5
  n_episodes: 3
trials: 12
sampler: {name: tpe, seed: 3, startup_trials: 4}
scheduler: {name: asha, grace: 1, reduction: 2}
resources: {cpus: 1, max_concurrent: 2}
"""


def value_at(lr: float, epoch: int) -> float:
    """Best at lr 1; rises with the epochs."""
    return math.exp(-abs(math.log(lr))) * (1 - 0.5**epoch)


def train(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,
    until: int | None = None,
) -> Result:
    """Epochs of `DRILL_EPOCH_SECONDS`, each saved before it is reported, as the real trainer does."""
    assert on_report is not None
    folder = config.checkpoint_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(f"lr: {config.lr}\n", encoding="utf-8")
    done = 0 if resume is None else load(resume)
    with (folder / "sessions.log").open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} goes on behind epoch {done}\n")
    last = min(until or config.epochs, config.epochs)
    for epoch in range(max(1, done), last + 1):
        if epoch > done:
            if epoch == 2:
                wait_while_held(folder)
            time.sleep(EPOCH_SECONDS)
            append_steps(folder, epoch)
            if config.lr >= EXPLODES and epoch == 2:
                on_report(report_of(config, epoch, "exploded"))
                return Result({}, epoch * STEPS, None, None, folder)
            save(config, epoch)
        append_evaluation(config, epoch)
        on_report(report_of(config, epoch, phase_of(config, epoch, last)))
    return Result({}, last * STEPS, None, None, folder)


def phase_of(config: TrainConfig, epoch: int, last: int) -> Phase:
    """Of the report behind `epoch`, when the run pauses or ends behind epoch `last`."""
    if epoch == config.epochs:
        return "final"
    return "paused" if epoch == last else "running"


def wait_while_held(folder: Path) -> None:
    """Wait while `HOLD` exists, and say so."""
    while HOLD is not None and Path(HOLD).exists():
        (folder / HELD).write_text(str(os.getpid()), encoding="ascii")
        time.sleep(0.1)


def save(config: TrainConfig, epoch: int) -> None:
    """A checkpoint; the two newest are kept."""
    from fsdet.checkpoint.content import save_checkpoint  # loads torch

    folder = config.checkpoint_dir
    state = checkpoint_content(config, epoch)
    save_checkpoint(folder / f"stage1_epoch{epoch:04d}.pt", state, config)
    for old in sorted(folder.glob("stage1_epoch*.pt"))[:-2]:
        old.unlink()


def checkpoint_content(config: TrainConfig, epoch: int) -> dict[str, Any]:
    """A complete checkpoint; workers that get this module by value do not find `made_up_checkpoint`."""
    import torch

    from fsdet.checkpoint.validation import ARCHITECTURE, expected_weights

    expected = expected_weights(*(getattr(config, key) for key in ARCHITECTURE))
    weights = {name: torch.zeros(own.shape, dtype=own.dtype) for name, own in expected.items()}
    state = {"stage": config.stage, "step": 0, "epoch": epoch}
    return {**state, "detector": weights, "criterion": {}, "trained_on": []}


def load(path: Path) -> int:
    """Epochs done."""
    from fsdet.checkpoint.content import load_checkpoint

    return int(load_checkpoint(path)["epoch"])


def append_steps(folder: Path, epoch: int) -> None:
    """`steps.jsonl`, without the steps that a killed worker had written and that are done again."""
    path = folder / "steps.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = lines[: (epoch - 1) * STEPS]
    lines += [json.dumps({"step": s, "grad/norm": 8.0}) for s in steps_of(epoch)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def append_evaluation(config: TrainConfig, epoch: int) -> None:
    """`evaluations.jsonl`, in the same way."""
    path = config.checkpoint_dir / "evaluations.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()[: epoch - 1] if path.exists() else []
    metrics = {f"{config.novel_split}/nAP50": value_at(config.lr, epoch)}
    lines.append(json.dumps({"step": epoch * STEPS, "epoch": epoch, **metrics}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def steps_of(epoch: int) -> list[int]:
    """Its steps, counted from 1."""
    return list(range((epoch - 1) * STEPS + 1, epoch * STEPS + 1))


def report_of(config: TrainConfig, epoch: int, phase: Phase) -> Report:
    """A report behind `epoch`."""
    exploded = phase == "exploded"
    metric = f"{config.reported_split if phase == 'final' else config.novel_split}/nAP50"
    steps = np.array(steps_of(epoch), np.float64)
    metrics = {metric: value_at(config.lr, epoch), f"{metric}_se": 0.01}  # the best so far
    best = Best(epoch, epoch * STEPS, metrics)
    return Report(
        phase=phase,
        step=epoch * STEPS,
        epoch=epoch,
        metrics={} if exploded else metrics,
        best=None if exploded else best,
        final=metrics if phase == "final" else {},
        history={"step": steps, "grad/norm": np.full(STEPS, 8.0)},
        explosion=Explosion("norm_ceiling", epoch * STEPS, "scs_fusion", "x") if exploded else None,
        peak_norm=8.0,
        violation=0.5 if exploded else -3.0,
    )


if __name__ == "__main__":
    sys.exit(main(train=train))
