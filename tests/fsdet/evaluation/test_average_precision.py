import contextlib
import io
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsdet.errors import DataError
from fsdet.evaluation.average_precision import EpisodeScores, collect, score_episode
from fsdet.models.postprocess import MAX_DETECTIONS
from fsdet.structures import Detections, Targets

Episode = tuple[Targets, list[Detections]]
N_WAY = 3
WAYS = range(N_WAY)


def boxes(rng: np.random.Generator, count: int, longest: float) -> torch.Tensor:
    corner = rng.uniform(0, 40, (count, 2))
    return torch.tensor(
        np.concatenate([corner, corner + rng.uniform(8, longest, (count, 2))], 1)
    ).float()


def episode(rng: np.random.Generator, longest: float = 130, n_images: int = 4) -> Episode:
    """Random targets of all three sizes, and detections that are near some of them."""
    most = 6
    counts = rng.integers(1, most + 1, n_images)
    mask = torch.arange(most)[None] < torch.tensor(counts)[:, None]
    corners = torch.stack([boxes(rng, most, longest) for _ in range(n_images)]) * mask[..., None]
    labels = torch.tensor(rng.integers(0, N_WAY, (n_images, most))) * mask
    found = []
    for row in range(n_images):
        near = corners[row] + torch.tensor(rng.normal(0, 2.5, (most, 4))).float()
        near[:, 2:] = torch.maximum(near[:, 2:], near[:, :2] + 1)
        away = boxes(rng, 5, longest)
        guessed = torch.where(torch.tensor(rng.random(most) < 0.8), labels[row], 0)
        ways = torch.cat([guessed, torch.tensor(rng.integers(0, N_WAY, 5))])
        values = torch.tensor(rng.random(most + 5)).float()
        found.append(Detections(torch.cat([near, away]), values, ways))
    return Targets(corners, labels, mask), found


def episodes(seed: int, count: int = 5, longest: float = 130) -> list[Episode]:
    rng = np.random.default_rng(seed)
    return [episode(rng, longest) for _ in range(count)]


def perfect(targets: Targets) -> list[Detections]:
    rows = zip(targets.boxes, targets.labels, targets.mask, strict=True)
    return [Detections(b[m], torch.ones(int(m.sum())), w[m]) for b, w, m in rows]


def by_pycocotools(made: list[Episode]) -> dict[str, float]:
    """The six figures of COCO: mean over the ways of an episode, then over episodes."""
    rows = [one_by_pycocotools(*one) for one in made]
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}


def one_by_pycocotools(targets: Targets, found: list[Detections]) -> dict[str, float]:
    def entry(image, way, box):
        x1, y1, x2, y2 = box
        where = {"image_id": image, "category_id": way + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        return where | {"area": (x2 - x1) * (y2 - y1), "iscrowd": 0}

    truth = [
        entry(image, way, box)
        for image, (b, w, m) in enumerate(zip(targets.boxes, targets.labels, targets.mask), 1)  # noqa: B905
        for box, way in zip(b[m].tolist(), w[m].tolist(), strict=True)
    ]
    results = [
        entry(image, way, box) | {"score": value}
        for image, one in enumerate(found, 1)
        for box, value, way in zip(
            one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "images": [{"id": number} for number in range(1, len(found) + 1)],
            "annotations": [one | {"id": number} for number, one in enumerate(truth, 1)],
            "categories": [{"id": way + 1} for way in range(N_WAY)],
        }
        gt.createIndex()
        judged = COCOeval(gt, gt.loadRes(results), "bbox")
        judged.params.maxDets = [MAX_DETECTIONS]
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"][..., 0].astype(float)  # (T, R, categories, areas)
    precision[precision < 0] = math.nan
    ap = precision.mean(axis=1)
    figures = {"AP50": ap[0, :, 0], "AP75": ap[5, :, 0], "AP": ap[:, :, 0]}
    figures |= {f"AP_{size}": ap[:, :, n] for n, size in enumerate(("small", "medium", "large"), 1)}
    return {name: float(np.nanmean(values)) for name, values in figures.items()}


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("seed", range(5))
def test_all_six_figures_equal_pycocotools(seed):
    made = episodes(seed)
    ours = collect([score_episode(*one, WAYS) for one in made]).means()
    theirs = by_pycocotools(made)
    assert ours.keys() == theirs.keys()
    assert all(0.02 < value < 0.98 for value in theirs.values())
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_sizes_that_no_target_has_are_left_out():
    scores = collect([score_episode(*one, WAYS) for one in episodes(0, longest=30)])
    assert scores.means().keys() == {"AP50", "AP", "AP75", "AP_small"}


def test_the_spread_is_that_of_the_episodes():
    rows = [score_episode(*one, WAYS) for one in episodes(0)]
    alone = [row.means["AP50"] for row in rows]
    together = collect(rows)
    assert together.ap50 == pytest.approx(np.mean(alone))
    assert together.ap50_se == pytest.approx(np.std(alone, ddof=1) / len(alone) ** 0.5)
    assert together.ap50_ci95 == pytest.approx(2.7764 * together.ap50_se, rel=1e-4)  # t of 4 d.f.
    assert math.isnan(collect(rows[:1]).ap50_ci95)  # one value has no spread


def test_perfect_detections_score_one():
    for targets, _ in episodes(1):
        assert set(score_episode(targets, perfect(targets), WAYS).means.values()) == {1.0}


def test_the_right_boxes_of_the_wrong_ways_score_zero():
    targets, _ = episode(np.random.default_rng(1), longest=20)
    wrong = [
        Detections(d.boxes, d.scores, (d.labels + 1) % N_WAY + N_WAY) for d in perfect(targets)
    ]
    assert score_episode(targets, wrong, range(2 * N_WAY)).means["AP50"] == 0


def test_a_detection_counts_in_its_own_image_only():
    made = [targets for targets, _ in episodes(2)]
    moved = [score_episode(t, perfect(t)[1:] + perfect(t)[:1], WAYS).means["AP50"] for t in made]
    assert np.mean(moved) < 0.3


def test_no_detections_score_zero():
    targets, found = episode(np.random.default_rng(1))
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    scores = score_episode(targets, [none] * len(found), WAYS)
    assert set(scores.means.values()) == {0.0}
    assert set(scores.ap50_by_class.values()) == {0.0}


def test_an_episode_without_any_target_does_not_count():
    made = episodes(1)
    targets, found = made[0]
    empty = Targets(targets.boxes * 0, targets.labels * 0, targets.mask & False)
    nothing = score_episode(empty, found, WAYS)
    assert nothing == EpisodeScores({}, {})
    rows = [score_episode(*one, WAYS) for one in made[1:]]
    assert collect([nothing, *rows]) == collect(rows)
    with pytest.raises(DataError, match="no target in any of the episodes"):
        collect([nothing])
