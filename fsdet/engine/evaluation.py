"""AP over fixed episodes, with the swap control.

COCO semantics by faster-coco-eval: detections are matched within one image and one class, AP is the
101-point interpolated mean. A class counts anew in every episode, so the result is a mean over episodes
and has a standard error over them.

The swap control is the same episodes with every class given another class's supports. A detector that
ignores its supports scores the same; the gap between the two is what the supports are worth.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor
from torchvision.ops import batched_nms

from fsdet.config import TrainConfig
from fsdet.data.episodes import EVAL_SEED, BaseSource, EpisodeSource
from fsdet.data.sources import load_image_set
from fsdet.errors import DataError
from fsdet.models.detector import Detector, EpisodeOutput
from fsdet.structures import Batch, Detections

log = logging.getLogger(__name__)

CANDIDATES = 100
"""Best scores of an image, over all anchor points and classes, that go into NMS."""
NMS_IOU = 0.6
MOST_DETECTIONS = 50
"""Detections kept per image."""


@dataclass(frozen=True)
class Scores:
    """Result over all episodes."""

    ap50: float
    """Mean over episodes of AP at IoU 0.5, 0 … 1."""
    ap: float
    """Mean over episodes of AP averaged over IoU 0.5 … 0.95."""
    ap50_se: float
    """Standard error of `ap50` over episodes."""


def evaluate_run(
    detector: Detector, config: TrainConfig, device: str, final: bool
) -> dict[str, float]:
    """The metrics of one evaluation, by name.

    Novel validation classes every time; the swap control, base classes on unseen images and the
    finding of objects of whatever class at the end only, since each costs as much again.
    """
    novel = EpisodeSource(load_image_set(config, "val"), config, EVAL_SEED, augment=False)
    count = config.eval_episodes
    scores = evaluate(detector, novel, count, device)
    metrics = {
        "val/nAP50": scores.ap50,
        "val/nAP": scores.ap,
        "val/nAP50_se": scores.ap50_se,
    }
    if not final:
        return metrics
    swapped = evaluate(detector, novel, count, device, swap=True)
    base_set = load_image_set(config, "base")
    base = EpisodeSource(base_set, config, EVAL_SEED, augment=False)
    base_scores = evaluate(detector, base, math.ceil(count / 2), device)
    objects = evaluate_objects(detector, BaseSource(base_set, EVAL_SEED), device)
    return metrics | {
        "val/nAP50_swapped": swapped.ap50,
        "val/swap_gap": scores.ap50 - swapped.ap50,
        "val/bAP50": base_scores.ap50,
        "val/bAP": base_scores.ap,
        "val/object_AP50": objects.ap50,
    }


@torch.no_grad()
def evaluate(
    detector: Detector, episodes: EpisodeSource, count: int, device: str, swap: bool = False
) -> Scores:
    """Score `detector` on episodes 0 … count - 1.

    Args:
        detector: put into evaluation mode while scored.
        episodes: fixed source.
        count: number of episodes.
        device: where the detector lives.
        swap: give every class its neighbour's supports.
    """
    was_training = detector.training
    detector.eval()
    truth: list[Batch] = []
    found: list[list[Detections]] = []
    for index in range(count):
        episode = episodes.batch(index, 1)
        moved = (episode.swapped() if swap else episode).to(device)
        found.append(detect(detector(moved.images, moved.supports)))
        truth.append(episode)
    detector.train(was_training)
    return score(truth, found)


@torch.no_grad()
def evaluate_objects(detector: Detector, images: BaseSource, device: str) -> Scores:
    """Score the finding of objects of whatever class, without supports, on the first 64 images."""
    was_training = detector.training
    detector.eval()
    truth: list[Batch] = []
    found: list[list[Detections]] = []
    for first in range(0, 64, 8):
        batch = images.batch(first, 8)
        head = detector.find_objects(detector.encode(batch.images.to(device)))
        objectness = head.objectness.float().sigmoid()[..., None]
        pairs = zip(head.boxes().float(), objectness, strict=True)
        found.append([_detect_image(boxes, scores) for boxes, scores in pairs])
        targets = replace(batch.targets, labels=torch.zeros_like(batch.targets.labels))
        truth.append(replace(batch, targets=targets, classes=batch.classes[:, :1]))
    detector.train(was_training)
    return score(truth, found)


def detect(output: EpisodeOutput) -> list[Detections]:
    """Final detections of every image of an episodic forward pass."""
    boxes = output.head.boxes().float()
    scores = output.logits.float().sigmoid()
    return [_detect_image(b, s) for b, s in zip(boxes, scores, strict=True)]


def _detect_image(boxes: Tensor, scores: Tensor) -> Detections:
    """NMS within each class over the best candidates. boxes (A, 4), scores (A, n_way)."""
    best = scores.flatten().topk(min(CANDIDATES, scores.numel()))
    points, ways = best.indices // scores.shape[1], best.indices % scores.shape[1]
    kept = batched_nms(boxes[points], best.values, ways, NMS_IOU)[:MOST_DETECTIONS]
    return Detections(boxes[points[kept]].cpu(), best.values[kept].cpu(), ways[kept].cpu())


def score(truth: list[Batch], found: list[list[Detections]]) -> Scores:
    """Compare detections with targets.

    Args:
        truth: the episodes, one batch each.
        found: per episode the detections of its images.

    Raises:
        DataError: no episode has a target.
    """
    precision = _precision(truth, found)
    ways = truth[0].classes.shape[1]
    by_class = np.where(precision < 0, np.nan, precision).mean(axis=1)  # (T, episodes * ways)
    by_episode = by_class.reshape(len(by_class), len(truth), ways)
    scored = ~np.isnan(by_episode[0]).all(axis=1)  # chance may leave an episode without any target
    if not scored.any():
        raise DataError("eval_episodes: no target in any of the episodes; raise eval_episodes")
    episodes = np.nanmean(by_episode[:, scored], axis=2)
    ap50 = episodes[0]
    spread = float(ap50.std(ddof=1)) if len(ap50) > 1 else math.nan
    return Scores(float(ap50.mean()), float(episodes.mean()), spread / len(ap50) ** 0.5)


def _precision(truth: list[Batch], found: list[list[Detections]]) -> np.ndarray[Any, Any]:
    """(IoU thresholds, recall points, episodes * ways) precision, -1 where a class has no target."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    ways = truth[0].classes.shape[1]
    for number, (episode, detections) in enumerate(zip(truth, found, strict=True)):
        targets = episode.targets
        for row, detected in enumerate(detections):
            image = {"image_id": len(images) + 1}
            images.append({"id": len(images) + 1})
            mask = targets.mask[row]
            for box, way in zip(
                _xywh(targets.boxes[row][mask]), targets.labels[row][mask].tolist(), strict=True
            ):
                annotations.append(
                    {
                        **image,
                        "id": len(annotations) + 1,
                        "category_id": number * ways + way + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
            for box, value, way in zip(
                _xywh(detected.boxes),
                detected.scores.tolist(),
                detected.labels.tolist(),
                strict=True,
            ):
                results.append(
                    {**image, "category_id": number * ways + way + 1, "bbox": box, "score": value}
                )
    categories = [{"id": i + 1, "name": str(i)} for i in range(len(truth) * ways)]
    gt = COCO({"images": images, "annotations": annotations, "categories": categories})
    evaluation = COCOeval_faster(gt, gt.loadRes(results), "bbox", print_function=_silent)
    evaluation.params.areaRng = [evaluation.params.areaRng[0]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.params.maxDets = [MOST_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision: np.ndarray[Any, Any] = np.asarray(evaluation.eval["precision"])[:, :, :, 0, 0]
    return precision


def _silent(*_: object) -> None:
    """The evaluator's own progress lines say nothing that ours do not."""


def _xywh(boxes: Tensor) -> list[list[float]]:
    """xyxy (n, 4) -> COCO's x, y, width, height."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
