"""Trainers that cost nothing: the trainer's entry point with made-up numbers, for real Ray trials.

The searched `lr` says what happens, so that a sweep's choices decide its trials' ends.
"""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fsdet.config import TrainConfig
from fsdet.report import BEST_EPOCH, Best, Explosion, Phase, Report, Result

STEPS = 3
"""Steps of an epoch."""
CEILING = 1e4
"""Limit of the norm."""
RELEASED = "released"
"""File in the folder of a run that hangs, by which it goes on."""
SPIKE = 5e4
"""Gradient norm of an explosion; five times the limit."""


def report_of(
    config: TrainConfig,
    epoch: int,
    value: float | None,
    phase: Phase = "running",
    best: Best | None = None,
) -> Report:
    """A report after `epoch` epochs, with three steps of history; its own evaluation is the best, if none is given.

    The last evaluation measures what the best one did.
    """
    steps = np.arange(epoch * STEPS - STEPS + 1, epoch * STEPS + 1, dtype=np.float64)
    exploded = phase == "exploded"
    norms = np.full(STEPS, SPIKE if exploded else 8.0)
    if exploded:
        norms[-1] = math.inf
    metrics = {} if value is None else {"val/nAP50": value, "val/nAP50_se": 0.015}
    if best is None and metrics:
        best = Best(epoch, int(steps[-1]), metrics)
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
        best=best,
        final=best.metrics if best is not None and phase == "final" else {},
        explosion=Explosion("norm_ceiling", int(steps[-1]), "scs_fusion", "norm above 1e4")
        if exploded
        else None,
        peak_norm=float(norms[np.isfinite(norms)].max()),
        violation=math.log10(norms[0] / CEILING),
    )


def run_files(config: TrainConfig) -> None:
    """The files that a run leaves."""
    config.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    (config.checkpoint_dir / "config.yaml").write_text(f"lr: {config.lr}\n", encoding="utf-8")
    (config.checkpoint_dir / "pid").write_text(str(os.getpid()), encoding="ascii")
    (config.checkpoint_dir / "training_debug.log").write_text("Gradient norm\n", encoding="utf-8")


def append_report(config: TrainConfig, report: Report) -> None:
    """The lines of `steps.jsonl` and `evaluations.jsonl` that a run writes before it reports."""
    names = ("step", "grad/norm")
    with (config.checkpoint_dir / "steps.jsonl").open("a", encoding="utf-8") as file:
        for row in zip(*(report.history[name] for name in names), strict=True):
            file.write(json.dumps({k: str(v) for k, v in zip(names, row, strict=True)}) + "\n")
    if report.metrics:
        last = {BEST_EPOCH: report.best.epoch} if report.final and report.best else {}
        row = {
            "step": report.step,
            "epoch": report.epoch,
            **last,
            **(report.final or report.metrics),
        }
        with (config.checkpoint_dir / "evaluations.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def made_up(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,
    until: int | None = None,
) -> Result:
    """A run whose every epoch is as good as `lr`, but for the special values below.

    3: explodes in its second epoch. 4: raises. 5: measures NaN. 6: the process dies.
    7: never reports. 8: explodes before its first evaluation. 9: reports once, then hangs until it is released.
    A run that paused continues behind that epoch.
    2.5: measures infinity. 2.6: has not the memory. 2.7: finds the disk full.
    """
    assert on_report is not None
    run_files(config)
    lr = round(config.lr, 6)
    if lr == 4:
        raise RuntimeError("no such luck")
    if lr == 2.6:
        raise MemoryError("a lot")
    if lr == 2.7:
        raise OSError(errno.ENOSPC, "No space left on device")
    if lr == 6:
        os._exit(1)
    if lr == 8:
        on_report(report_of(config, 1, None, "exploded"))
    if lr in (7, 8):
        return Result({}, 0, None, None, config.checkpoint_dir)
    value = {5: math.nan, 2.5: math.inf}.get(lr, lr)
    paused = config.checkpoint_dir / "paused"
    done = int(paused.read_text(encoding="ascii")) if paused.exists() else 0
    best = report_of(config, 1, value - 0.01).best if done else None
    for epoch in range(done + 1, config.epochs + 1):
        if lr == 3 and epoch == 2:
            report = report_of(config, epoch, None, "exploded", best)
            append_report(config, report)
            on_report(report)
            break
        while lr == 9 and epoch == 2 and not (config.checkpoint_dir / RELEASED).exists():
            time.sleep(0.1)
        last = epoch == config.epochs
        phase: Phase = "final" if last else "paused" if epoch == until else "running"
        report = report_of(config, epoch, value - 0.01 * epoch, phase, best)
        best = best or report.best
        append_report(config, report)
        on_report(report)
        if phase == "paused":
            paused.write_text(str(epoch), encoding="ascii")
            break
    return Result({"val/nAP50": value}, config.epochs * STEPS, None, None, config.checkpoint_dir)


def hungry(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,
    until: int | None = None,
) -> Result:
    """A run that needs memory in its second epoch, and may have 400 MB for each CPU that Ray keeps for it.

    `lr` 2: 700 MB. 3: more than there is. 4: is killed when first there, and needs 700 MB then.
    5: is killed every time. 6: 700 MB, then is killed. Else none. `tries` has a line for each start:
    process, CPUs, epochs done.
    """
    import ray

    from fsdet.checkpoint.content import save_checkpoint

    assert on_report is not None
    run_files(config)
    cpus = int(ray.get_runtime_context().get_assigned_resources()["CPU"])
    lr, folder = round(config.lr, 6), config.checkpoint_dir
    done = 0 if resume is None else int(resume.stem[-4:])
    with (folder / "tries").open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()} {cpus} {done}\n")
    first = len((folder / "tries").read_text().splitlines()) == 1
    for epoch in range(done + 1, config.epochs + 1):
        if epoch == 2:
            if lr == 5 or (lr == 4 and first) or (lr == 6 and not first):
                os.kill(os.getpid(), signal.SIGKILL)
            if needed := {2: 700, 3: 10**6, 4: 700, 6: 700}.get(lr):
                take(needed, 400 * cpus)
        last = epoch == config.epochs
        save_checkpoint(
            folder / f"stage2_epoch{epoch:04d}.pt", checkpoint_content(config, epoch), config
        )
        on_report(report_of(config, epoch, lr / 10, "final" if last else "running"))
    return Result({"val/nAP50": lr / 10}, config.epochs * STEPS, None, None, folder)


def checkpoint_content(config: TrainConfig, epoch: int) -> dict[str, Any]:
    """A complete checkpoint; a worker does not find `made_up_checkpoint`."""
    import torch

    from fsdet.checkpoint.validation import ARCHITECTURE, expected_weights

    expected = expected_weights(*(getattr(config, key) for key in ARCHITECTURE))
    weights = {name: torch.zeros(own.shape, dtype=own.dtype) for name, own in expected.items()}
    state = {"stage": config.stage, "step": 0, "epoch": epoch}
    return {**state, "detector": weights, "criterion": {}, "trained_on": []}


def take(megabytes: int, allowed: int) -> None:
    """Let torch allocate `megabytes` where this process may grow by `allowed`."""
    import torch

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + allowed * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        torch.empty(megabytes * 2**20, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def noisy(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,
    until: int | None = None,
) -> Result:
    """A run as good as `lr`, less 0.002 times `dfl_weight`, and by its seed a little better or worse.

    `lr` 0.3 explodes at seed 1001, `lr` 0.2 fails there. While a file `hold` lies in the sweep's
    folder, seed 1002 hangs.
    """
    assert on_report is not None
    run_files(config)
    (config.checkpoint_dir / "starts").open("a", encoding="ascii").write("x")
    sweep = next(p for p in config.checkpoint_dir.parents if (p / "tracking.json").exists())
    while config.seed == 1002 and (sweep / "hold").exists():
        time.sleep(0.1)
    if (round(config.lr, 6), config.seed) == (0.3, 1001):
        on_report(report_of(config, 1, None, "exploded"))
        return Result({}, 0, None, None, config.checkpoint_dir)
    if (round(config.lr, 6), config.seed) == (0.2, 1001):
        raise RuntimeError("no such luck")
    rng = np.random.default_rng(config.seed)
    shared = rng.normal(0, 0.02)  # what the runs at a seed have in common
    settings = [config.seed, round(config.lr * 1000), round(config.dfl_weight * 1000)]
    own = np.random.default_rng(settings).normal(0, 0.002)
    value = config.lr - 0.002 * config.dfl_weight + shared + own
    report = report_of(config, config.epochs, value, "final")
    metrics = {
        f"{config.reported_split}/nAP50": value,
        f"{config.reported_split}/swap_gap": value / 2,
    }
    on_report(replace(report, final=metrics))
    return Result(metrics, config.epochs * STEPS, None, None, config.checkpoint_dir)
