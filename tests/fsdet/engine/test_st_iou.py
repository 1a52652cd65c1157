import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from fsdet.engine.st_iou import Tube, paired_iou, st_iou

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
