"""From raw predictions to final detections: best candidates, then NMS within each class."""

from __future__ import annotations

from dataclasses import replace

import torch
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
    return detect_images(output.head.boxes().float(), output.logits.float().sigmoid())


def detect_images(
    boxes: Float[Tensor, "images anchors 4"], scores: Float[Tensor, "images anchors n_way"]
) -> list[Detections]:
    """Final detections of each image, on the host; boxes and scores that are not finite are dropped.

    The best candidates of all images are copied to the host at once, where NMS has little to do.

    Args:
        boxes: xyxy in pixels.
        scores: in 0 … 1.
    """
    n_way = scores.shape[2]
    flat = scores.flatten(1)
    best = flat.topk(min(CANDIDATES, flat.shape[1]))
    points = (best.indices // n_way)[..., None].expand(-1, -1, 4)
    ways = (best.indices % n_way).float()  # exact, being small
    found = torch.cat([boxes.gather(1, points), best.values[..., None], ways[..., None]], dim=2)
    return [_without_duplicates(candidates) for candidates in found.cpu()]


def _without_duplicates(candidates: Float[Tensor, "candidates 6"]) -> Detections:
    """The detections among the candidates of one image, each a box, its score and its way; best first."""
    candidates = candidates[candidates[:, :5].isfinite().all(dim=1)]
    boxes, scores, ways = candidates[:, :4], candidates[:, 4], candidates[:, 5].long()
    chosen = batched_nms(boxes, scores, ways, NMS_IOU)[:MAX_DETECTIONS]
    return Detections(boxes[chosen], scores[chosen], ways[chosen])


def with_swapped_supports(found: list[Detections], n_way: int) -> list[Detections]:
    """The detections that every class would get with its neighbour's supports, without another search.

    The detector treats the ways of an episode as a set: supports in another order give the same
    detections with other labels. A test checks this. With one way there is no neighbour.
    """
    return [replace(one, labels=(one.labels + 1) % n_way) for one in found]
