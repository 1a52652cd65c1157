from dataclasses import replace

import numpy as np
import pytest
import torch

from fsdet.config import DataConfig, ModelConfig
from fsdet.data.image_set import ImageSet
from fsdet.engine import video_evaluation
from fsdet.engine.postprocess import SCORE_THRESHOLD, detect
from fsdet.engine.support_features import SupportFeatures
from fsdet.engine.video_evaluation import best_boxes, evaluate_videos
from fsdet.models.detector import Detector, build_detector
from fsdet.structures import Detections

N_FRAMES = 6


@pytest.fixture(scope="module")
def detector() -> Detector:
    """With random weights, sure of everything it sees."""
    detector = build_detector(ModelConfig(), DataConfig(support_size=32), 0).eval()
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
    monkeypatch.setattr(video_evaluation, "FRAMES", 4)
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
