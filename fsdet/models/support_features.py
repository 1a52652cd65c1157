"""Cached features of support crops, for training with a frozen encoder and for evaluation."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsdet.data.image_set import ImageSet
from fsdet.models.detector import Detector


class SupportFeatures:
    """The trunk's features of an image set's crops, each computed when it is first needed.

    The crops of a class are encoded together, so that the results do not depend on the order of
    requests. Valid as long as the trunk's weights do not change.

    Args:
        detector: its trunk is used in evaluation mode and gets no gradient; its projection does.
        image_set: with V crops of every class.
        device: of the detector.
    """

    def __init__(self, detector: Detector, image_set: ImageSet, device: str) -> None:
        self._detector, self._device = detector, device
        self._crops = image_set.supports
        self._encoded = np.zeros(len(self._crops), np.bool_)
        self._table: Tensor | None = None

    def embed(
        self, ids: Int[Tensor, "episodes n_way n_shot"]
    ) -> Float[Tensor, "episodes n_way n_shot dim"]:
        """Embeddings on the device of the crops with these ids, which are on the host."""
        embeddings: Tensor = self._detector.support_encoder.project(self.look_up(ids))
        return embeddings

    def look_up(
        self, ids: Int[Tensor, "episodes n_way n_shot"]
    ) -> Float[Tensor, "episodes n_way n_shot features"]:
        """The trunk's features of these crops."""
        classes = np.unique(ids.numpy() // self._crops.shape[1])
        for label in classes[~self._encoded[classes]].tolist():
            self._store(label, self._encode(label))
        assert self._table is not None
        return self._table[ids.to(self._device, non_blocking=True)]

    def _store(self, label: int, features: Float[Tensor, "variants dim"]) -> None:
        variants = len(features)
        if self._table is None:
            self._table = features.new_zeros(len(self._crops) * variants, features.shape[1])
        self._table[label * variants : (label + 1) * variants] = features
        self._encoded[label] = True

    @torch.no_grad()
    def _encode(self, label: int) -> Float[Tensor, "variants dim"]:
        crops = torch.from_numpy(self._crops[label].copy()).permute(0, 3, 1, 2).to(self._device)
        encoder = self._detector.support_encoder
        was_training = encoder.trunk.training
        encoder.trunk.eval()
        features: Tensor = encoder.features(crops.float() / 255)
        encoder.trunk.train(was_training)
        return features
