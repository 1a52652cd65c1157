"""Complete checkpoints that nothing has trained: what made-up trainers and tests save."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fsdet.checkpoint.validation import ARCHITECTURE, expected_weights
from fsdet.config import TrainConfig


def made_up_content(config: TrainConfig, **values: Any) -> dict[str, Any]:
    """What `save_checkpoint` needs beside `config`: weights of zeros, and `values`."""
    return {
        "stage": config.stage,
        "step": 0,
        "detector": zeros(*(getattr(config, key) for key in ARCHITECTURE)),
        "criterion": {},
        "trained_on": [],
        **values,
    }


@lru_cache(maxsize=4)
def zeros(*architecture: Any) -> dict[str, Tensor]:
    """Weights of zeros in half precision."""
    return {
        name: torch.zeros(own.shape, dtype=torch.half if own.is_floating_point() else own.dtype)
        for name, own in expected_weights(*architecture).items()
    }
