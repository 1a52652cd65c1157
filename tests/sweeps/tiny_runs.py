"""The smallest real training: one step, 64 px, on the embedded data; about a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fsdet.config import TrainConfig
from fsdet.report import FirstStep, Report
from fsdet.train import train

TINY: dict[str, Any] = {
    "stage": 2,
    "device": "cpu",
    "threads": 1,
    "embed_dim": 16,
    "lr": 1e-3,
    "epochs": 1,
    "n_episodes": 1,
    "batch_size": 1,
    "gradient_accumulation": 1,
    "n_query": 1,
    "n_shot": 2,
    "image_size": 64,
    "support_size": 32,
    "train_scenes": 48,
    "eval_episodes": 1,
    "eval_draws": 1,
    "early_eval_episodes": 1,
    "share_interval": None,
}


def first_step_of(folder: Path, **settings: Any) -> tuple[TrainConfig, FirstStep]:
    """Train with `settings` into `folder`; the config, and what the first step used."""
    config = TrainConfig(**{**TINY, "checkpoint_dir": folder, **settings})
    reports: list[Report] = []
    train(config, reports.append)
    first = reports[-1].first_step
    assert first is not None
    return config, first
