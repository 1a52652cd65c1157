from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fsdet.config import TrainConfig
from fsdet.data import openmoji
from fsdet.data.image_set import ImageSet
from fsdet.report import Result
from fsdet.train import train

SMALL: dict[str, Any] = {
    "image_size": 64,
    "support_size": 32,
    "train_scenes": 32,
    "n_way": 2,
    "n_query": 1,
    "n_shot": 2,
    "n_episodes": 4,
    "batch_size": 2,
    "gradient_accumulation": 1,
    "epochs": 2,
    "eval_episodes": 2,
    "save_interval": 1,
    "threads": 1,
    "device": "cpu",
}
"""Settings with which a run takes seconds."""


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder of caches, and embedded data small enough to be composed in seconds."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("cache")
        patch.setenv("FSDET_CACHE", str(root))
        patch.setattr(openmoji, "EVAL_SCENES", 32)
        patch.setattr(openmoji, "SUPPORT_VARIANTS", 3)
        yield root


@pytest.fixture
def small_config(small_data: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Builds a config from `SMALL` and the given settings."""

    def build(**settings: Any) -> TrainConfig:
        return TrainConfig(**{**SMALL, "checkpoint_dir": tmp_path / "run", **settings})

    return build


@pytest.fixture(scope="session")
def train_set(small_data: Path) -> ImageSet:
    return openmoji.load_openmoji(TrainConfig(**SMALL), "train")


@pytest.fixture(scope="session")
def base_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run of stage 1."""
    folder = tmp_path_factory.mktemp("base") / "run"
    settings = {"stage": 1, "epochs": 1, "n_episodes": 6, "batch_size": 4, "lr": 1e-3}
    return train(TrainConfig(**{**SMALL, **settings, "checkpoint_dir": folder}))
