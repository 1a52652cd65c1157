import math

import numpy as np
import torch

from fsdet.losses.criterion import NO_CLASS, base_class_loss, bce_loss


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


def test_base_class_loss_leaves_out_what_has_no_class():
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([2, NO_CLASS, 0, NO_CLASS])
    loss, expected = base_class_loss(logits, labels), base_class_loss(logits[::2], labels[::2])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not logits.grad[1::2].any()
