"""Right and wrong detections against COCO's own matching, and the best F1 against every threshold."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsdet.evaluation.matching import best_threshold, match
from fsdet.structures import Detections

CLASSES = 2


def crowded(seed: int) -> tuple[Detections, torch.Tensor, torch.Tensor]:
    """Overlapping targets of two classes, and detections around them, best first."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 20, (5, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 20, (5, 2))], axis=1)
    found = np.repeat(boxes, 4, axis=0) + rng.normal(0, 2, (20, 4))
    scores = np.sort(rng.uniform(0, 1, 20))[::-1].copy()
    order = rng.permutation(20)
    return (
        Detections(
            torch.tensor(found[order], dtype=torch.float32),
            torch.tensor(scores, dtype=torch.float32),
            torch.tensor(rng.integers(0, CLASSES, 20)),
        ),
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(rng.integers(0, CLASSES, 5)),
    )


def xywh(box: list[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def by_coco(found: Detections, boxes: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """The target of each detection by pycocotools, -1 for none."""
    truth = COCO()
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": label, "bbox": xywh(box), "area": 1, "iscrowd": 0}
        for i, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True))
    ]  # fmt: skip
    categories = [{"id": label} for label in range(CLASSES)]
    truth.dataset = {"images": [{"id": 1}], "annotations": annotations, "categories": categories}
    truth.createIndex()
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    results = [
        {"image_id": 1, "category_id": label, "bbox": xywh(box), "score": score}
        for box, score, label in rows
    ]
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    matched = {}
    for image in evaluation.evalImgs[:: len(evaluation.params.areaRng)]:
        if image is not None:
            matched |= dict(zip(image["dtIds"], image["dtMatches"][0].astype(int), strict=True))
    return [int(matched[number + 1]) - 1 for number in range(len(results))]


@pytest.mark.parametrize("seed", range(20))
def test_matches_are_those_of_coco(seed):
    found, boxes, labels = crowded(seed)
    assert match(found, boxes, labels).tolist() == by_coco(found, boxes, labels)


def test_without_targets_or_detections_nothing_matches():
    found, boxes, labels = crowded(0)
    assert match(found, boxes[:0], labels[:0]).tolist() == [-1] * 20
    none = Detections(found.boxes[:0], found.scores[:0], found.labels[:0])
    assert match(none, boxes, labels).tolist() == []


scored = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8]), st.booleans()), min_size=1)


@given(scored, st.integers(0, 5))
def test_no_other_threshold_has_a_better_f1(rows, missed):
    scores = np.array([score for score, _ in rows])
    right = np.array([hit for _, hit in rows])
    targets = int(right.sum()) + missed
    found = best_threshold(scores, right, targets)
    if found is None:
        assert not right.any()
        return

    def f1(threshold: float) -> float:
        kept = scores >= threshold
        return float(2 * right[kept].sum() / (kept.sum() + targets))

    assert found.f1 == pytest.approx(f1(found.value))
    assert found.f1 == pytest.approx(max(f1(threshold) for threshold in scores))


def test_the_threshold_lies_halfway_between_two_scores():
    found = best_threshold(np.array([0.2, 0.9, 0.8]), np.array([False, True, True]), 2)
    assert found is not None
    assert (found.value, found.precision, found.recall) == (pytest.approx(0.5), 1.0, 1.0)


def test_scores_of_zero_have_no_threshold():
    """As of a detector whose weights have grown beyond all measure."""
    right = np.array([False, True, False])
    assert best_threshold(np.zeros(3), right, targets=2) is None
