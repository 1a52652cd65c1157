"""The interface between the trainer and its caller: what a run reports (`Report`) and returns (`Result`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

STEPS_FILE, EVALUATIONS_FILE = "steps.jsonl", "evaluations.jsonl"
"""Values of every step and of every evaluation, in the folder of a run."""
MAX_CHECKPOINTS = 2
"""Checkpoints of a run that are kept there; older ones are deleted."""
BEST_FILE = "best.pt"
"""Weights of the best epoch, in the folder of a run."""
FIRST_STEP_FILE = "first_step.json"
"""What the first optimiser step of a run used, in its folder."""
DETECTIONS_FILE = "detections.png"
"""Picture of what the weights of the best epoch find, in the folder of a complete run."""
SWEEPS_DIR = Path("mlruns") / "sweeps"
"""Folder of all sweeps, relative to the working directory; each has a folder of its name."""
BEST_TRIAL_FILE = "best.json"
"""File in the folder of a sweep that names the run folder of its best trial, relative to it: `run_dir`."""
BEST_EPOCH = "best_epoch"
"""Key in `evaluations.jsonl` that only the last evaluation has: the epoch of its weights."""
EARLY_EPISODES = "early_episodes"
"""Key in `evaluations.jsonl` that only early evaluations have: the number of their episodes."""

NO_SWAP_CONTROL = (
    "not available: with n_way 1 there is no other class whose supports could be swapped in"
)
"""What is said where the swap control would stand."""

Phase = Literal["running", "paused", "final", "exploded"]


@dataclass(frozen=True)
class Explosion:
    """Why a run counts as exploded (see the rules in `fsdet.health.stability`)."""

    reason: str
    """Name of the rule: non_finite, norm_ceiling, norm_ratio, loss_divergence, loss_collapse or silent_death."""
    step: int
    """Optimiser step, counted from 1, at which the rule fired."""
    module: str
    """Module whose gradient norm grew most against its own running median."""
    detail: str
    """The rule with its values, in words."""


@dataclass(frozen=True)
class Best:
    """The best evaluation of a run so far; its weights are in `best.pt`."""

    epoch: int
    """Epochs done at it."""
    step: int
    """Optimiser steps done at it."""
    metrics: dict[str, float]
    """All metrics of that evaluation."""
    full: bool = True
    """Whether it was over all `eval_episodes`; an early evaluation counts only until the first full one."""


@dataclass(frozen=True)
class FirstStep:
    """What the first optimiser step of a process used; see `fsdet.training.first_step`."""

    step: int
    """Its number in the run: 1, unless the process resumed it."""
    settings: dict[str, Any]
    """The config that the trainer had, as plain values."""
    used: dict[str, float]
    """`lr/<module>` and `weight_decay/<module>` of the optimiser (the rate at the top of the schedule; 0: frozen),
    `weight/<term>` of the criterion, `seed` of the batches."""
    measured: dict[str, float]
    """`grad/norm` before clipping; `grad/norm_after` of the gradients that the optimiser got, measured again."""
    inputs: dict[str, str]
    """What the steps depend on besides the settings: kind of device, content of the data."""
    digest: str
    """SHA-256 of all values of the step, of `used`, and of the trained weights after the step."""


@dataclass(frozen=True)
class Report:
    """State of a run at an evaluation, at a pause, at its end, or at an explosion."""

    phase: Phase
    step: int
    """Optimiser steps done."""
    epoch: int
    """Epochs done."""
    metrics: dict[str, float]
    """Evaluation metrics (`val/nAP50`, …); empty when the run exploded before this report's evaluation."""
    history: dict[str, np.ndarray]
    """Per-step values since the last report, one float64 array per metric, all as long as `history["step"]`.

    A value that is not finite stays as it was (inf or nan): do not pass it to a scheduler.
    """
    best: Best | None = None
    """The best evaluation so far; None before the first."""
    final: dict[str, float] = field(default_factory=dict)
    """Metrics of the last evaluation: the weights of the best epoch on other episodes. Of phase `final` only."""
    explosion: Explosion | None = None
    peak_norm: float = 0.0
    """Largest finite gradient norm of the run so far."""
    first_step: FirstStep | None = None
    """Of this process; None before it."""
    evaluation_seconds: float = 0.0
    """Wall time of this evaluation; 0 if it was computed before a resume."""
    violation: float = 0.0
    """Largest log10(gradient norm / explosion limit) of any step: above 0 only if one passed it; always finite."""


@dataclass(frozen=True)
class Result:
    """The outcome of a run that has finished, paused or exploded."""

    metrics: dict[str, float]
    """Metrics of the last evaluation, with the weights of the best epoch; empty if the run did not get to it."""
    steps: int
    """Optimiser steps taken. A GPU has taken one more when the verdict of an explosion arrives."""
    explosion: Explosion | None
    checkpoint: Path | None
    """Last checkpoint of the run, or the one it resumed from; None if it ended before any."""
    run_dir: Path
    """Folder with `config.yaml`, `training_debug.log`, `steps.jsonl` and the checkpoints."""
    best_epoch: int | None = None
    """Epoch of the best evaluation; None if there was none."""
    paused: bool = False
    """Whether the run paused before its last epoch; it resumes from `checkpoint`."""
