import copy
import math

import pytest
import torch
from torch import nn

from fsdet.training.gradients import GradientMonitor, UpdateRatio


def with_gradients(scale: float = 1.0) -> dict[str, list[nn.Parameter]]:
    """Three modules; `a` has a tensor without gradient, `empty` has no tensors."""
    generator = torch.Generator().manual_seed(0)

    def parameter(*shape: int, grad: bool = True) -> nn.Parameter:
        p = nn.Parameter(torch.randn(shape, generator=generator))
        p.grad = scale * torch.randn(shape, generator=generator) if grad else None
        return p

    return {
        "a": [parameter(4, 3), parameter(7, grad=False), parameter()],
        "empty": [],
        "b": [parameter(2, 5, 2)],
    }


def grads(parameters: dict[str, list[nn.Parameter]], *names: str) -> list[torch.Tensor]:
    return [p.grad for name in names for p in parameters[name] if p.grad is not None]


def test_norms_equal_torch_in_total_and_per_module():
    parameters = with_gradients()
    norms = GradientMonitor(parameters).measure()
    total_norm = torch.nn.utils.get_total_norm
    expected = [total_norm(grads(parameters, *names)) for names in ("ab", "a", "b")]
    assert norms.dtype == torch.float32
    torch.testing.assert_close(norms[[0, 1, 3]], torch.stack(expected))
    assert norms[2] == 0


def test_no_gradients_at_all_is_a_norm_of_zero():
    monitor = GradientMonitor({"a": [nn.Parameter(torch.ones(3))], "b": []})
    assert monitor.measure().tolist() == [0, 0, 0]
    monitor.clip_(monitor.measure()[0], 1.0)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_norms_neither_overflow_nor_vanish(scale):
    expected = GradientMonitor(with_gradients()).measure()
    norms = GradientMonitor(with_gradients(scale)).measure()
    torch.testing.assert_close(norms / scale, expected)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_value_that_is_not_finite_shows_in_its_module_and_the_total(bad):
    parameters = with_gradients()
    parameters["b"][0].grad[0, 0, 0] = bad
    finite = GradientMonitor(parameters).measure().isfinite().tolist()
    assert finite == [False, True, True, False]


def test_half_precision_gradients_are_measured_in_single_precision():
    p = nn.Parameter(torch.ones(100, dtype=torch.float16))
    p.grad = torch.full((100,), 3e4, dtype=torch.float16)
    torch.testing.assert_close(
        GradientMonitor({"a": [p]}).measure(), torch.full((2,), 10 * p.grad[0].item())
    )


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 1e6])
def test_clipping_equals_torch(max_norm):
    ours = with_gradients()
    theirs = copy.deepcopy(ours)
    for name in ours:
        for p, q in zip(ours[name], theirs[name], strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
    monitor = GradientMonitor(ours)
    norm = monitor.measure()[0]
    monitor.clip_(norm, max_norm)
    reported = torch.nn.utils.clip_grad_norm_([p for ps in theirs.values() for p in ps], max_norm)
    torch.testing.assert_close(norm, reported)
    for p, q in zip(grads(ours, "a", "b"), grads(theirs, "a", "b"), strict=True):
        torch.testing.assert_close(p, q)
    assert monitor.measure()[0] <= max_norm * (1 + 1e-5)


def test_clipping_at_zero_is_off():
    parameters = with_gradients()
    before = [g.clone() for g in grads(parameters, "a", "b")]
    monitor = GradientMonitor(parameters)
    monitor.clip_(monitor.measure()[0], 0.0)
    assert all(g.equal(b) for g, b in zip(grads(parameters, "a", "b"), before, strict=True))


def test_gradients_replaced_between_steps_are_seen():
    parameters = with_gradients()
    monitor = GradientMonitor(parameters)
    for p in parameters["b"]:
        p.grad = None
    parameters["a"][1].grad = torch.full((7,), 2.0)
    expected = torch.nn.utils.get_total_norm(grads(parameters, "a"))
    norms = monitor.measure()
    torch.testing.assert_close(norms[0], expected)
    assert norms[3] == 0


def test_update_ratio_is_the_change_over_the_weights():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    bias = nn.Parameter(torch.tensor([12.0]))
    still = nn.Parameter(torch.ones(2))
    updates = UpdateRatio({"moved": [weight, bias], "frozen": [], "still": [still]})
    updates.before()
    with torch.no_grad():
        weight += torch.tensor([0.3, 0.0])
        bias += 0.4
    torch.testing.assert_close(updates.after(), torch.tensor([0.5 / 13, 0.0, 0.0]))


def test_update_ratio_of_zero_weights_is_finite_and_of_broken_ones_is_not():
    zero, broken = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))
    updates = UpdateRatio({"zero": [zero], "broken": [broken]})
    updates.before()
    with torch.no_grad():
        broken[0] = math.nan
    ratios = updates.after()
    assert ratios[0] == 0
    assert ratios[1].isnan()


def test_update_ratio_needs_its_snapshot():
    with pytest.raises(RuntimeError, match="before"):
        UpdateRatio({"a": [nn.Parameter(torch.ones(1))]}).after()


@pytest.mark.gpu
def test_nothing_waits_for_the_device():
    parameters = {"a": [nn.Parameter(torch.ones(5, device="cuda")) for _ in range(3)], "frozen": []}
    parameters["a"][0].grad = torch.ones(5, device="cuda")
    monitor, updates = GradientMonitor(parameters), UpdateRatio(parameters)
    torch.cuda.set_sync_debug_mode("error")
    try:
        updates.before()
        monitor.clip_(monitor.measure()[0], 1.0)
        updates.after()
    finally:
        torch.cuda.set_sync_debug_mode("default")
