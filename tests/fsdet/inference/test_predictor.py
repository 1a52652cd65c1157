import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import fsdet
from fsdet.data.images import letterbox, letterbox_boxes
from fsdet.errors import DataError
from fsdet.inference.predictor import Predictor, from_letterbox
from fsdet.models.postprocess import SCORE_THRESHOLD, detect

STAGE_1 = Path(__file__).parents[3] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"


def crops(scenes, label, count=3):
    return [scenes.supports[label, variant] for variant in range(count)]


def by_evaluation(predictor: Predictor, scenes, image: int, labels: list[int]):
    """The same search as an evaluation does it."""
    picture = torch.from_numpy(scenes.image(image).copy()).permute(2, 0, 1)[None]
    supports = torch.from_numpy(np.stack([crops(scenes, label) for label in labels]))
    with torch.no_grad():
        return detect(predictor.detector(picture, supports.permute(0, 1, 4, 2, 3)[None]))[0]


def test_a_scene_shows_what_an_evaluation_finds(predictor, scenes):
    supports = {"cup": crops(scenes, 4), "hat": crops(scenes, 9)}
    for image in range(3):
        expected = by_evaluation(predictor, scenes, image, [4, 9])
        found = predictor.detect(scenes.image(image), supports, score_threshold=0)
        assert found.names == ("cup", "hat")
        assert torch.allclose(found.scores, expected.scores, atol=1e-5)
        assert torch.equal(found.labels, expected.labels)
        assert torch.allclose(found.boxes, expected.boxes.clamp(0, 128), atol=1e-3)


def test_boxes_are_in_pixels_of_the_original(predictor, scenes):
    scene = Image.fromarray(scenes.image(0))
    small = predictor.detect(scene, crops(scenes, 4), score_threshold=0.05)
    assert len(small.scores) > 2
    large = predictor.detect(
        scene.resize((512, 512), Image.Resampling.NEAREST), crops(scenes, 4), 0.05
    )
    assert torch.allclose(large.boxes[0] / 4, small.boxes[0], atol=2)


def test_boxes_lie_inside_a_wide_picture(predictor, scenes):
    wide = np.zeros((40, 128, 3), np.uint8)
    wide[:] = scenes.image(0)[30:70]
    found = predictor.detect(wide, crops(scenes, 4), score_threshold=0)
    assert len(found.scores) > 0
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= torch.tensor([128, 40])).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_only_scores_from_the_threshold_on_are_shown(predictor, scenes):
    every = predictor.detect(scenes.image(1), crops(scenes, 4), score_threshold=0)
    middle = float(every.scores[len(every.scores) // 3])
    some = predictor.detect(scenes.image(1), crops(scenes, 4), score_threshold=middle)
    assert 0 < len(some.scores) < len(every.scores)
    assert torch.equal(some.scores, every.scores[every.scores >= middle])
    usual = predictor.detect(scenes.image(1), crops(scenes, 4))
    assert torch.equal(usual.scores, every.scores[every.scores >= SCORE_THRESHOLD])


def test_examples_embedded_before_give_the_same(predictor, scenes):
    supports = {"cup": crops(scenes, 4), "hat": crops(scenes, 9, count=2)}
    examples = predictor.embed(supports)
    assert examples.prototypes.shape == (1, 2, 1, predictor.config.embed_dim)
    one, other = (predictor.detect(scenes.image(0), s, 0) for s in (supports, examples))
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


@pytest.mark.parametrize(
    ("supports", "message"),
    [
        ([], "'object' needs a list of at least one image, but got none"),
        ({}, "at least one class is needed"),
        ({"cup": []}, "'cup' needs a list of at least one image, but got none"),
        ("cup.png", "'object' needs a list of at least one image, but got str"),
    ],
)
def test_missing_supports_are_refused(predictor, scenes, supports, message):
    with pytest.raises(DataError, match=message):
        predictor.detect(scenes.image(0), supports)


def test_a_checkpoint_of_stage_1_is_loaded_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        predictor = fsdet.load(str(STAGE_1), device="cpu")
    assert "has not learned to compare" in caplog.text
    assert predictor.config.stage == 1


def test_the_package_itself_imports_nothing_heavy():
    code = "import sys, fsdet; print({'torch', 'numpy', 'PIL'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


sides = st.integers(1, 700)
parts = st.tuples(*[st.floats(0, 1) for _ in range(4)])


@given(sides, sides, st.sampled_from([64, 128, 640]), st.lists(parts, max_size=4))
def test_into_the_square_and_back_is_where_it_was(height, width, size, fractions):
    corners = np.array(fractions, np.float64).reshape(-1, 4)
    corners = np.concatenate(
        [corners.reshape(-1, 2, 2).min(1), corners.reshape(-1, 2, 2).max(1)], 1
    )
    boxes = (corners * [width, height, width, height]).astype(np.float32)
    square = letterbox(np.zeros((height, width, 3), np.uint8), size)
    moved = letterbox_boxes(boxes, np.array([[width, height]]), size)
    back = from_letterbox(torch.from_numpy(moved), height, width, size)
    assert square.shape == (size, size, 3)
    # half a pixel of a picture that was shrunk a thousandfold cannot be told apart in float32
    assert np.allclose(back.numpy(), boxes, atol=1e-3 * max(height, width, size) / size)


@given(sides, sides, st.lists(st.tuples(*[st.floats(-50, 200) for _ in range(4)]), max_size=4))
def test_nothing_lies_outside_the_picture(height, width, boxes):
    back = from_letterbox(torch.tensor(boxes).reshape(-1, 4), height, width, 128)
    assert (back >= 0).all()
    assert (back <= torch.tensor([width, height, width, height])).all()


def test_a_wide_picture_is_shifted_and_scaled():
    # 256 x 64 fits a square of 128 at half its size, 48 px below the top
    back = from_letterbox(torch.tensor([[10.0, 50.0, 20.0, 60.0]]), 64, 256, 128)
    assert back.tolist() == [[20, 4, 40, 24]]
