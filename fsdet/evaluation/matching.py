"""Which detections are right: COCO's greedy matching at IoU 0.5, and the score threshold with the best F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_iou

from fsdet.structures import Detections

MATCH_IOU = 0.5
"""A detection is right if it overlaps a target of its class at least this much."""


def match(
    found: Detections,
    boxes: Float[Tensor, "targets 4"],
    labels: Int[Tensor, " targets"],
) -> Int[np.ndarray, " detections"]:
    """The target of each detection in one image, -1 for a wrong detection.

    The best detection chooses first, and each takes the target of its class that it overlaps most. What a detection
    gets does not depend on those that score less, so that the matches hold at every score threshold.

    Args:
        found: best first.
        boxes: of the targets, xyxy in the same pixels.
        labels: of the targets.
    """
    overlap = box_iou(found.boxes, boxes).numpy()
    overlap[found.labels.numpy()[:, None] != labels.numpy()] = 0
    chosen = np.full(len(overlap), -1)
    for row in np.flatnonzero((overlap >= MATCH_IOU).any(axis=1)):
        best = int(overlap[row].argmax())
        if overlap[row, best] >= MATCH_IOU:
            chosen[row] = best
            overlap[:, best] = 0
    return chosen


@dataclass(frozen=True)
class ScoreThreshold:
    """The lowest score of the detections that are kept."""

    value: float
    precision: float
    """Fraction of the kept detections that are right, over all images and classes of an evaluation together."""
    recall: float
    """Fraction of the targets that are found."""

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def best_threshold(
    scores: Float[np.ndarray, " detections"], right: Bool[np.ndarray, " detections"], targets: int
) -> ScoreThreshold | None:
    """The threshold with the best F1, halfway to the next lower score.

    None if no detection is right, or if all that are right score 0.

    Args:
        scores: of all detections, in any order.
        right: which of them have a target.
        targets: number of targets, found or not.
    """
    if not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits, kept = scores[order], np.cumsum(right[order]), np.arange(1, len(order) + 1)
    f1 = 2 * hits / (kept + targets)
    following = np.append(ranked[1:], 0.0)
    f1[ranked == following] = 0  # a threshold cannot separate equal scores
    best = int(f1.argmax())
    if f1[best] == 0:  # of a detector that has lost its training
        return None
    value = float((ranked[best] + following[best]) / 2)
    return ScoreThreshold(value, float(hits[best] / kept[best]), float(hits[best] / targets))
