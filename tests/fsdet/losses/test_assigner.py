import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from ultralytics.utils.tal import TaskAlignedAssigner

from fsdet.losses.assigner import ALPHA, BETA, TOPK, Assignment, assign
from fsdet.models.backbone import STRIDES
from fsdet.models.head import anchor_points, ltrb_to_boxes
from fsdet.structures import Targets

LEFT, RIGHT = (0.0, 0.0, 16.0, 16.0), (16.0, 16.0, 32.0, 32.0)
"""The targets of the small case: the upper left and the lower right quarter of an image of 32 pixels."""
INNER = (2.0, 2.0, 14.0, 14.0)
"""A prediction with an IoU of (12 / 16)² with `LEFT`, and of as much by CIoU, since centre and aspect ratio agree."""
IN_LEFT, IN_RIGHT = [0, 1, 4, 5], [10, 11, 14, 15]
"""Numbers of the anchor points in the targets."""


def assigned(
    boxes: Tensor,
    logits: Tensor | None = None,
    targets: tuple[tuple[float, ...], ...] = (LEFT, RIGHT),
) -> tuple[Assignment, Targets]:
    """The assignment of a grid of 4 x 4 anchor points, 8 pixels apart, to targets of class 0, 1, ….

    Args:
        boxes: (16, 4) predictions.
        logits: (16, 2); all 0 if not given.
        targets: padded with one that is none.
    """
    centres = torch.arange(4) * 8.0 + 4
    points = torch.cartesian_prod(centres, centres).flip(1)
    padded = torch.tensor([[*targets, (0.0, 0.0, 32.0, 32.0)]])
    labels = torch.arange(len(targets) + 1).clamp(max=1)[None]
    mask = torch.arange(len(targets) + 1)[None] < len(targets)
    scores = torch.zeros(16, 2) if logits is None else logits
    given = Targets(padded, labels, mask)
    return assign(boxes[None], scores[None], points, given), given


def predictions(**others: tuple[float, ...]) -> Tensor:
    """(16, 4): every anchor point predicts the target of its half; `p0=box` sets that of point 0."""
    boxes = torch.tensor([LEFT] * 8 + [RIGHT] * 8)
    for name, box in others.items():
        boxes[int(name[1:])] = torch.tensor(box)
    return boxes


def test_positives_are_the_points_inside_a_target_whatever_the_others_predict():
    found, targets = assigned(predictions())
    taken = found.taken
    assert found.slots[taken].tolist() == [*IN_LEFT, *IN_RIGHT]
    assert found.of_positives(found.target_index)[taken].tolist() == [0] * 4 + [1] * 4
    assert found.of_targets(targets.boxes)[taken].tolist() == [list(LEFT)] * 4 + [list(RIGHT)] * 4
    expected = torch.zeros(1, 16, 2)
    expected[0, IN_LEFT, 0] = expected[0, IN_RIGHT, 1] = 1.0
    torch.testing.assert_close(found.scores, expected, atol=1e-4, rtol=0)


def test_scores_fall_with_the_sixth_power_of_the_iou_and_the_root_of_the_probability():
    by_box = assigned(predictions(p0=INNER))[0].scores[0, IN_LEFT, 0]
    torch.testing.assert_close(by_box, torch.tensor([0.75**12, 1, 1, 1]), atol=1e-3, rtol=0)
    logits = torch.zeros(16, 2)
    logits[0, 0] = -math.log(7)  # a probability of 1/8, a quarter of the others'
    by_class = assigned(predictions(), logits)[0].scores[0, IN_LEFT, 0]
    torch.testing.assert_close(by_class, torch.tensor([0.5, 1, 1, 1]), atol=1e-3, rtol=0)


def test_a_point_in_two_targets_stands_for_the_one_that_its_box_overlaps_most():
    whole = (0.0, 0.0, 32.0, 32.0)
    found, _ = assigned(predictions(p0=whole), targets=(LEFT, whole))
    assert found.target_index[0, IN_LEFT].tolist() == [1, 0, 0, 0]


def test_no_point_is_positive_without_a_target():
    found, targets = assigned(predictions(), targets=())
    none = assign(
        *[torch.zeros(1, 16, n) for n in (4, 2)], torch.zeros(16, 2), replace(targets, limit=0)
    )
    assert none.slots.shape == none.of_targets(targets.labels).shape == (0,)
    assert not found.positive.any()
    assert not found.taken.any()
    assert found.scores.sum() == 0


sizes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4))


@settings(max_examples=50)
@given(
    shape=sizes,
    side=st.sampled_from([32, 64, 96]),
    grid=st.sampled_from([None, 1, 8]),
    equal_targets=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_equals_ultralytics(shape, side, grid, equal_targets, seed):
    """On a coarse grid most alignments are equal, many boxes and targets empty, and targets hide each other."""
    boxes, logits, points, targets = made_up(*shape, side, grid, equal_targets, seed)
    reference = TaskAlignedAssigner(
        TOPK, logits.shape[-1], ALPHA, BETA, stride=list(STRIDES)
    )(
        logits.sigmoid(), boxes, points, targets.labels[..., None], targets.boxes,
        targets.mask[..., None],
    )  # fmt: skip
    _, target_boxes, scores, positive, index = reference
    found = assign(boxes, logits, points, targets)
    assert found.positive.equal(positive)
    assert found.target_index[positive].equal(index[positive])
    assert found.slots[found.taken].equal(positive.flatten().nonzero()[:, 0])
    assert found.of_targets(targets.boxes)[found.taken].equal(target_boxes[positive])
    torch.testing.assert_close(found.scores, scores, rtol=1e-6, atol=0)


def made_up(
    images: int, objects: int, classes: int, side: int, grid: int | None, equal: bool, seed: int
) -> tuple[Tensor, Tensor, Tensor, Targets]:
    """Predictions and targets at random, on multiples of `grid` pixels if it is given."""
    draw = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.rand(*size, generator=draw)

    def on_grid(pixels: Tensor) -> Tensor:
        return pixels if grid is None else (pixels / grid).round() * grid

    points, strides = anchor_points(
        [torch.zeros(1, 1, side // stride, side // stride) for stride in STRIDES], STRIDES
    )
    corners, sides = on_grid(random(2, images, objects, 2) * side / 2)
    mask = random(images, objects) < 0.7
    targets = torch.cat([corners, corners + sides], dim=-1) * mask[..., None]
    if equal:
        targets = targets[:, :1].expand_as(targets).contiguous()
    labels = torch.randint(classes, mask.shape, generator=draw)
    distances = on_grid(4 * random(images, len(points), 4) * strides) / strides
    boxes = ltrb_to_boxes(points, distances, strides)
    logits = 4 * random(images, len(points), classes) - 2
    return (
        boxes, logits if grid is None else logits.round(), points, Targets(targets, labels, mask)
    )  # fmt: skip


def test_more_places_for_targets_change_nothing_but_the_number_of_slots():
    boxes, logits, points, targets = made_up(2, 3, 2, 64, None, False, 0)
    few, many = (assign(boxes, logits, points, targets.padded(places)) for places in (3, 8))
    assert few.positive.equal(many.positive)
    assert few.scores.equal(many.scores)
    assert few.slots[few.taken].equal(many.slots[many.taken])
    assert (len(few.slots), len(many.slots)) == (2 * 3 * TOPK, 2 * 8 * TOPK)


def test_as_many_slots_as_the_targets_that_are_there_can_take_hold_all_positives():
    for seed in range(20):
        boxes, logits, points, targets = made_up(3, 6, 2, 64, None, False, seed)
        known = replace(targets, limit=int(targets.mask.sum()))
        all_places, exact = (assign(boxes, logits, points, given) for given in (targets, known))
        assert exact.slots[exact.taken].equal(all_places.slots[all_places.taken])
        assert len(exact.slots) == TOPK * known.limit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_assigned_in_single_precision(dtype):
    boxes, logits, points, targets = made_up(2, 3, 2, 64, 8, False, 1)
    half = assign(boxes.to(dtype), logits.to(dtype), points, targets)
    whole = assign(boxes.to(dtype).float(), logits.to(dtype).float(), points, targets)
    assert half.scores.dtype == torch.float32
    assert half.scores.equal(whole.scores)
