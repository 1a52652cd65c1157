"""The few-shot detector and its trainer.

import fsdet
predictor = fsdet.load("checkpoints/stage2/stage2_epoch0100.pt")
found = predictor.detect("street.jpg", ["mug_1.jpg", "mug_2.jpg", "mug_3.jpg"])
for box, score in zip(found.boxes.tolist(), found.scores.tolist()):
    print(box, score)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fsdet.inference.predictor import Predictor

__all__ = ["load"]

# Ultralytics would install packages by itself, even while an image is opened
os.environ.setdefault("YOLO_AUTOINSTALL", "false")


def load(checkpoint: str | Path, device: str = "auto") -> Predictor:
    """A trained detector, ready to find the objects of support images.

    Args:
        checkpoint: file that `python -m fsdet.train` or `fsdet.export` wrote, folder of a run, or name of a sweep.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        FsdetError: the checkpoint or the device cannot be used.
    """
    from fsdet.inference.predictor import load_predictor

    return load_predictor(Path(checkpoint), device)
