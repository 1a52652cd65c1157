from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsdet.checkpoint.content import load_detector
from fsdet.config import TrainConfig
from fsdet.data.image_set import ImageSet
from fsdet.data.openmoji import load_openmoji
from fsdet.inference.predictor import Predictor

STAGE_1 = Path(__file__).parents[3] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"


@pytest.fixture(scope="session")
def scenes(small_data: Path) -> ImageSet:
    """Embedded validation scenes of 128 px."""
    return load_openmoji(TrainConfig(), "val")


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """With the shipped weights: its classes mean little, but it finds objects."""
    return Predictor(*load_detector(STAGE_1, "cpu"), "cpu")


@pytest.fixture
def pictures(scenes: ImageSet, tmp_path: Path) -> Path:
    """A folder with three scenes, and three supports of each of two classes in folders beside it."""
    for number in range(3):
        save(scenes.image(number), tmp_path / "scenes" / f"scene_{number}.png")
    for label, name in enumerate(("cup", "hat")):
        for variant in range(3):
            file = tmp_path / "supports" / name / f"{variant}.png"
            save(scenes.supports[label, variant], file)
    return tmp_path


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)
