"""The few-shot detector: backbone, support encoder, fusion and head put together."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fsdet.config import MODULES, DataConfig, ModelConfig
from fsdet.models.backbone import CHANNELS, STRIDES, Backbone, load_yolo_weights
from fsdet.models.fusion import SCSFusion
from fsdet.models.head import DetectionHead, HeadOutput
from fsdet.models.support_encoder import build_support_encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodeOutput:
    """Predictions of an episodic forward pass."""

    head: HeadOutput
    logits: Tensor
    """(B, A, n_way) class logits."""
    supports: Tensor
    """(E, n_way, n_shot, D) embeddings of the support crops, as the head compares them."""


class Detector(nn.Module):
    """Finds the objects that the supports show.

    Args:
        config: sizes and the choice of the support encoder.
        support_size: side of a support crop in pixels.
    """

    def __init__(self, config: ModelConfig, support_size: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.support_encoder = build_support_encoder(config, support_size)
        self.scs_fusion = SCSFusion(CHANNELS, config.embed_dim)
        self.detection_head = DetectionHead(config.embed_dim, config.reg_max, STRIDES)

    def forward(self, images: Tensor, supports: Tensor) -> EpisodeOutput:
        """Search E episodes.

        Args:
            images: (B, 3, S, S) uint8, B = E * images per episode, neighbours belonging together.
            supports: (E, n_way, n_shot, 3, s, s) uint8.
        """
        shots = self.embed_supports(supports)
        prototypes = shots.mean(dim=2).repeat_interleave(len(images) // len(shots), dim=0)
        head = self._detect(images, prototypes)
        logits = self.detection_head.class_logits(head, prototypes)
        return EpisodeOutput(head, logits, self.detection_head.prototype_out(shots))

    def forward_base(self, images: Tensor) -> HeadOutput:
        """Objects without classes, no supports (stage 1). Images as in `forward`."""
        return self._detect(images, None)

    def embed_supports(self, supports: Tensor) -> Tensor:
        """(E, n_way, n_shot, 3, s, s) uint8 -> (E, n_way, n_shot, D)."""
        flat = self.support_encoder(supports.flatten(0, 2).float() / 255)
        embeddings: Tensor = flat.view(*supports.shape[:3], -1)
        return embeddings

    def _detect(self, images: Tensor, prototypes: Tensor | None) -> HeadOutput:
        features = self.backbone(images.float() / 255)
        output: HeadOutput = self.detection_head(self.scs_fusion(features, prototypes))
        return output

    def parameters_by_module(self) -> dict[str, list[nn.Parameter]]:
        """Module name -> its trainable parameters, in the order of `MODULES`."""
        return {
            name: [p for p in getattr(self, name).parameters() if p.requires_grad]
            for name in MODULES
        }


def build_detector(config: ModelConfig, data: DataConfig, seed: int) -> Detector:
    """A detector with weights drawn from `seed`, its backbone from `yolo_weights` if that is given.

    Raises:
        CheckpointError: `yolo_weights` cannot be used.
        ConfigError: the support encoder cannot be built.
    """
    torch.manual_seed(seed)
    detector = Detector(config, data.support_size)
    if config.yolo_weights is not None:
        load_yolo_weights(detector.backbone, config.yolo_weights)
    return detector
