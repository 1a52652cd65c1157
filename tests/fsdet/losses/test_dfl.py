import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.utils.loss import DFLoss

from fsdet.losses.dfl import dfl_loss
from fsdet.models.head import decode_ltrb


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
