import math

import numpy as np
import torch
from torch import Tensor

from fsdet.losses.criterion import Assignment, assign, base_class_loss, bce_loss
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
) -> Assignment:
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
    return assign(boxes[None], scores[None], points, Targets(padded, labels, mask))


def predictions(**others: tuple[float, ...]) -> Tensor:
    """(16, 4): every anchor point predicts the target of its half; `p0=box` sets that of point 0."""
    boxes = torch.tensor([LEFT] * 8 + [RIGHT] * 8)
    for name, box in others.items():
        boxes[int(name[1:])] = torch.tensor(box)
    return boxes


def test_positives_are_the_points_inside_a_target_whatever_the_others_predict():
    found = assigned(predictions())
    assert found.positive_indices.tolist() == [*IN_LEFT, *IN_RIGHT]
    assert found.of_positives(found.target_index).tolist() == [0] * 4 + [1] * 4
    assert found.of_positives(found.boxes).tolist() == [list(LEFT)] * 4 + [list(RIGHT)] * 4
    expected = torch.zeros(1, 16, 2)
    expected[0, IN_LEFT, 0] = expected[0, IN_RIGHT, 1] = 1.0
    torch.testing.assert_close(found.scores, expected, atol=1e-4, rtol=0)


def test_scores_fall_with_the_sixth_power_of_the_iou_and_the_root_of_the_probability():
    by_box = assigned(predictions(p0=INNER)).scores[0, IN_LEFT, 0]
    torch.testing.assert_close(by_box, torch.tensor([0.75**12, 1, 1, 1]), atol=1e-3, rtol=0)
    logits = torch.zeros(16, 2)
    logits[0, 0] = -math.log(7)  # a probability of 1/8, a quarter of the others'
    by_class = assigned(predictions(), logits).scores[0, IN_LEFT, 0]
    torch.testing.assert_close(by_class, torch.tensor([0.5, 1, 1, 1]), atol=1e-3, rtol=0)


def test_a_point_in_two_targets_stands_for_the_one_that_its_box_overlaps_most():
    whole = (0.0, 0.0, 32.0, 32.0)
    found = assigned(predictions(p0=whole), targets=(LEFT, whole))
    assert found.target_index[0, IN_LEFT].tolist() == [1, 0, 0, 0]


def test_no_point_is_positive_without_a_target():
    found = assigned(predictions(), targets=())
    assert not found.positive.any()
    assert found.scores.sum() == 0


def test_bce_is_the_sum_over_every_anchor_point_and_class():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, generator=generator)
    targets = torch.rand(2, 5, 3, generator=generator)
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), targets.double().numpy()
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum()
    np.testing.assert_allclose(bce_loss(logits, targets), expected, rtol=1e-5)


def test_background_costs_and_pulls_its_logits_down():
    logits = torch.zeros(1, 4, 2, requires_grad=True)
    loss = bce_loss(logits, torch.zeros(1, 4, 2))
    loss.backward()
    torch.testing.assert_close(loss.item(), 8 * math.log(2))
    assert (logits.grad > 0).all()


def test_bce_of_extreme_half_precision_logits_is_finite_and_float32():
    loss = bce_loss(
        torch.tensor([[[6e4, -6e4]]], dtype=torch.float16), torch.tensor([[[0.0, 1.0]]])
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor(120000.0))


def test_base_class_loss_is_the_mean_cross_entropy():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    expected = ((math.log(math.e**2 + 2) - 2) + math.log(3)) / 2
    torch.testing.assert_close(base_class_loss(logits, torch.tensor([0, 2])).item(), expected)


def test_base_class_loss_of_no_rows_is_zero_and_still_differentiable():
    logits = torch.zeros(0, 7, requires_grad=True)
    loss = base_class_loss(logits, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == (0, 7)
