"""`Predictor`: finds the objects that support images show, in images of any size."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fsdet.checkpoint.content import load_checkpoint, restore_detector, score_threshold_of
from fsdet.checkpoint.lookup import find_checkpoint
from fsdet.config import TrainConfig
from fsdet.data.image_set import Array
from fsdet.data.images import letterbox, letterbox_boxes
from fsdet.device import usable_device
from fsdet.errors import DataError
from fsdet.inference.inputs import DEFAULT_CLASS, ImageLike, read_image
from fsdet.models.detector import Detector
from fsdet.models.postprocess import SCORE_THRESHOLD, detect
from fsdet.structures import Detections

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedDetections(Detections):
    """Detections in one image, best first; boxes are xyxy in pixels of that image."""

    names: tuple[str, ...]
    """Names of the searched classes; `labels` are indices into it."""


@dataclass(frozen=True)
class EmbeddedSupports:
    """Embedded supports, with which many images can be searched."""

    prototypes: Float[Tensor, "1 n_way 1 dim"]
    """Mean over the supports of each class."""
    names: tuple[str, ...]
    """(n_way,) names of the classes."""


Supports: TypeAlias = Sequence[ImageLike] | Mapping[str, Sequence[ImageLike]] | EmbeddedSupports
"""Images of one class, or of several by name, or either of them embedded before."""


class Predictor:
    """Finds the objects of the supports in images.

    Args:
        detector: on `device`, in evaluation mode.
        config: of the training; has the sizes of images and supports.
        device: of the detector.
        score_threshold: that of the checkpoint; None if it carries none.
    """

    def __init__(
        self,
        detector: Detector,
        config: TrainConfig,
        device: str,
        score_threshold: float | None = None,
    ) -> None:
        self.detector, self.config, self.device = detector, config, device
        self.own_threshold = score_threshold
        """Score threshold that was best on validation; None if it is unknown."""

    @property
    def score_threshold(self) -> float:
        """Lowest score of a detection, if the caller names none."""
        return SCORE_THRESHOLD if self.own_threshold is None else self.own_threshold

    def detect(
        self, image: ImageLike, supports: Supports, score_threshold: float | None = None
    ) -> NamedDetections:
        """Search one image.

        Args:
            image: a file, a PIL image, or (H, W, 3) uint8 RGB.
            supports: images that the object fills, about three; several classes by name; or `EmbeddedSupports`.
            score_threshold: detections below it are left out; None for that of the predictor.

        Raises:
            DataError: an image cannot be read, or there are no supports.
        """
        lowest = self.score_threshold if score_threshold is None else score_threshold
        examples = supports if isinstance(supports, EmbeddedSupports) else self.embed(supports)
        pixels = read_image(image)
        height, width = pixels.shape[:2]
        square = self._squares([pixels], self.config.image_size)
        with torch.no_grad():
            found = detect(self.detector.search(self.detector.encode(square), examples.prototypes))
        boxes = from_letterbox(found[0].boxes, height, width, self.config.image_size)
        # a box may lie entirely in the grey padding
        shown = (found[0].scores >= lowest) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        return NamedDetections(
            boxes[shown], found[0].scores[shown], found[0].labels[shown], examples.names
        )

    def embed(
        self, supports: Sequence[ImageLike] | Mapping[str, Sequence[ImageLike]]
    ) -> EmbeddedSupports:
        """Embed supports once, to search many images for them.

        Raises:
            DataError: an image cannot be read, or a class has none.
        """
        classes = _by_class(supports)
        prototypes = []
        for images in classes.values():
            crops = self._squares([read_image(p) for p in images], self.config.support_size)
            with torch.no_grad():
                prototypes.append(self.detector.embed_crops(crops).mean(dim=0))
        return EmbeddedSupports(torch.stack(prototypes)[None, :, None], tuple(classes))

    def _squares(self, images: list[Array], size: int) -> UInt8[Tensor, "images 3 side side"]:
        """The images on the device, letterboxed as in training."""
        squares = np.stack([letterbox(image, size) for image in images])
        return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous().to(self.device)


def load_predictor(checkpoint: Path, device: str) -> Predictor:
    """See `fsdet.load`."""
    path, device = find_checkpoint(checkpoint), usable_device(device)
    state = load_checkpoint(path, "checkpoint")
    detector, config = restore_detector(state, path, device)
    if config.stage == 1:
        log.warning(
            "%s: a checkpoint of stage 1 finds objects but has not learned to compare them with supports; "
            "use one of stage 2 or 3",
            path,
        )
    return Predictor(detector, config, device, score_threshold_of(state))


def _by_class(
    supports: Sequence[ImageLike] | Mapping[str, Sequence[ImageLike]],
) -> dict[str, list[ImageLike]]:
    """Name -> images, in the order given.

    Raises:
        DataError: not a list or a dict of lists, or an empty one.
    """
    classes = supports if isinstance(supports, Mapping) else {DEFAULT_CLASS: supports}
    for name, images in classes.items():
        if not isinstance(images, list | tuple) or not images:
            got = "none" if isinstance(images, list | tuple) else type(images).__name__
            raise DataError(f"supports: '{name}' needs a list of at least one image, but got {got}")
    if not classes:
        raise DataError("supports: at least one class is needed, but got none")
    return {name: list(images) for name, images in classes.items()}


def from_letterbox(
    boxes: Float[Tensor, "boxes 4"], height: int, width: int, size: int
) -> Float[Tensor, "boxes 4"]:
    """Boxes in the letterboxed square -> boxes in the image, cut off at its edges.

    Args:
        boxes: xyxy in pixels of the square.
        height: of the image, in pixels.
        width: of the image, in pixels.
        size: side of the square, in pixels.
    """
    whole = np.array([[0, 0, width, height]], np.float32)
    placed = torch.from_numpy(letterbox_boxes(whole, np.array([[width, height]]), size))[0]
    corner, sides = placed[:2].repeat(2), (placed[2:] - placed[:2]).repeat(2)
    inside = ((boxes - corner) / sides).clamp(0, 1)
    return inside * torch.tensor([width, height] * 2)
