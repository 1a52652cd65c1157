"""What the first optimiser step of a process really used, read from the parts that took it, not from the config.

A setting can get lost between a sweep and the optimiser, and a run trains on without a word. So the rates stand here as
the optimiser has them, the loss weights as the criterion has them, the clipped norm as the gradients have it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from fsdet.config import MODULES
from fsdet.files import write_text_atomic
from fsdet.report import FIRST_STEP_FILE, FirstStep
from fsdet.training.state import TrainState


def record_first_step(state: TrainState, values: dict[str, float]) -> None:
    """Store in `state.first_step`, and in the run's folder, what this process's first step used.

    Args:
        state: right after the step: its gradients are the clipped ones, its weights the new ones.
        values: of `step_values`.
    """
    used = used_by(state)
    state.first_step = FirstStep(
        step=state.step,
        settings=state.config.model_dump(mode="json"),
        used=used,
        measured={"grad/norm": values["grad/norm"], "grad/norm_after": clipped_norm(state)},
        inputs=dict(state.inputs),
        digest=digest_of({**values, **used}, trained_tensors(state)),
    )
    write_first_step(state.config.checkpoint_dir, state.first_step)


def used_by(state: TrainState) -> dict[str, float]:
    """Full learning rate and weight decay of each trained module, weight of each loss term, seed of the batches."""
    used: dict[str, float] = {}
    for group in state.optimizer.param_groups:
        name = group["name"]
        used[f"lr/{name}"] = group["initial_lr"]
        if any(tensor.ndim > 1 for tensor in group["params"]):  # the others do not decay
            used[f"weight_decay/{name}"] = group["weight_decay"]
    frozen = {f"lr/{name}": 0.0 for name in MODULES if f"lr/{name}" not in used}
    weights = {f"weight/{term}": weight for term, weight in state.criterion.weights.items()}
    return {**used, **frozen, **weights, "seed": float(state.batches.source.seed)}


def clipped_norm(state: TrainState) -> float:
    """Global norm of the gradients that the optimiser got, measured again."""
    return float(state.gradients.total())


def trained_tensors(state: TrainState) -> Iterable[Tensor]:
    """The trained weights, in the order of the optimiser."""
    return (p.detach() for group in state.optimizer.param_groups for p in group["params"])


def digest_of(values: dict[str, float], tensors: Iterable[Tensor]) -> str:
    """SHA-256 of named values, to their last digit, and of tensors, bit for bit."""
    digest = hashlib.sha256(repr(sorted(values.items())).encode())
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_first_step(folder: Path, first: FirstStep) -> None:
    """Write the file of the run, atomically; a process that resumes it later keeps that of step 1."""
    path = folder / FIRST_STEP_FILE
    if first.step == 1 or not path.exists():
        write_text_atomic(path, json.dumps(asdict(first), indent=2) + "\n")
