import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.utils.loss import DFLoss
from ultralytics.utils.metrics import bbox_iou

from fsdet.losses.box import MOMENTUM, BoxLoss, dfl_loss, iou_and_geometry
from fsdet.models.head import decode_ltrb

WIOU = ["wiou_v1", "wiou_v2", "wiou_v3"]
KINDS = [*WIOU, "ciou"]
MEAN = 0.375
"""Running mean used against the references; exact in binary."""

# quarters of a pixel on a small canvas, so that equal, touching and empty boxes are common
coordinate = st.integers(0, 40).map(lambda n: n / 4)
side = st.one_of(st.just(0.0), coordinate)
box = st.tuples(coordinate, coordinate, side, side).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


def random_boxes(seed: int, n: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, n, 2, generator=generator, dtype=torch.float64)
    return torch.cat([100 * corner, 100 * corner + 5 + 60 * size], dim=1)


def frozen(kind: str) -> BoxLoss:
    """In evaluation mode with a known mean: a pure function."""
    loss = BoxLoss(kind).eval()
    loss.iou_mean.fill_(MEAN)
    return loss


def geometry(p, t):
    """Scalar IoU loss, squared centre distance and squared enclosing diagonal, from the paper."""
    width = max(0.0, min(p[2], t[2]) - max(p[0], t[0]))
    height = max(0.0, min(p[3], t[3]) - max(p[1], t[1]))
    union = (p[2] - p[0]) * (p[3] - p[1]) + (t[2] - t[0]) * (t[3] - t[1]) - width * height
    cx, cy = (p[0] + p[2]) / 2 - (t[0] + t[2]) / 2, (p[1] + p[3]) / 2 - (t[1] + t[3]) / 2
    wg, hg = max(p[2], t[2]) - min(p[0], t[0]), max(p[3], t[3]) - min(p[1], t[1])
    return 1 - width * height / union, cx**2 + cy**2, wg**2 + hg**2


def focusing(kind, iou_loss):
    beta = iou_loss / MEAN
    if kind == "wiou_v2":
        return math.sqrt(beta)
    return beta / (3 * 1.9 ** (beta - 3)) if kind == "wiou_v3" else 1.0


def wiou(kind, p, t, detached_at=None):
    """The paper's loss; what it detaches is taken at the box `detached_at`."""
    iou_loss, distance, _ = geometry(p, t)
    held_loss, _, held_diagonal = geometry(p if detached_at is None else detached_at, t)
    return focusing(kind, held_loss) * math.exp(distance / held_diagonal) * iou_loss


@pytest.mark.parametrize("kind", WIOU)
def test_wiou_equals_the_formula_of_the_paper(kind):
    pred, target = random_boxes(0), random_boxes(1)
    expected = [wiou(kind, p, t) for p, t in zip(pred.tolist(), target.tolist(), strict=True)]
    np.testing.assert_allclose(frozen(kind)(pred, target), expected, rtol=1e-8)
    np.testing.assert_allclose(frozen(kind)(pred.float(), target.float()), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", WIOU)
def test_wiou_gradient_equals_finite_differences_with_the_detached_parts_held(kind):
    pred, target = random_boxes(2).requires_grad_(), random_boxes(3)
    frozen(kind)(pred, target).sum().backward()
    step, numeric = 1e-5, np.zeros(pred.shape)
    for i, (p, t) in enumerate(zip(pred.tolist(), target.tolist(), strict=True)):
        for j in range(4):
            up, down = list(p), list(p)
            up[j] += step
            down[j] -= step
            numeric[i, j] = (wiou(kind, up, t, p) - wiou(kind, down, t, p)) / (2 * step)
    np.testing.assert_allclose(pred.grad, numeric, rtol=1e-5, atol=1e-9)


def test_ciou_and_its_gradient_equal_ultralytics():
    pred, target = random_boxes(4).float().requires_grad_(), random_boxes(5).float()
    loss = frozen("ciou")(pred, target)
    reference = 1 - bbox_iou(pred, target, xywh=False, CIoU=True).squeeze(-1)
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
    ours, theirs = (torch.autograd.grad(x.sum(), pred)[0] for x in (loss, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@given(pairs=st.lists(st.tuples(box, box), min_size=1, max_size=8))
def test_value_and_gradient_are_finite_for_all_boxes(kind, pairs):
    pred = torch.tensor([p for p, _ in pairs], requires_grad=True)
    loss = BoxLoss(kind)(pred, torch.tensor([t for _, t in pairs]))
    loss.sum().backward()
    assert loss.shape == (len(pairs),)
    assert loss.isfinite().all()
    assert (loss >= 0).all()
    assert pred.grad.isfinite().all()


@given(a=box, b=box)
def test_iou_is_symmetric_and_between_0_and_1(a, b):
    first, second = torch.tensor([a]), torch.tensor([b])
    iou, distance, diagonal = iou_and_geometry(first, second)
    assert 0 <= iou <= 1
    assert distance <= diagonal
    for ours, swapped in zip(
        (iou, distance, diagonal), iou_and_geometry(second, first), strict=True
    ):
        torch.testing.assert_close(ours, swapped)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_box_costs_nothing(kind):
    boxes = random_boxes(6).float()
    torch.testing.assert_close(frozen(kind)(boxes, boxes), torch.zeros(32), rtol=0, atol=1e-5)


def test_v3_lowers_outliers_and_v2_raises_them():
    target = torch.tensor([[0.0, 0, 10, 10]])
    far, middle = torch.tensor([[40.0, 40, 50, 50]]), torch.tensor([[3.0, 0, 13, 10]])

    def share(kind):
        """How much of v1's loss is left for the far box, against the box at half overlap."""
        weight = [frozen(kind)(p, target) / frozen("wiou_v1")(p, target) for p in (far, middle)]
        return (weight[0] / weight[1]).item()

    assert share("wiou_v2") > 1
    assert share("wiou_v3") < 1


def test_running_mean_moves_in_training_only_and_is_part_of_the_state():
    loss = BoxLoss("wiou_v3")
    pred, target = random_boxes(7).float(), random_boxes(8).float()
    before = (1 - iou_and_geometry(pred, target)[0]).mean()
    loss(pred.requires_grad_(), target)
    expected = 1 + MOMENTUM * (before - 1)
    torch.testing.assert_close(loss.iou_mean, expected)
    assert loss.iou_mean.dtype == torch.float32
    assert not loss.iou_mean.requires_grad
    loss.eval()(pred, target)
    torch.testing.assert_close(loss.iou_mean, expected)

    resumed = BoxLoss("wiou_v3")
    resumed.load_state_dict(loss.state_dict())
    assert resumed.iou_mean.equal(loss.iou_mean)


@pytest.mark.parametrize("kind", ["wiou_v2", "wiou_v3"])
def test_running_mean_is_that_of_the_pairs_that_count(kind):
    pred, target = random_boxes(7).float(), random_boxes(8).float()
    counts = torch.arange(len(pred)) % 3 > 0
    some, all_of_them = BoxLoss(kind), BoxLoss(kind)
    losses = some(pred, target, counts)
    expected = all_of_them(pred[counts], target[counts])
    torch.testing.assert_close(some.iou_mean, all_of_them.iou_mean)
    torch.testing.assert_close(losses[counts], expected)
    some(pred, target, torch.zeros_like(counts))
    assert some.iou_mean.equal(all_of_them.iou_mean)


def test_running_mean_survives_an_empty_and_an_overflowed_batch():
    loss = BoxLoss("wiou_v2")
    empty = torch.zeros(0, 4, requires_grad=True)
    loss(empty, torch.zeros(0, 4)).sum().backward()
    assert empty.grad.shape == (0, 4)
    loss(torch.full((1, 4), torch.nan), torch.tensor([[0.0, 0, 1, 1]]))
    assert loss.iou_mean == 1


def test_half_precision_boxes_are_compared_in_single_precision():
    boxes = random_boxes(9).bfloat16()
    loss = frozen("wiou_v1")(boxes, boxes)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.zeros(32), rtol=0, atol=1e-5)


def random_case(reg_max: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(reg_max)
    logits = 3 * torch.randn(40, 4, reg_max, generator=generator)
    # some below zero and some past the last bin
    targets = (reg_max + 4) * torch.rand(40, 4, generator=generator) - 2
    return logits, targets


@pytest.mark.parametrize("reg_max", [4, 16, 17])
def test_equals_ultralytics(reg_max):
    logits, targets = random_case(reg_max)
    logits.requires_grad_()
    loss = dfl_loss(logits, targets)
    reference = DFLoss(reg_max)(logits.flatten(0, 1), targets.clone())[:, 0]
    torch.testing.assert_close(loss, reference)
    ours, theirs = (torch.autograd.grad(x.sum(), logits)[0] for x in (loss, reference))
    torch.testing.assert_close(ours, theirs)


def test_targets_stay_as_they_were():
    logits, targets = random_case(16)
    before = targets.clone()
    dfl_loss(logits, targets)
    assert targets.equal(before)


@pytest.mark.parametrize("reg_max", [4, 16])
def test_a_uniform_distribution_costs_the_logarithm_of_the_bins(reg_max):
    _, targets = random_case(reg_max)
    loss = dfl_loss(torch.zeros(40, 4, reg_max), targets)
    torch.testing.assert_close(loss, torch.full((40,), math.log(reg_max)))


def test_the_floor_is_the_entropy_of_the_two_weights_and_decodes_to_the_target():
    target = torch.full((1, 4), 2.25)
    logits = torch.full((1, 4, 16), -1e4)
    logits[..., 2], logits[..., 3] = math.log(0.75), math.log(0.25)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    torch.testing.assert_close(dfl_loss(logits, target), torch.tensor([entropy]))
    torch.testing.assert_close(decode_ltrb(logits), target)


@given(value=st.floats(-100, 100), scale=st.floats(0, 1e4))
def test_finite_and_never_negative(value, scale):
    logits = scale * torch.linspace(-1, 1, 16).expand(1, 4, 16).clone().requires_grad_()
    loss = dfl_loss(logits, torch.full((1, 4), value))
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert (loss >= 0).all()
    assert grad.isfinite().all()


def test_no_rows_give_no_losses():
    assert dfl_loss(torch.zeros(0, 4, 16), torch.zeros(0, 4)).shape == (0,)
