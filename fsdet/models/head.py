"""`detection_head`: boxes as distance distributions, class scores as objectness plus similarity to prototypes.

The score of way c at an anchor point is `objectness + scale * cos(embedding, prototype c) + bias`: the first
term scores whether there is an object at all (background lowers every class), the second which one it is.
One set of weights serves all scales (as in FCOS, Tian et al. 2019). The distance of a box's side from the anchor
point, in units of the stride, is the expectation over `reg_max` bins (Li et al. 2020, Generalized Focal Loss).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from ultralytics.nn.modules import DWConv

PRIOR = 0.01
"""Objectness of the untrained head (Lin et al. 2017, RetinaNet)."""
SIMILARITY_SCALE, SIMILARITY_BIAS = 10.0, -5.0
"""Initial scale and bias of the similarity; the low bias keeps background from dominating the first gradients."""


@dataclass(frozen=True)
class HeadOutput:
    """Raw predictions at the anchor points of all scales."""

    box_logits: Float[Tensor, "images anchors 4 reg_max"]
    """Distance distributions to left, top, right, bottom."""
    objectness: Float[Tensor, "images anchors"]
    """Logits."""
    embeddings: Float[Tensor, "images anchors dim"]
    """Not normalised."""
    points: Float[Tensor, "anchors 2"]
    """Anchor points xy in pixels."""
    strides: Float[Tensor, "anchors 1"]
    """In pixels."""

    def boxes(self) -> Float[Tensor, "images anchors 4"]:
        """Corners xyxy in pixels: the expectation of every distribution."""
        return ltrb_to_boxes(self.points, decode_ltrb(self.box_logits), self.strides)


class DetectionHead(nn.Module):
    """Fused features of all scales -> `HeadOutput`.

    Args:
        dim: channels of the features and of the embedding.
        reg_max: bins per side.
        strides: stride of each scale in pixels.
    """

    def __init__(self, dim: int, reg_max: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.reg_max, self.strides = reg_max, strides
        self.box_branch = _branch(dim)
        self.box_out = nn.Conv2d(dim, 4 * reg_max, 1)
        self.class_branch = _branch(dim)
        self.object_out = nn.Conv2d(dim, 1, 1)
        self.embed_out = nn.Conv2d(dim, dim, 1)
        self.prototype_out = nn.Linear(dim, dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(SIMILARITY_SCALE)))
        self.bias = nn.Parameter(torch.tensor(SIMILARITY_BIAS))
        nn.init.constant_(self.object_out.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        nn.init.zeros_(self.box_out.bias)  # type: ignore[arg-type]

    def forward(self, features: list[Float[Tensor, "images dim _ _"]]) -> HeadOutput:
        box_logits, objectness, embeddings = [], [], []
        for x in features:
            boxes = self.box_out(self.box_branch(x)).flatten(2).transpose(1, 2)
            box_logits.append(boxes.unflatten(2, (4, self.reg_max)))
            classes = self.class_branch(x)
            objectness.append(self.object_out(classes).flatten(1))
            embeddings.append(self.embed_out(classes).flatten(2).transpose(1, 2))
        points, strides = anchor_points(features, self.strides)
        return HeadOutput(
            torch.cat(box_logits, 1),
            torch.cat(objectness, 1),
            torch.cat(embeddings, 1),
            points,
            strides,
        )

    def final_parameters(self) -> list[nn.Parameter]:
        """Parameters of the layers that produce the predictions; adaptive clipping leaves them out."""
        layers = (self.box_out, self.object_out, self.embed_out, self.prototype_out)
        return [*(p for layer in layers for p in layer.parameters()), self.log_scale, self.bias]

    def class_logits(
        self, output: HeadOutput, prototypes: Float[Tensor, "images n_way dim"]
    ) -> Float[Tensor, "images anchors n_way"]:
        """Logits of every class of the episode.

        Args:
            output: of `forward`.
            prototypes: of each image's episode.
        """
        embeddings = F.normalize(output.embeddings, dim=-1)
        references = F.normalize(self.prototype_out(prototypes), dim=-1)
        similarity = self.log_scale.exp() * (embeddings @ references.transpose(1, 2)) + self.bias
        return output.objectness[..., None] + similarity


def anchor_points(
    features: list[Float[Tensor, "images _ _ _"]], strides: tuple[int, ...]
) -> tuple[Float[Tensor, "anchors 2"], Float[Tensor, "anchors 1"]]:
    """Centres xy of all cells in pixels, and their strides, scale by scale, row by row."""
    points, sizes = [], []
    for x, stride in zip(features, strides, strict=True):
        height, width = x.shape[-2:]
        rows = (torch.arange(height, device=x.device) + 0.5) * stride
        columns = (torch.arange(width, device=x.device) + 0.5) * stride
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
        points.append(grid.view(-1, 2))
        sizes.append(torch.full((height * width, 1), float(stride), device=x.device))
    return torch.cat(points), torch.cat(sizes)


def decode_ltrb(logits: Float[Tensor, "*batch 4 reg_max"]) -> Float[Tensor, "*batch 4"]:
    """Expected distances in stride units, float32."""
    # not a matrix product: autocast would round the distances to eight bits
    bins = torch.arange(logits.shape[-1], dtype=torch.float32, device=logits.device)
    return (logits.float().softmax(dim=-1) * bins).sum(dim=-1)


def ltrb_to_boxes(
    points: Float[Tensor, "*#batch 2"],
    distances: Float[Tensor, "*#batch 4"],
    strides: Float[Tensor, "*#batch 1"],
) -> Float[Tensor, "*#batch 4"]:
    """Boxes xyxy in pixels.

    Args:
        points: anchor points in pixels.
        distances: left, top, right, bottom in stride units.
        strides: in pixels.
    """
    scaled = distances * strides
    return torch.cat([points - scaled[..., :2], points + scaled[..., 2:]], dim=-1)


def boxes_to_ltrb(
    points: Float[Tensor, "*#batch 2"],
    boxes: Float[Tensor, "*#batch 4"],
    strides: Float[Tensor, "*#batch 1"],
) -> Float[Tensor, "*#batch 4"]:
    """Distances in stride units, the inverse of `ltrb_to_boxes`; negative outside the box.

    Args:
        points: anchor points in pixels.
        boxes: xyxy in pixels.
        strides: in pixels.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1) / strides


def _branch(dim: int) -> nn.Sequential:
    """Two depthwise-separable convolutions."""
    return nn.Sequential(*[_Separable(dim) for _ in range(2)])


class _Separable(nn.Sequential):
    def __init__(self, dim: int) -> None:
        super().__init__(
            DWConv(dim, dim, 3), nn.Conv2d(dim, dim, 1, bias=False), nn.GroupNorm(8, dim), nn.SiLU()
        )
