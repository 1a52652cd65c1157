import contextlib
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsdet.config import DataConfig, ModelConfig
from fsdet.data.episodes import EpisodeSource
from fsdet.engine.evaluation import MOST_DETECTIONS, evaluate, score
from fsdet.models.detector import build_detector
from fsdet.structures import Batch, Detections, Targets


def boxes(rng: np.random.Generator, count: int) -> torch.Tensor:
    corner = rng.uniform(0, 40, (count, 2))
    return torch.tensor(
        np.concatenate([corner, corner + rng.uniform(8, 24, (count, 2))], 1)
    ).float()


def episode(rng: np.random.Generator, n_way: int, n_images: int) -> tuple[Batch, list[Detections]]:
    """Random targets, and detections that are near some of them."""
    most = 6
    counts = rng.integers(1, most + 1, n_images)
    mask = torch.arange(most)[None] < torch.tensor(counts)[:, None]
    corners = torch.stack([boxes(rng, most) for _ in range(n_images)]) * mask[..., None]
    labels = torch.tensor(rng.integers(0, n_way, (n_images, most))) * mask
    found = []
    for row in range(n_images):
        near = corners[row] + torch.tensor(rng.normal(0, 2.5, (most, 4))).float()
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
        away = boxes(rng, 5)
        guessed = torch.where(torch.tensor(rng.random(most) < 0.8), labels[row], 0)
        ways = torch.cat([guessed, torch.tensor(rng.integers(0, n_way, 5))])
        values = torch.tensor(rng.random(most + 5)).float()
        found.append(Detections(torch.cat([near, away]), values, ways))
    batch = Batch(
        images=torch.zeros(n_images, 3, 64, 64, dtype=torch.uint8),
        targets=Targets(corners, labels, mask),
        supports=torch.zeros(1, n_way, 1, 3, 8, 8, dtype=torch.uint8),
        support_ids=torch.arange(n_way)[None, :, None],
        classes=torch.arange(n_way)[None],
    )
    return batch, found


def random_episodes(seed: int, count: int = 5, n_way: int = 3):
    rng = np.random.default_rng(seed)
    made = [episode(rng, n_way, 4) for _ in range(count)]
    return [batch for batch, _ in made], [found for _, found in made]


def by_pycocotools(truth: list[Batch], found: list[list[Detections]]) -> tuple[float, float]:
    """AP50 and AP with one category per episode and way, mean over ways, then over episodes."""
    annotations, results, images = [], [], []
    ways = truth[0].classes.shape[1]

    def entry(image, category, box):
        x1, y1, x2, y2 = box
        where = {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        return where | {"area": (x2 - x1) * (y2 - y1), "iscrowd": 0}

    for number, (batch, rows) in enumerate(zip(truth, found, strict=True)):
        for row, detected in enumerate(rows):
            image = 1000 * number + row + 1
            images.append({"id": image})
            for box, way, shown in zip(
                batch.targets.boxes[row].tolist(),
                batch.targets.labels[row].tolist(),
                batch.targets.mask[row].tolist(),
                strict=True,
            ):
                if shown:
                    one = entry(image, 100 * number + way + 1, box)
                    annotations.append(one | {"id": len(annotations) + 1})
            results += [
                entry(image, 100 * number + way + 1, box) | {"score": value}
                for box, value, way in zip(
                    detected.boxes.tolist(),
                    detected.scores.tolist(),
                    detected.labels.tolist(),
                    strict=True,
                )
            ]
    categories = [{"id": 100 * n + w + 1} for n in range(len(truth)) for w in range(ways)]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {"images": images, "annotations": annotations, "categories": categories}
        gt.createIndex()
        judged = COCOeval(gt, gt.loadRes(results), "bbox")
        judged.params.maxDets = [MOST_DETECTIONS]
        judged.params.areaRng = judged.params.areaRng[:1]
        judged.params.areaRngLbl = ["all"]
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"][..., 0, 0].astype(float)  # (T, R, categories)
    precision[precision < 0] = math.nan
    ap = precision.mean(axis=1).reshape(len(precision), len(truth), ways)
    return float(np.nanmean(ap[0], axis=1).mean()), float(np.nanmean(ap, axis=2).mean())


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_pycocotools(seed):
    truth, found = random_episodes(seed)
    ours, (ap50, ap) = score(truth, found), by_pycocotools(truth, found)
    assert 0.02 < ap50 < 0.98
    assert ours.ap50 == pytest.approx(ap50, abs=1e-9)
    assert ours.ap == pytest.approx(ap, abs=1e-9)


def test_the_standard_error_is_that_of_the_episodes():
    truth, found = random_episodes(0)
    alone = [score([batch], [rows]).ap50 for batch, rows in zip(truth, found, strict=True)]
    together = score(truth, found)
    assert together.ap50 == pytest.approx(np.mean(alone))
    assert together.ap50_se == pytest.approx(np.std(alone, ddof=1) / len(alone) ** 0.5)
    assert math.isnan(score(truth[:1], found[:1]).ap50_se)  # one value has no spread


def perfect(batch: Batch) -> list[Detections]:
    rows = zip(batch.targets.boxes, batch.targets.labels, batch.targets.mask, strict=True)
    return [Detections(b[m], torch.ones(int(m.sum())), w[m]) for b, w, m in rows]


def test_perfect_detections_score_one():
    truth, _ = random_episodes(1)
    scores = score(truth, [perfect(batch) for batch in truth])
    assert (scores.ap50, scores.ap) == pytest.approx((1, 1))


def test_the_right_boxes_of_the_wrong_ways_score_zero():
    truth, _ = random_episodes(1, n_way=2)
    wrong = [[Detections(d.boxes, d.scores, 1 - d.labels) for d in perfect(b)] for b in truth]
    assert score(truth, wrong).ap50 < 0.05


def test_a_detection_counts_in_its_own_image_only():
    truth, _ = random_episodes(2)
    moved = [perfect(batch)[1:] + perfect(batch)[:1] for batch in truth]
    assert score(truth, moved).ap50 < 0.3


def test_no_detections_score_zero():
    truth, _ = random_episodes(1)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    scores = score(truth, [[none] * 4 for _ in truth])
    assert (scores.ap50, scores.ap, scores.ap50_se) == (0, 0, 0)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_an_episode_without_any_target_leaves_the_score_finite():
    truth, _ = random_episodes(1)
    found = [perfect(batch) for batch in truth]
    targets = truth[0].targets
    empty = Targets(targets.boxes * 0, targets.labels * 0, targets.mask & False)
    truth[0] = replace(truth[0], targets=empty)
    assert score(truth, found).ap50 == pytest.approx(1)


def test_evaluation_leaves_the_detector_in_its_mode(train_set):
    data = DataConfig(support_size=32, n_query=4)
    detector = build_detector(ModelConfig(), data, 0).train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    source = EpisodeSource(train_set, data, 0, augment=False)
    first, again = (evaluate(detector, source, 2, "cpu") for _ in range(2))
    assert detector.training
    assert first == again
    assert all(torch.equal(before[name], t) for name, t in detector.state_dict().items())
