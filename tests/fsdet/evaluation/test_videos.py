from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from fsdet.config import TrainConfig
from fsdet.data.image_set import ImageSet
from fsdet.evaluation import videos as videos_module
from fsdet.evaluation.videos import Tube, best_boxes, evaluate_videos, paired_iou, st_iou
from fsdet.models.detector import Detector, build_detector
from fsdet.models.postprocess import SCORE_THRESHOLD, detect
from fsdet.models.support_features import SupportFeatures
from fsdet.structures import Detections

NOTHING = None
UNIT = (0, 0, 10, 10)


def tube(*boxes) -> Tube:
    rows = [box or (7, 7, 9, 9) for box in boxes]  # an absent box may hold anything
    return Tube(torch.tensor(rows).float(), torch.tensor([box is not NOTHING for box in boxes]))


def test_it_is_the_mean_iou_where_both_see_the_object_throughout():
    found = tube((0, 0, 10, 5), UNIT)  # IoU 1/2 and 1
    assert st_iou(tube(UNIT, UNIT), found) == pytest.approx(0.75)


def test_a_missed_frame_and_a_false_alarm_count_as_zero():
    truth = tube(UNIT, UNIT, NOTHING, NOTHING)
    found = tube(UNIT, NOTHING, UNIT, NOTHING)
    assert st_iou(truth, found) == pytest.approx(1 / 3)  # the fourth frame is in neither


def test_boxes_that_do_not_meet_score_zero():
    assert st_iou(tube(UNIT), tube((20, 20, 30, 30))) == 0
    assert st_iou(tube(UNIT), tube(NOTHING)) == 0


def test_agreement_that_there_is_nothing_scores_one():
    assert st_iou(tube(NOTHING, NOTHING), tube(NOTHING, NOTHING)) == 1


corners = st.tuples(*[st.floats(0, 50) for _ in range(2)], *[st.floats(0.5, 50) for _ in range(2)])
box = corners.map(lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3]))
frames = st.lists(st.tuples(st.none() | box, st.none() | box), min_size=1, max_size=12)


@given(frames)
def test_it_is_symmetric_and_within_bounds(pairs):
    one, other = (tube(*boxes) for boxes in zip(*pairs, strict=True))
    value = st_iou(one, other)
    assert 0 <= value <= 1
    assert value == pytest.approx(st_iou(other, one))
    assert st_iou(one, one) == pytest.approx(1)


@given(frames)
def test_frames_without_the_object_change_nothing(pairs):
    one, other = (tube(*boxes) for boxes in zip(*pairs, strict=True))
    longer = [tube(*boxes, NOTHING) for boxes in zip(*pairs, strict=True)]
    assert st_iou(*longer) == pytest.approx(st_iou(one, other))


@given(st.lists(st.tuples(box, box), min_size=1, max_size=8))
def test_paired_iou_equals_torchvision(pairs):
    first, second = (torch.tensor(boxes) for boxes in zip(*pairs, strict=True))
    assert torch.allclose(paired_iou(first, second), box_iou(first, second).diag(), atol=1e-5)


N_FRAMES = 6


@pytest.fixture(scope="module")
def detector() -> Detector:
    """With random weights, sure of everything it sees."""
    detector = build_detector(TrainConfig(support_size=32)).eval()
    detector.detection_head.object_out.bias.data.fill_(6.0)
    return detector


def filmed(image_set: ImageSet, detector: Detector) -> tuple[ImageSet, float]:
    """Two videos of six scenes; in every other frame the object lies where the detector finds it.

    Returns:
        the set, and its ST-IoU as it follows from these places.
    """
    boxes, labels, counts, expected = [], [], [0] * len(image_set), []
    for video in range(2):
        crops = torch.from_numpy(image_set.supports[video][:2].copy()).permute(0, 3, 1, 2)
        overlap = 0.0
        for frame in range(video * N_FRAMES, (video + 1) * N_FRAMES):
            picture = torch.from_numpy(image_set.image(frame).copy()).permute(2, 0, 1)
            with torch.no_grad():
                found = detect(detector(picture[None], crops[None, None]))[0]
            assert found.scores[0] > SCORE_THRESHOLD
            if frame % 2:
                continue  # a frame without the object: what is found there is a false alarm
            x1, y1, x2, y2 = found.boxes[0].tolist()
            half = video == 1  # its truth is the left half of what is found
            boxes.append((x1, y1, (x1 + x2) / 2 if half else x2, y2))
            labels.append(video)
            counts[frame] = 1
            overlap += 0.5 if half else 1
        expected.append(overlap / N_FRAMES)
    groups = np.full(len(image_set), -1)
    groups[: 2 * N_FRAMES] = np.repeat([0, 1], N_FRAMES)
    videos = replace(
        image_set,
        offsets=np.cumsum([0, *counts]),
        boxes=np.array(boxes, np.float32),
        labels=np.array(labels),
        groups=groups,
    )
    return videos, float(np.mean(expected))


def test_each_video_is_searched_with_its_own_supports(train_set, detector):
    videos, expected = filmed(train_set, detector)
    features = SupportFeatures(detector, videos, "cpu")
    assert 0.3 < expected < 0.4
    assert evaluate_videos(detector, videos, features, 2, "cpu") == pytest.approx(
        expected, abs=1e-3
    )


def test_the_number_of_frames_in_a_pass_changes_nothing(train_set, detector, monkeypatch):
    videos, expected = filmed(train_set, detector)
    monkeypatch.setattr(videos_module, "FRAMES", 4)
    features = SupportFeatures(detector, videos, "cpu")
    assert evaluate_videos(detector, videos, features, 2, "cpu") == pytest.approx(
        expected, abs=1e-3
    )


def test_a_set_without_videos_has_no_st_iou(train_set, detector):
    features = SupportFeatures(detector, train_set, "cpu")
    assert evaluate_videos(detector, train_set, features, 2, "cpu") is None


def test_a_frame_counts_as_found_from_the_threshold_on():
    box = torch.tensor([[1.0, 2, 3, 4]])
    way = torch.zeros(1, dtype=torch.int64)
    scores = (SCORE_THRESHOLD, SCORE_THRESHOLD - 1e-3)
    found = [Detections(box, torch.tensor([score]), way) for score in scores]
    found.append(Detections(box[:0], torch.zeros(0), way[:0]))
    assert best_boxes(found).present.tolist() == [True, False, False]
    assert best_boxes(found).boxes[0].tolist() == [1, 2, 3, 4]
