"""Embeddings of support crops, each encoded once: for a frozen encoder, and for an evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from fsdet.data.image_set import ImageSet
from fsdet.models.detector import Detector


class SupportFeatures:
    """The embedded crops of one image set, encoded when they are first asked for.

    The crops of a class are encoded together, so that their numbers do not depend on the order in
    which they are asked for. Valid as long as the encoder's weights do not change.

    Args:
        detector: its encoder is used in evaluation mode and gets no gradient.
        image_set: with V crops of every class.
        device: where the detector lives.
    """

    def __init__(self, detector: Detector, image_set: ImageSet, device: str) -> None:
        self._detector, self._device = detector, device
        self._crops = image_set.supports
        self._place = torch.full((len(self._crops),), -1)
        self._embedded: list[Tensor] = []

    @torch.no_grad()
    def look_up(self, ids: Tensor) -> Tensor:
        """(E, n_way, n_shot) crop numbers on the host -> (E, n_way, n_shot, D) on the device."""
        variants = self._crops.shape[1]
        classes = ids // variants
        for label in classes.unique().tolist():
            if self._place[label] < 0:
                self._place[label] = len(self._embedded)
                self._embedded.append(self._encode(label))
        rows = self._place[classes] * variants + ids % variants
        return torch.cat(self._embedded)[rows.to(self._device, non_blocking=True)]

    def _encode(self, label: int) -> Tensor:
        crops = torch.from_numpy(self._crops[label].copy()).permute(0, 3, 1, 2).to(self._device)
        encoder = self._detector.support_encoder
        was_training = encoder.training
        encoder.eval()
        embeddings = self._detector.embed_crops(crops)
        encoder.train(was_training)
        return embeddings
