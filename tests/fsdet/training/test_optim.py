import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fsdet.config import MODULES, OptimConfig, TrainConfig
from fsdet.models.detector import build_detector
from fsdet.training.optim import build_optimizer, build_scheduler, lr_factor


def modules() -> dict[str, list[nn.Parameter]]:
    return {name: [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))] for name in MODULES}


def test_the_warm_up_is_a_straight_line_to_one():
    factors = [lr_factor(step, 10, 100, 0.01) for step in range(11)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1


def test_the_cosine_falls_to_its_end():
    factors = [lr_factor(step, 10, 110, 0.2) for step in range(10, 111)]
    assert factors == sorted(factors, reverse=True)
    assert factors[50] == pytest.approx(0.6)
    assert factors[-1] == pytest.approx(0.2)
    assert lr_factor(1000, 10, 110, 0.2) == pytest.approx(0.2)


def test_it_equals_the_cosine_of_torch_behind_the_warm_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.01)
    for step in range(40):
        assert lr_factor(step, 0, 40, 0.01) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


@given(st.integers(0, 300), st.integers(1, 200), st.floats(0, 0.99), st.floats(0, 1))
def test_a_factor_lies_between_nothing_and_one(step, total, fraction, final):
    factor = lr_factor(step, round(fraction * total), total, final)
    assert 0 <= factor <= 1 + 1e-12
    assert math.isfinite(factor)


def test_a_final_fraction_of_one_keeps_the_rate():
    assert {lr_factor(step, 0, 50, 1.0) for step in range(50)} == {1.0}


def test_groups_keep_their_multipliers_at_every_step():
    config = OptimConfig(
        lr=0.1,
        backbone_lr_mult=0.5,
        support_encoder_lr_mult=0.1,
        fusion_lr_mult=2.0,
        head_lr_mult=3.0,
    )
    optimizer = build_optimizer(modules(), config)
    scheduler = build_scheduler(optimizer, config, total_steps=40)
    for step in range(41):
        factor = lr_factor(step, 2, 40, config.final_lr_fraction)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(0.1 * config.lr_mults[group["name"]] * factor)
        optimizer.step()
        scheduler.step()


def test_groups_are_the_modules_with_their_tensors():
    parameters = modules() | {"backbone": []}
    optimizer = build_optimizer(parameters, OptimConfig(weight_decay=0.3))
    assert [group["name"] for group in optimizer.param_groups] == list(MODULES[1:])
    for group in optimizer.param_groups:
        assert [id(p) for p in group["params"]] == [id(p) for p in parameters[group["name"]]]


def test_only_matrices_and_kernels_decay():
    detector = build_detector(TrainConfig())
    parameters = detector.parameters_by_module()
    optimizer = build_optimizer(parameters, OptimConfig(weight_decay=0.3))
    names = {id(p): name for name, p in detector.named_parameters()}
    decayed = {
        names[id(p)]: group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert decayed.keys() == set(names.values())
    for name, decay in decayed.items():
        wide = detector.get_parameter(name).ndim > 1
        assert decay == (0.3 if wide else 0.0), name
    assert {group["name"] for group in optimizer.param_groups} == set(MODULES)


def test_a_gain_without_gradient_keeps_its_value():
    """Decay alone would pull it to zero."""
    gain, kernel = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4, 4))
    parameters = {name: [] for name in MODULES} | {"backbone": [gain, kernel]}
    optimizer = build_optimizer(parameters, OptimConfig(lr=0.1, weight_decay=0.5))
    for tensor in (gain, kernel):
        tensor.grad = torch.zeros_like(tensor)
    optimizer.step()
    assert torch.equal(gain, torch.ones(4))
    assert (kernel < 1).all()


def test_a_schedule_that_goes_on_has_the_rates_of_one_never_left():
    config = OptimConfig()
    whole = build_optimizer(modules(), config)
    scheduler = build_scheduler(whole, config, 30)
    for _ in range(17):
        whole.step()
        scheduler.step()
    late = build_optimizer(modules(), config)
    build_scheduler(late, config, 30)
    late.load_state_dict(whole.state_dict())
    resumed = build_scheduler(late, config, 30, last_epoch=16)
    assert resumed.last_epoch == 17
    rates = [[group["lr"] for group in o.param_groups] for o in (whole, late)]
    assert rates[1] == pytest.approx(rates[0])


def test_sgd_is_heavy_ball_momentum_with_the_same_groups():
    config = OptimConfig(optimizer="sgd", lr=0.1, weight_decay=0.5)
    parameters = {name: [] for name in MODULES} | {"backbone": [nn.Parameter(torch.ones(2, 2))]}
    optimizer = build_optimizer(parameters, config)
    (weight,) = parameters["backbone"]
    expected, momentum = torch.ones(2, 2), torch.zeros(2, 2)
    for grad in (1.0, -3.0, 2.0):
        weight.grad = torch.full((2, 2), grad)
        optimizer.step()
        momentum = 0.9 * momentum + grad + 0.5 * expected
        expected = expected - 0.1 * 0.5 * momentum
        torch.testing.assert_close(weight.detach(), expected)
    adamw = build_optimizer(modules(), OptimConfig())
    sgd = build_optimizer(modules(), OptimConfig(optimizer="sgd"))
    keys = ("name", "lr", "weight_decay")
    groups = [[{key: g[key] for key in keys} for g in o.param_groups] for o in (adamw, sgd)]
    assert groups[0] == groups[1]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_first_step_that_a_scaler_skips_leaves_no_trace(name):
    """Each fused kernel is told on the device; SGD's would leave a momentum that was never set."""
    config = OptimConfig(optimizer=name, lr=0.1)
    weights = []
    for grads in ([math.inf, 2.0, -1.0], [2.0, -1.0]):
        parameters = {m: [] for m in MODULES} | {"backbone": [nn.Parameter(torch.ones(3, 3))]}
        (weight,) = parameters["backbone"]
        optimizer = build_optimizer(parameters, config)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for grad in grads:
            weight.grad = torch.full((3, 3), grad) * scaler.get_scale()
            scaler.scale(torch.ones(()))  # as a backward pass does
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            assert weight.isfinite().all()
        weights.append(weight.detach())
    assert torch.equal(*weights)
