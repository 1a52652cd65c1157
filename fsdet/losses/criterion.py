"""Assigns anchor points to targets, computes every loss term and weighs them.

Box terms are weighted by the assigner's score of each positive and divided by the sum of all scores. Classification is
binary cross-entropy over all anchor points, and in stage 1 also cross-entropy over the base classes.

No shape depends on the predictions, so the host never waits for the device: positives are gathered into slots, whose
number follows from that of the targets or of the places for them, and a free slot has weight 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fsdet.config import LossConfig
from fsdet.losses.assigner import Assignment, assign
from fsdet.losses.box import BoxLoss, dfl_loss
from fsdet.losses.embedding import supcon_loss, triplet_loss
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
NO_CLASS = -100
"""Label of a sample that does not count."""


@dataclass(frozen=True)
class Losses:
    """Loss of one forward pass."""

    raw: dict[str, Float[Tensor, ""]]
    """Term -> its value before its weight."""
    weighted: dict[str, Float[Tensor, ""]]
    """Term -> its value times its weight."""
    positives: Float[Tensor, ""]
    """Number of positive anchor points."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """Sum of the weighted terms."""
        return torch.stack(list(self.weighted.values())).sum()


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
            # two tables: objects and supports are only matched from stage 2 on
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
        embeddings, labels, counts = _labelled_embeddings(output, batch, assigned)
        raw["supcon"] = supcon_loss(embeddings, labels, self.temperature, counts)
        if "triplet" in self.weights:
            raw["triplet"] = triplet_loss(embeddings, labels, self.margin, counts)
        return self._weighted(raw, assigned)

    def base(
        self, head: HeadOutput, supports: Float[Tensor, "1 n_way 1 dim"], batch: Batch
    ) -> Losses:
        """Losses of base training (stage 1).

        Args:
            head: predictions without supports.
            supports: embeddings of the support crops of `batch.classes`.
            batch: images with base-class labels.
        """
        targets = batch.targets
        classless = replace(targets, labels=torch.zeros_like(targets.labels))
        assigned, localisation = self._localise(head, head.objectness[..., None], classless)
        labels = assigned.of_targets(targets.labels).masked_fill(~assigned.taken, NO_CLASS)
        object_loss = base_class_loss(
            _cosine(assigned.of_positives(head.embeddings), self.object_classes), labels
        )
        support_loss = base_class_loss(
            _cosine(supports.flatten(0, 2), self.support_classes), batch.classes.flatten()
        )
        return self._weighted({**localisation, "base": object_loss + support_loss}, assigned)

    def _localise(
        self,
        head: HeadOutput,
        logits: Float[Tensor, "images anchors classes"],
        targets: Targets,
    ) -> tuple[Assignment, dict[str, Float[Tensor, ""]]]:
        """Assignment, and the terms that every stage has: bbox, cls, dfl."""
        boxes = head.boxes()
        assigned = assign(boxes, logits, head.points, targets)
        weight = assigned.of_positives(assigned.scores.sum(-1)) * assigned.taken
        normalizer = assigned.scores.sum().clamp(min=1)
        anchors = assigned.anchors
        target_boxes = assigned.of_targets(targets.boxes)
        distances = boxes_to_ltrb(head.points[anchors], target_boxes, head.strides[anchors])
        raw = {
            "bbox": self.box_loss(assigned.of_positives(boxes), target_boxes, assigned.taken),
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
) -> tuple[Float[Tensor, "samples dim"], Int[Tensor, " samples"], Bool[Tensor, " samples"]]:
    """Embeddings of the supports and of the slots, the dataset's class of each, and whether it counts."""
    per_episode = len(batch.images) // len(batch.classes)
    ways = assigned.of_targets(batch.targets.labels)
    found = batch.classes[assigned.images // per_episode, ways]
    shown = batch.classes.repeat_interleave(output.supports.shape[2], dim=1).flatten()
    embeddings = [output.supports.flatten(0, 2), assigned.of_positives(output.head.embeddings)]
    counts = [torch.ones_like(shown, dtype=torch.bool), assigned.taken]
    return torch.cat(embeddings), torch.cat([shown, found]), torch.cat(counts)


def _cosine(
    embeddings: Float[Tensor, "samples dim"], table: Float[Tensor, "classes dim"]
) -> Float[Tensor, "samples classes"]:
    normalize = nn.functional.normalize
    return COSINE_SCALE * normalize(embeddings.float(), dim=-1) @ normalize(table, dim=-1).T


def bce_loss(
    logits: Float[Tensor, "images anchors classes"],
    targets: Float[Tensor, "images anchors classes"],
) -> Float[Tensor, ""]:
    """Binary cross-entropy in nats, summed over all anchor points and classes, background included; float32.

    Args:
        logits: predicted.
        targets: soft, 0 … 1.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="sum")


def base_class_loss(
    logits: Float[Tensor, "samples classes"], labels: Int[Tensor, " samples"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats, float32; 0, still part of the graph, for no samples.

    Args:
        logits: scaled cosine similarities.
        labels: in 0 … classes - 1, or `NO_CLASS`.
    """
    total = F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=NO_CLASS)
    return total / (labels != NO_CLASS).sum().clamp(min=1)
