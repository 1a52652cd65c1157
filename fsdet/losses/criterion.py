"""Assigns anchor points to targets, computes every loss term and weighs them.

Positives are chosen by Ultralytics' TaskAlignedAssigner (Feng et al. 2021, TOOD). Box terms are weighted by the
assigner's score of each positive and divided by the sum of all scores. Classification is binary cross-entropy over all
anchor points, and in stage 1 also cross-entropy over the base classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.utils.tal import TaskAlignedAssigner

from fsdet.config import LossConfig
from fsdet.losses.box import BoxLoss, dfl_loss
from fsdet.losses.embedding import supcon_loss, triplet_loss
from fsdet.models.backbone import STRIDES
from fsdet.models.detector import EpisodeOutput
from fsdet.models.head import HeadOutput, boxes_to_ltrb
from fsdet.structures import Batch, Targets

TERMS = {
    1: ("bbox", "cls", "dfl", "base"),
    2: ("bbox", "cls", "dfl", "supcon"),
    3: ("bbox", "cls", "dfl", "supcon", "triplet"),
}
"""Stage -> names of its loss terms; each has a setting `<term>_weight`."""
COSINE_SCALE = 16.0
"""Scale of the cosine logits over base classes (stage 1)."""


@dataclass(frozen=True)
class Losses:
    """Loss of one forward pass."""

    raw: dict[str, Tensor]
    """Term -> scalar before its weight."""
    weighted: dict[str, Tensor]
    """Term -> scalar times its weight."""
    positives: Tensor
    """Number of positive anchor points, a float scalar."""

    @property
    def total(self) -> Tensor:
        """Sum of the weighted terms."""
        return torch.stack(list(self.weighted.values())).sum()


@dataclass(frozen=True)
class Assignment:
    """Which target every positive anchor point stands for."""

    positive: Tensor
    """(B, A) bool."""
    boxes: Tensor
    """(B, A, 4) xyxy in pixels; meaningful where positive."""
    target_index: Tensor
    """(B, A) index into the image's targets; meaningful where positive."""
    scores: Tensor
    """(B, A, C) soft class targets."""

    @cached_property
    def places(self) -> Tensor:
        """(P,) the positive anchor points among the B * A of all images; the device is waited for once."""
        return self.positive.flatten().nonzero()[:, 0]

    def of_positives(self, values: Tensor) -> Tensor:
        """(B, A, …) -> (P, …)."""
        return values.flatten(0, 1)[self.places]


class Criterion(nn.Module):
    """All loss terms of one stage.

    Args:
        config: weights and variants.
        stage: 1, 2 or 3.
        embed_dim: width of the embeddings.
        n_base: number of base classes; sizes the classifiers that stage 1 alone has.
    """

    def __init__(self, config: LossConfig, stage: int, embed_dim: int, n_base: int) -> None:
        super().__init__()
        self.weights = {term: getattr(config, f"{term}_weight") for term in TERMS[stage]}
        self.temperature, self.margin = config.supcon_temperature, config.triplet_margin
        self.box_loss = BoxLoss(config.bbox_loss)
        if stage == 1:
            # two tables, not one: objects and supports are to be tied together by stage 2 alone
            self.object_classes = nn.Parameter(
                torch.randn(n_base, embed_dim) / math.sqrt(embed_dim)
            )
            self.support_classes = nn.Parameter(
                torch.randn(n_base, embed_dim) / math.sqrt(embed_dim)
            )

    def episode(self, output: EpisodeOutput, batch: Batch) -> Losses:
        """Losses of an episodic forward pass (stages 2 and 3)."""
        head, targets = output.head, batch.targets
        assigned, raw = self._localise(head, output.logits, targets)
        embeddings, labels = _labelled_embeddings(output, batch, assigned)
        raw["supcon"] = supcon_loss(embeddings, labels, self.temperature)
        if "triplet" in self.weights:
            raw["triplet"] = triplet_loss(embeddings, labels, self.margin)
        return self._weighted(raw, assigned)

    def base(self, head: HeadOutput, shots: Tensor, batch: Batch) -> Losses:
        """Losses of base training (stage 1).

        Args:
            head: predictions without supports.
            shots: (1, W, 1, D) embeddings of the support crops of `batch.classes`.
            batch: images with base-class labels.
        """
        targets = batch.targets
        classless = Targets(targets.boxes, torch.zeros_like(targets.labels), targets.mask)
        assigned, localisation = self._localise(head, head.objectness[..., None], classless)
        labels = assigned.of_positives(targets.labels.gather(1, assigned.target_index))
        objects = base_class_loss(
            _cosine(assigned.of_positives(head.embeddings), self.object_classes), labels
        )
        supports = base_class_loss(
            _cosine(shots.flatten(0, 2), self.support_classes), batch.classes.flatten()
        )
        return self._weighted({**localisation, "base": objects + supports}, assigned)

    def _localise(
        self, head: HeadOutput, logits: Tensor, targets: Targets
    ) -> tuple[Assignment, dict[str, Tensor]]:
        """Assignment, and the terms that every stage has: bbox, cls, dfl."""
        boxes = head.boxes()
        assigned = assign(boxes, logits, head.points, targets)
        weight = assigned.of_positives(assigned.scores.sum(-1))
        normalizer = assigned.scores.sum().clamp(min=1)
        anchors = assigned.places % len(head.points)
        wanted = assigned.of_positives(assigned.boxes)
        distances = boxes_to_ltrb(head.points[anchors], wanted, head.strides[anchors])
        raw = {
            "bbox": self.box_loss(assigned.of_positives(boxes), wanted),
            "dfl": dfl_loss(assigned.of_positives(head.box_logits).float(), distances),
        }
        terms = {term: (loss * weight).sum() / normalizer for term, loss in raw.items()}
        return assigned, {**terms, "cls": bce_loss(logits, assigned.scores) / normalizer}

    def _weighted(self, raw: dict[str, Tensor], assigned: Assignment) -> Losses:
        weighted = {term: weight * raw[term] for term, weight in self.weights.items()}
        positives = assigned.positive.sum().float()
        return Losses({term: raw[term] for term in self.weights}, weighted, positives)


def _labelled_embeddings(
    output: EpisodeOutput, batch: Batch, assigned: Assignment
) -> tuple[Tensor, Tensor]:
    """(N, D) embeddings of the supports and of the positive anchor points, (N,) the dataset's classes."""
    per_episode = len(batch.images) // len(batch.classes)
    class_of_way = batch.classes.repeat_interleave(per_episode, dim=0)
    ways = batch.targets.labels.gather(1, assigned.target_index)
    found = assigned.of_positives(class_of_way.gather(1, ways))
    shown = batch.classes.repeat_interleave(output.supports.shape[2], dim=1).flatten()
    embeddings = [output.supports.flatten(0, 2), assigned.of_positives(output.head.embeddings)]
    return torch.cat(embeddings), torch.cat([shown, found])


def assign(boxes: Tensor, logits: Tensor, points: Tensor, targets: Targets) -> Assignment:
    """Choose the positive anchor points by task alignment (top 10, alpha 0.5, beta 6).

    Args:
        boxes: (B, A, 4) predicted, xyxy in pixels.
        logits: (B, A, C) predicted.
        points: (A, 2) anchor points in pixels.
        targets: labels in 0 … C - 1.
    """
    assigner = TaskAlignedAssigner(
        topk=10, num_classes=logits.shape[-1], alpha=0.5, beta=6.0, stride=list(STRIDES)
    )
    _, target_boxes, scores, positive, index = assigner(
        logits.detach().float().sigmoid(),
        boxes.detach().float(),
        points,
        targets.labels[..., None],
        targets.boxes,
        targets.mask[..., None],
    )
    return Assignment(positive, target_boxes, index, scores)


def _cosine(embeddings: Tensor, table: Tensor) -> Tensor:
    normalize = nn.functional.normalize
    return COSINE_SCALE * normalize(embeddings.float(), dim=-1) @ normalize(table, dim=-1).T


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy in nats, summed over all anchor points and classes, background included.

    Args:
        logits: (B, A, C).
        targets: (B, A, C) soft, 0 … 1.

    Returns:
        Scalar, float32.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")


def base_class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats; 0, still part of the graph, for no rows.

    Args:
        logits: (N, C) scaled cosine similarities.
        labels: (N,) in 0 … C - 1.

    Returns:
        Scalar, float32.
    """
    return F.cross_entropy(logits.float(), labels, reduction="sum") / max(len(labels), 1)
