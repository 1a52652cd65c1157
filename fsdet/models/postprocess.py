"""From raw predictions to final detections: best candidates, then NMS within each class."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor
from torchvision.ops import batched_nms

from fsdet.models.detector import EpisodeOutput
from fsdet.structures import Detections

CANDIDATES = 100
"""Number of best scores per image, over all anchor points and classes, that NMS receives."""
NMS_IOU = 0.6
MAX_DETECTIONS = 50
"""Largest number of detections per image."""
SCORE_THRESHOLD = 0.25
"""Detections below this score are not shown, and do not count in ST-IoU. F1 was best here, 0.50, on the
validation episodes of the embedded data after 500 steps of stage 2 (0.49 at 0.2, 0.46 at 0.3)."""


def detect(output: EpisodeOutput) -> list[Detections]:
    """Final detections of every image of an episodic forward pass."""
    boxes = output.head.boxes().float()
    scores = output.logits.float().sigmoid()
    return [detect_image(b, s) for b, s in zip(boxes, scores, strict=True)]


def detect_image(
    boxes: Float[Tensor, "anchors 4"], scores: Float[Tensor, "anchors n_way"]
) -> Detections:
    """Final detections of one image, on the host; boxes and scores that are not finite are dropped.

    Args:
        boxes: xyxy in pixels.
        scores: in 0 … 1.
    """
    best = scores.flatten().topk(min(CANDIDATES, scores.numel()))
    points, ways = best.indices // scores.shape[1], best.indices % scores.shape[1]
    finite = best.values.isfinite() & boxes[points].isfinite().all(dim=1)
    points, ways, values = points[finite], ways[finite], best.values[finite]
    chosen = batched_nms(boxes[points], values, ways, NMS_IOU)[:MAX_DETECTIONS]
    return Detections(boxes[points[chosen]].cpu(), values[chosen].cpu(), ways[chosen].cpu())


def with_swapped_supports(found: list[Detections], n_way: int) -> list[Detections]:
    """The detections that every class would get with its neighbour's supports, without another search.

    The detector treats the ways of an episode as a set: supports in another order give the same
    detections with other labels. A test checks this. With one way there is no neighbour.
    """
    return [replace(one, labels=(one.labels + 1) % n_way) for one in found]
