"""Average precision with COCO semantics, by faster-coco-eval, episode by episode.

Detections are matched within one image and one class; AP is the 101-point interpolated mean. A class
counts once in every episode it is in, so that a result is a mean over episodes, with a confidence interval over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Float
from torch import Tensor

from fsdet.data.image_set import Array
from fsdet.errors import DataError
from fsdet.evaluation.intervals import half_width, standard_error
from fsdet.models.postprocess import MAX_DETECTIONS
from fsdet.structures import Detections, Targets

AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
"""COCO's areas of a box, in square pixels of the network's image."""
AP50, AP75 = 0, 5
"""Indices of IoU 0.5 and 0.75 among COCO's thresholds 0.5, 0.55 … 0.95."""


@dataclass(frozen=True)
class EpisodeScores:
    """Average precision of one episode, 0 … 1."""

    means: dict[str, float]
    """AP50, AP, AP75, AP_small, AP_medium, AP_large, each over the ways with such targets; empty without any."""
    ap50_by_class: dict[int, float]
    """Class -> AP50, of the classes with a target."""


@dataclass(frozen=True)
class Scores:
    """Average precision over episodes, 0 … 1."""

    episodes: dict[str, list[float]]
    """AP50, AP, AP75, AP_small, AP_medium, AP_large -> the values of the episodes with such targets."""
    classes: dict[int, list[float]] = field(default_factory=dict)
    """Class -> its AP50 in each episode in which it has a target."""

    @property
    def ap50(self) -> float:
        """Mean over episodes of AP at IoU 0.5."""
        return float(np.mean(self.episodes["AP50"]))

    @property
    def ap50_se(self) -> float:
        """Standard error of `ap50` over episodes of these classes; NaN for a single one."""
        return standard_error(self.episodes["AP50"])

    @property
    def ap50_se_classes(self) -> float:
        """Standard error of `ap50` over classes: how well it generalises to other classes. NaN for a single one."""
        return standard_error([float(np.mean(values)) for values in self.classes.values()])

    @property
    def ap50_ci95(self) -> float:
        """Half the width of the 95 % interval of `ap50` over episodes; NaN for a single one."""
        return half_width(self.episodes["AP50"])

    def means(self) -> dict[str, float]:
        """Name -> mean over episodes; without the sizes that no target has."""
        return {name: float(np.mean(values)) for name, values in self.episodes.items() if values}


def collect(episodes: Sequence[EpisodeScores]) -> Scores:
    """Combine results of `score_episode`.

    Raises:
        DataError: no episode has a target.
    """
    if not any(one.means for one in episodes):
        raise DataError("eval_episodes: no target in any of the episodes; raise eval_episodes")
    names = ("AP50", "AP", "AP75", *(f"AP_{area}" for area in AREAS if area != "all"))
    classes: dict[int, list[float]] = {}
    for one in episodes:
        for label, value in one.ap50_by_class.items():
            classes.setdefault(label, []).append(value)
    return Scores(
        {name: [one.means[name] for one in episodes if name in one.means] for name in names},
        classes,
    )


def score_episode(
    targets: Targets, found: list[Detections], classes: Sequence[int]
) -> EpisodeScores:
    """Average precision of one episode.

    Args:
        targets: of the query images.
        found: detections of each query image.
        classes: of the ways, in their order; one without a target does not count.
    """
    precision = _precision(targets, found, len(classes))
    by_way = np.where(precision < 0, np.nan, precision).mean(axis=1)  # (IoUs, ways, areas)
    seen = ~np.isnan(by_way[0])
    overall = by_way[:, seen[:, 0], 0]
    if not overall.size:
        return EpisodeScores({}, {})
    scores = {
        "AP50": float(overall[AP50].mean()),
        "AP": float(overall.mean()),
        "AP75": float(overall[AP75].mean()),
    }
    for place, area in enumerate(AREAS):
        if place > 0 and seen[:, place].any():
            scores[f"AP_{area}"] = float(by_way[:, seen[:, place], place].mean())
    shown = np.asarray(classes)[seen[:, 0]].tolist()
    return EpisodeScores(scores, dict(zip(shown, overall[AP50].tolist(), strict=True)))


def _precision(targets: Targets, found: list[Detections], n_way: int) -> Array:
    """(IoU thresholds, recall points, ways, areas) precision, -1 where a way has no target."""
    truth = COCO(
        {
            "images": [{"id": number} for number in range(1, len(found) + 1)],
            "annotations": list(_annotations(targets)),
            "categories": [{"id": way, "name": str(way)} for way in range(n_way)],
        }
    )
    results = truth.loadRes(list(_results(found)))
    evaluation = COCOeval_faster(truth, results, "bbox", print_function=_silent)
    evaluation.params.areaRng = [list(area) for area in AREAS.values()]
    evaluation.params.areaRngLbl = list(AREAS)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision: Array = np.asarray(evaluation.eval["precision"])[..., 0]
    return precision


def _annotations(targets: Targets) -> Iterator[dict[str, Any]]:
    rows, columns = targets.mask.nonzero(as_tuple=True)
    boxes, ways = _xywh(targets.boxes[rows, columns]), targets.labels[rows, columns].tolist()
    for number, (row, box, way) in enumerate(zip(rows.tolist(), boxes, ways, strict=True), 1):
        where = {"id": number, "image_id": row + 1, "category_id": way}
        yield {**where, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


def _results(found: list[Detections]) -> Iterator[dict[str, Any]]:
    for image, one in enumerate(found, 1):
        boxes, scores, ways = _xywh(one.boxes), one.scores.tolist(), one.labels.tolist()
        for box, value, way in zip(boxes, scores, ways, strict=True):
            yield {"image_id": image, "category_id": way, "bbox": box, "score": value}


def _silent(*_: object) -> None:
    """Discards the evaluator's progress lines."""


def _xywh(boxes: Float[Tensor, "boxes 4"]) -> list[list[float]]:
    """xyxy -> COCO's x, y, width, height."""
    corners: list[list[float]] = boxes.tolist()
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners]
