import math
from pathlib import Path

import numpy as np
import pytest
import swap_control
import torch
from scipy.stats import ttest_rel

from fsdet.checkpoint.content import load_detector
from fsdet.config import DataConfig
from fsdet.data.episodes import EVAL_SEED, EpisodeSource
from fsdet.data.image_set import ImageSet
from fsdet.data.sources import load_image_set
from fsdet.evaluation import metrics
from fsdet.evaluation.average_precision import Scores, collect, score_episode
from fsdet.evaluation.metrics import Evaluation, evaluate, evaluate_run, passes_of
from fsdet.models.detector import Detector
from fsdet.models.postprocess import detect, with_swapped_supports

STAGE_1 = Path(__file__).parents[3] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"
DATA = DataConfig(image_size=64, support_size=32, n_way=3, n_query=2, n_shot=2)


@pytest.fixture(scope="module")
def detector() -> Detector:
    """As shipped; its classes mean little, but it finds objects."""
    return load_detector(STAGE_1, "cpu")[0]


@pytest.fixture
def source(train_set: ImageSet) -> EpisodeSource:
    return EpisodeSource(train_set, DATA, EVAL_SEED, augment=False)


def test_swapped_supports_give_the_same_detections_under_other_labels(detector, source):
    """The ways are a set to the detector; this is why the swap control needs no search of its own."""
    episode = source.batch(0, 1)
    with torch.no_grad():
        right = detector(episode.images, episode.supports)
        swapped = detector(episode.images, swap_control.swapped(episode).supports)
    assert torch.allclose(swapped.logits, right.logits.roll(1, dims=2), atol=1e-4)
    assert torch.allclose(swapped.head.boxes(), right.head.boxes(), atol=1e-3)
    assert not torch.allclose(swapped.logits, right.logits, atol=0.1)
    relabelled = with_swapped_supports(detect(right), 3)
    for one, other in zip(relabelled, detect(swapped), strict=True):
        assert torch.allclose(one.scores, other.scores, atol=1e-5)
        assert (one.labels == other.labels).float().mean() > 0.9  # but for equal scores


def test_several_episodes_in_one_pass_give_the_same_figures(detector, source, monkeypatch):
    """As on a GPU; sums come in another order then, so that a few ranks may change."""
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor, int]]] = {"one": [], "several": []}
    figures = {}
    for name, most in (("one", 1), ("several", 12)):  # of 6 images each
        monkeypatch.setitem(metrics.IMAGES_AT_ONCE, "cpu", most)
        figures[name] = evaluate(
            detector, source, range(2, 7), "cpu",
            on_episode=lambda episode, found, name=name: seen[name].append(
                (episode.image_ids, episode.classes, len(found))
            ),
        )  # fmt: skip
    assert [len(ids) for ids, _, _ in seen["several"]] == [6] * 5
    for one, other in zip(seen["one"], seen["several"], strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert one[2] == other[2] == 6
    for of in ("correct", "swapped"):
        one, other = (getattr(figures[name], of).means() for name in ("one", "several"))
        assert other == pytest.approx(one, abs=0.01)


@pytest.mark.parametrize(
    ("device", "passes"),
    [
        ("cpu", [range(3, 4), range(4, 5), range(5, 6)]),
        ("cuda:1", [range(3, 5), range(5, 6)]),
    ],
)
def test_a_gpu_searches_as_many_episodes_in_one_pass_as_fit(device, passes):
    assert passes_of(range(3, 6), 30, device) == passes
    assert passes_of(range(3, 6), 500, device) == [range(n, n + 1) for n in (3, 4, 5)]


def test_encoding_once_gives_the_figures_of_plain_forward_passes(detector, source):
    evaluation = evaluate(detector, source, range(3), "cpu")
    right, swapped = [], []
    for index in range(3):
        episode = source.batch(index, 1)
        for batch, rows in ((episode, right), (swap_control.swapped(episode), swapped)):
            with torch.no_grad():
                found = detect(detector(batch.images, batch.supports))
            rows.append(score_episode(episode.targets, found, episode.classes[0].tolist()))
    assert 0.01 < evaluation.ap50 < 0.9
    assert evaluation.correct.means() == pytest.approx(collect(right).means(), abs=1e-6)
    assert evaluation.swapped.means() == pytest.approx(collect(swapped).means(), abs=1e-6)
    assert evaluation.swap_gap == evaluation.ap50 - evaluation.swapped.ap50


def test_the_error_of_the_gap_is_that_of_the_differences_of_its_episodes():
    right, swapped = [0.2, 0.5, 0.9, 0.4], [0.1, 0.3, 0.8, 0.2]
    result = Evaluation(scores(right), scores(swapped))
    assert result.swap_gap == pytest.approx(0.15)
    assert result.swap_gap_se == pytest.approx(ttest_rel_error(right, swapped))
    assert result.swap_gap_se < result.correct.ap50_se / 4  # what the episodes share cancels out
    assert math.isnan(Evaluation(scores([0.2]), scores([0.1])).swap_gap_se)


def scores(ap50: list[float]) -> Scores:
    return Scores({"AP50": ap50})


def ttest_rel_error(one: list[float], other: list[float]) -> float:
    """Mean difference over its t statistic."""
    return float(np.mean(np.subtract(one, other)) / ttest_rel(one, other).statistic)


def test_the_error_over_classes_is_that_of_the_means_of_classes():
    classes = {3: [0.2, 0.4], 5: [0.9], 8: [0.5, 0.6, 0.7]}
    expected = np.std([0.3, 0.9, 0.6], ddof=1) / math.sqrt(3)
    assert Scores({"AP50": [0.5]}, classes).ap50_se_classes == pytest.approx(expected)
    assert math.isnan(Scores({"AP50": [0.5]}, {3: [0.1, 0.2]}).ap50_se_classes)


def test_a_class_has_a_value_from_each_of_its_episodes(detector, source):
    found = evaluate(detector, source, range(4), "cpu").correct
    shown = [set(source.episode(index).classes[0].tolist()) for index in range(4)]
    assert set(found.classes) <= set.union(*shown)
    for label, values in found.classes.items():
        assert len(values) <= sum(label in ways for ways in shown)
    everything = [value for values in found.classes.values() for value in values]
    assert min(everything) >= 0
    assert found.ap50 == pytest.approx(np.mean(everything), abs=0.05)


def test_weights_that_are_not_finite_find_nothing(source):
    broken = load_detector(STAGE_1, "cpu")[0]
    with torch.no_grad():
        broken.detection_head.bias.fill_(math.nan)
    assert evaluate(broken, source, range(2), "cpu").ap50 == 0


def test_evaluation_leaves_the_detector_in_its_mode(detector, source):
    detector.train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    first, again = (evaluate(detector, source, range(2), "cpu") for _ in range(2))
    assert detector.training
    assert first == again
    detector.eval()
    assert all(torch.equal(before[name], t) for name, t in detector.state_dict().items())


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_last_evaluation_has_all_metrics(small_config, detector, split):
    config = small_config(novel_split=split, eval_draws=2)
    running = evaluate_run(detector, config, "cpu", final=False)
    last = evaluate_run(detector, config, "cpu", final=True)
    assert running.keys() < last.keys()
    every = {"nAP50", "nAP", "nAP75", "nAP_small", "nAP50_se", "nAP50_ci95", "nAP50_swapped"}
    every |= {"swap_gap", "swap_gap_se", "nAP50_se_classes"}
    assert {f"{split}/{name}" for name in every} <= running.keys()
    only_last = {"bAP50", "bAP", "bAP50_swapped", "base_swap_gap", "object_AP50"}
    assert {f"{split}/{name}" for name in only_last} <= last.keys() - running.keys()
    gap = last[f"{split}/nAP50"] - last[f"{split}/nAP50_swapped"]
    assert last[f"{split}/swap_gap"] == pytest.approx(gap)
    assert f"{split}/ST_IoU" not in last  # there are no videos


def test_the_last_evaluation_averages_over_sets_of_other_episodes(small_config, detector):
    config = small_config(eval_episodes=3, eval_draws=2)
    source = EpisodeSource(load_image_set(config, "val"), config, EVAL_SEED, augment=False)
    running = evaluate_run(detector, config, "cpu", final=False)
    last = evaluate_run(detector, config, "cpu", final=True)
    sets = [evaluate(detector, source, range(n, n + 3), "cpu").ap50 for n in (0, 3, 6)]
    assert running["val/nAP50"] == sets[0]
    assert last["val/nAP50"] == pytest.approx((sets[1] + sets[2]) / 2)
    shown = [source.episode(number).support_ids for number in range(9)]
    assert not any(torch.equal(early, late) for early in shown[:3] for late in shown[3:])


def test_the_last_evaluation_is_of_the_split_that_reports(small_config, detector):
    config = small_config(novel_split="val", final_split="test")
    selecting = evaluate_run(detector, config, "cpu", final=False)
    reporting = evaluate_run(detector, config, "cpu", final=True)
    assert {name.partition("/")[0] for name in selecting} == {"val"}
    assert {name.partition("/")[0] for name in reporting} == {"test"}
    alone = evaluate_run(detector, small_config(novel_split="test"), "cpu", final=True)
    assert reporting == alone
