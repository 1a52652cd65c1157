"""The few-shot detector: backbone, support encoder, fusion and head."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fsdet.config import MODULES, TrainConfig
from fsdet.models.backbone import CHANNELS, STRIDES, Backbone, load_yolo_weights
from fsdet.models.fusion import SCSFusion
from fsdet.models.head import DetectionHead, HeadOutput
from fsdet.models.support_encoder import build_support_encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedImages:
    """Features of images that do not depend on the supports."""

    taps: list[Float[Tensor, "images _ _ _"]]
    """P2 … P5 as the backbone passes them to the fusion, each with channels of its own."""
    pyramid: list[Float[Tensor, "images dim _ _"]]
    """The same scales with the same number of channels."""


@dataclass(frozen=True)
class EpisodeOutput:
    """Predictions of an episodic forward pass."""

    head: HeadOutput
    logits: Float[Tensor, "images anchors n_way"]
    """Class logits."""
    supports: Float[Tensor, "episodes n_way n_shot dim"]
    """Embeddings of the support crops, as the head compares them."""


class Detector(nn.Module):
    """Finds the objects that the supports show.

    Args:
        config: sizes, and the choice of the support encoder.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.support_encoder = build_support_encoder(config)
        self.scs_fusion = SCSFusion(CHANNELS, config.embed_dim)
        self.detection_head = DetectionHead(config.embed_dim, config.reg_max, STRIDES)
        self.frozen: tuple[str, ...] = ()

    def forward(
        self,
        images: UInt8[Tensor, "images 3 side side"],
        supports: UInt8[Tensor, "episodes n_way n_shot 3 crop_side crop_side"],
    ) -> EpisodeOutput:
        """Search the images of each episode, which are consecutive, with its supports."""
        return self.search(self.encode(images), self.embed_supports(supports))

    def encode(self, images: UInt8[Tensor, "images 3 side side"]) -> EncodedImages:
        """Encode images so that they can be searched with any supports."""
        # only the fusion reads these views, so that the gradient of a view is that scale's share
        taps = [x.view_as(x) for x in self.backbone(images.float() / 255)]
        return EncodedImages(taps, self.scs_fusion.top_down(taps))

    def search(
        self, images: EncodedImages, supports: Float[Tensor, "episodes n_way n_shot dim"]
    ) -> EpisodeOutput:
        """Search encoded images with embedded supports (of `embed_supports`)."""
        repeats = len(images.taps[0]) // len(supports)
        prototypes = supports.mean(dim=2).repeat_interleave(repeats, dim=0)
        head: HeadOutput = self.detection_head(self.scs_fusion(images.pyramid, prototypes))
        logits = self.detection_head.class_logits(head, prototypes)
        return EpisodeOutput(head, logits, self.detection_head.prototype_out(supports))

    def find_objects(self, images: EncodedImages) -> HeadOutput:
        """Class-agnostic predictions without supports (stage 1)."""
        output: HeadOutput = self.detection_head(images.pyramid)
        return output

    def embed_supports(
        self, supports: UInt8[Tensor, "episodes n_way n_shot 3 side side"]
    ) -> Float[Tensor, "episodes n_way n_shot dim"]:
        """Embed the supports of episodes."""
        return self.embed_crops(supports.flatten(0, 2)).view(*supports.shape[:3], -1)

    def embed_crops(self, crops: UInt8[Tensor, "crops 3 side side"]) -> Float[Tensor, "crops dim"]:
        """Embed support crops."""
        embeddings: Tensor = self.support_encoder(crops.float() / 255)
        return embeddings

    def freeze(self, module: str) -> None:
        """Freeze a module: no gradients, no updates of running statistics.

        Of the support encoder only the trunk is frozen; the projection after it may be new and learns at the head's
        rate.
        """
        self.frozen = (*self.frozen, module)
        self._freezable(module).requires_grad_(False)
        self.train(self.training)

    def _freezable(self, module: str) -> nn.Module:
        encoder = module == "support_encoder"
        part: nn.Module = self.support_encoder.trunk if encoder else getattr(self, module)
        return part

    def freeze_prototype_parts(self) -> None:
        """Freeze, for stage 1, the parts that attend to prototypes or compare with them."""
        fusion, head = self.scs_fusion, self.detection_head
        for part in (fusion.blocks, fusion.token_norm, head.prototype_out):
            part.requires_grad_(False)
        for parameter in (fusion.none_token, head.log_scale, head.bias):
            parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Detector:
        super().train(mode)
        for module in self.frozen:
            self._freezable(module).eval()
        return self

    def compile_modules(self) -> None:
        """Compile the modules separately, so that gradients between them can still be measured."""
        torch._functorch.config.donated_buffer = (
            False  # gradient_shares runs backward through a graph repeatedly
        )
        for part in (self.backbone, self.detection_head, *self.scs_fusion.blocks):
            part.compile()

    def parameters_by_module(self) -> dict[str, list[nn.Parameter]]:
        """Module name -> the trainable parameters that learn at its rate, in the order of `MODULES`."""
        modules = {
            name: [p for p in getattr(self, name).parameters() if p.requires_grad]
            for name in MODULES
        }
        if "support_encoder" in self.frozen:
            modules["detection_head"] += modules.pop("support_encoder")
            modules = {name: modules.get(name, []) for name in MODULES}
        return modules


def build_detector(config: TrainConfig) -> Detector:
    """A detector with weights drawn from `config.seed`, its backbone from `yolo_weights` if that is given.

    Raises:
        CheckpointError: `yolo_weights` cannot be used.
        ConfigError: the support encoder cannot be built.
    """
    torch.manual_seed(config.seed)
    detector = Detector(config)
    if config.yolo_weights is not None:
        loaded = load_yolo_weights(detector.backbone, config.yolo_weights)
        log.info("yolo_weights: %s: %s", config.yolo_weights, loaded)
    return detector
