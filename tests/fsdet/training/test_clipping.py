"""Each clip mode against the formula of its paper, in double precision and without the code under test."""

import math
from collections.abc import Callable, Iterator
from inspect import signature

import pytest
import torch
from timm.optim.adamw import AdamWLegacy
from torch import nn

from fsdet.config import MODULES, TrainConfig
from fsdet.training.build import build_state
from fsdet.training.clipping import Clipped, Clipping, build_clipping
from fsdet.training.gradients import GradientMonitor
from fsdet.training.optim import build_optimizer, update_rms
from fsdet.training.trainer import training_step

SHAPES = ((4, 3), (7,), (), (2, 5, 2))


class Model:
    """Some tensors, an optimiser and a clip mode, stepped with given gradients."""

    def __init__(self, device: str = "cpu", **settings: object) -> None:
        config = TrainConfig(**{"lr": 0.01, "weight_decay": 0.1, **settings})
        generator = torch.Generator().manual_seed(0)
        self.weights = [
            nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in SHAPES
        ]
        self.start = [p.detach().double().clone() for p in self.weights]
        modules = {name: [] for name in MODULES} | {"scs_fusion": self.weights}
        self.optimizer = build_optimizer(modules, config)
        self.gradients = GradientMonitor(modules)
        self.clipping: Clipping = build_clipping(
            config, self.gradients, self.optimizer, self.weights
        )

    def step(self, grads: list[torch.Tensor]) -> Clipped:
        for p, grad in zip(self.weights, grads, strict=True):
            p.grad = grad.clone()
        clipped = self.clipping.clip_(self.gradients.measure()[0])
        with self.clipping.limited_update():
            self.optimizer.step()
        return clipped


def stream(count: int, spikes: dict[int, float], device: str = "cpu") -> Iterator[list]:
    """Gradients of `count` steps, those of some steps multiplied."""
    generator = torch.Generator().manual_seed(1)
    for step in range(count):
        factor = spikes.get(step, 1.0)
        yield [factor * torch.randn(s, generator=generator).to(device) for s in SHAPES]


def norm_of(grads: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(g.double().square().sum()) for g in grads))


SPIKES = {12: 30.0, 13: 5.0, 31: 100.0}


@pytest.mark.parametrize("limit", [1.0, 2.5])
def test_update_clipping_is_stable_adamw(limit):
    """Algorithm 2 of Wortsman et al. 2023, with bias-corrected betas; its d is `limit`."""
    model = Model(gradient_clip_mode="update", update_clip_rms=limit)
    weights, m, v = model.start, *([torch.zeros(s).double() for s in SHAPES] for _ in range(2))
    lr, limited = 0.01 * 2.0, 0
    for t, grads in enumerate(stream(40, SPIKES), 1):
        clipped = model.step(grads)
        beta1, beta2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (0.9, 0.999))
        factors = []
        for i, g in enumerate(g.double() for g in grads):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            rms = (g**2 / v[i].clamp(min=1e-16)).mean().sqrt()
            factors.append(1 / max(1.0, float(rms) / limit))
            rate = lr * factors[-1]
            decay = 0.1 if g.ndim > 1 else 0.0
            weights[i] = weights[i] * (1 - rate * decay) - rate * m[i] / (v[i].sqrt() + 1e-8)
        scaled = norm_of([f * g for f, g in zip(factors, grads, strict=True)])
        assert float(clipped.norm) == pytest.approx(scaled, rel=1e-5)
        if all(abs(f - 1) > 1e-5 or f == 1 for f in factors):
            assert float(clipped.share) == sum(f < 1 for f in factors) / len(factors)
        limited += min(factors) < 0.9
    assert limited >= 2
    for p, expected in zip(model.weights, weights, strict=True):
        torch.testing.assert_close(p.detach().double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [1.0, 2.5])
def test_update_clipping_is_that_of_timm(limit):
    """Without weight decay, which timm's optimiser leaves unclipped."""
    if "clipping_threshold" not in signature(AdamWLegacy).parameters:
        pytest.skip("this timm has no StableAdamW")
    model = Model(gradient_clip_mode="update", update_clip_rms=limit, weight_decay=0.0)
    weights = [nn.Parameter(p.detach().clone()) for p in model.weights]
    theirs = AdamWLegacy(weights, lr=0.02, weight_decay=0.0, clipping_threshold=limit)
    limited = 0
    for grads in stream(40, SPIKES):
        limited += float(model.step(grads).share) > 0
        for p, grad in zip(weights, grads, strict=True):
            p.grad = grad.clone()
        theirs.step()
    assert 0 < limited < 40 or limit == 1
    for ours, other in zip(model.weights, weights, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)


def test_update_clipping_without_a_spike_is_adamw():
    """A limit that nothing reaches leaves AdamW bit for bit."""
    limited, plain = (Model(gradient_clip_mode=m, update_clip_rms=99) for m in ("update", "none"))
    for grads in stream(30, SPIKES):
        clipped = limited.step(grads)
        plain.step(grads)
        assert float(clipped.share) == 0
    for p, q in zip(limited.weights, plain.weights, strict=True):
        assert torch.equal(p, q)


def test_a_norm_clip_that_always_clips_is_inert_and_update_clipping_is_not():
    """The spike moves AdamW under any constant factor; behind AdamW it is cut."""

    def moved(**settings: object) -> float:
        model = Model(**settings)
        for grads in stream(30, {}):
            model.step(grads)
        before = model.weights[0].detach().clone()
        model.step([50 * g for g in next(stream(1, {}))])
        return float((model.weights[0].detach() - before).norm())

    loose, tight = (moved(gradient_clip_mode="norm", gradient_clip_norm=c) for c in (1e-2, 1e-3))
    assert loose == pytest.approx(tight, rel=1e-3)
    none, update = (moved(gradient_clip_mode=mode) for mode in ("none", "update"))
    assert update < 0.3 * none


def zclip(norms: list[float], z: float, decay: float, warmup: int) -> Iterator[float]:
    """Norms after ZClip, by its authors' algorithm: the first ones in a list, then running statistics."""
    first: list[float] = []
    mean = variance = 0.0
    for norm in norms:
        if len(first) < warmup:
            first.append(norm)
            mean = sum(first) / len(first)
            variance = sum((x - mean) ** 2 for x in first) / len(first)
            yield norm
            continue
        deviation = math.sqrt(variance)
        score = (norm - mean) / (deviation + 1e-6)
        after = mean + z * deviation / (score / z) if score > z else norm
        mean = decay * mean + (1 - decay) * after
        variance = decay * variance + (1 - decay) * (after - mean) ** 2
        yield after


@pytest.mark.parametrize(("z", "decay", "warmup"), [(2.5, 0.97, 25), (1.0, 0.8, 5)])
def test_zclip_is_its_formula(z, decay, warmup):
    settings = {"zclip_z": z, "zclip_decay": decay, "zclip_warmup": warmup}
    model = Model(gradient_clip_mode="zclip", **settings)
    every = list(stream(60, SPIKES))
    expected = list(zclip([norm_of(grads) for grads in every], z, decay, warmup))
    for grads, after in zip(every, expected, strict=True):
        assert float(model.step(grads).norm) == pytest.approx(after, rel=1e-4)
        assert norm_of([p.grad for p in model.weights]) == pytest.approx(after, rel=1e-4)
    assert expected[31] < 0.1 * norm_of(every[31])


def adagc(
    every: list[list[torch.Tensor]], factor: float, decay: float, warmup: int, limit: float
) -> Iterator[list[torch.Tensor]]:
    """Gradients after AdaGC, algorithm 1 of Wang et al. 2025."""
    gamma = [math.inf] * len(SHAPES)
    for t, grads in enumerate(every):
        norms = [float(g.double().norm()) for g in grads]
        if t < warmup:
            h = [min(1.0, limit / norm_of(grads))] * len(grads)
            gamma = [min(c, f * n) for c, f, n in zip(gamma, h, norms, strict=True)]
        else:
            h = [min(1.0, factor * c / n) for c, n in zip(gamma, norms, strict=True)]
            after = zip(gamma, h, norms, strict=True)
            gamma = [decay * c + (1 - decay) * f * n for c, f, n in after]
        yield [f * g for f, g in zip(h, grads, strict=True)]


@pytest.mark.parametrize(("factor", "decay", "warmup"), [(1.05, 0.98, 20), (2.0, 0.5, 3)])
def test_adagc_is_its_formula(factor, decay, warmup):
    settings = {"adagc_factor": factor, "adagc_decay": decay, "adagc_warmup": warmup}
    model = Model(gradient_clip_mode="adagc", gradient_clip_norm=6.0, **settings)
    every = list(stream(60, SPIKES))
    for grads, expected in zip(every, adagc(every, factor, decay, warmup, 6.0), strict=True):
        clipped = model.step(grads)
        assert float(clipped.norm) == pytest.approx(norm_of(expected), rel=1e-4)
        for p, g in zip(model.weights, expected, strict=True):
            torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)


def test_a_tensor_without_gradient_for_a_step_learns_later_under_adagc():
    """By the letter of the paper its running mean would be zero for ever."""
    model = Model(gradient_clip_mode="adagc", adagc_warmup=3)
    for step, grads in enumerate(stream(10, {})):
        if step in (0, 2, 5):
            grads[1].zero_()
        model.step(grads)
    assert float(model.weights[1].grad.norm()) > 0.1


def test_a_tensor_whose_first_gradient_comes_late_is_clipped_from_then_on():
    model = Model(gradient_clip_mode="adagc", adagc_warmup=3)
    for step, grads in enumerate(stream(8, {7: 50.0})):
        grads[3] *= step > 4
        model.step(grads)
    assert float(model.weights[3].grad.norm()) < 0.1 * float(grads[3].norm())


STATEFUL = {
    "zclip": {"zclip_warmup": 4},
    "adagc": {"adagc_warmup": 4},
}


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("mode", STATEFUL)
@pytest.mark.parametrize("at", [1, 8])
def test_a_gradient_that_is_not_finite_is_not_remembered(mode, bad, at):
    model, clean = (Model(gradient_clip_mode=mode, **STATEFUL[mode]) for _ in range(2))
    for step, grads in enumerate(stream(12, {})):
        if step == at:
            model.clipping.clip_(broken(model, grads, bad))
        model.step(grads)
        clean.step(grads)
    one, other = model.clipping.state_dict(), clean.clipping.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in other)
    assert len(other) >= 2


def broken(model: Model, grads: list[torch.Tensor], bad: float) -> torch.Tensor:
    """Put a gradient with one value that is not finite into the model; its norm."""
    for p, grad in zip(model.weights, grads, strict=True):
        p.grad = grad.clone()
    model.weights[0].grad[0, 0] = bad
    return model.gradients.measure()[0]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_skipped_step_stays_skipped_under_update_clipping(bad):
    """A loss scaler skips a step that is not finite; the weights must not become NaN behind it."""
    model = Model(gradient_clip_mode="update")
    for grads in stream(3, {}):
        model.step(grads)
    before = [p.detach().clone() for p in model.weights]
    model.clipping.clip_(broken(model, grads, bad))
    with model.clipping.limited_update():
        pass
    assert all(torch.equal(p, b) for p, b in zip(model.weights, before, strict=True))


def test_the_rms_of_the_first_step_is_one_and_of_a_spike_its_square_root():
    model = Model(gradient_clip_mode="none")
    grads = next(stream(1, {}))
    for p, grad in zip(model.weights, grads, strict=True):
        p.grad = grad.clone()
    model.weights[1].grad = None
    rms = update_rms(model.optimizer, model.weights)
    torch.testing.assert_close(rms, torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert not model.optimizer.state  # which an access would create
    for _ in range(99):
        model.step(grads)
    for p in model.weights:
        p.grad = 1e6 * p.grad
    spike = math.sqrt((1 - 0.999**100) / 0.001)  # 9.76
    torch.testing.assert_close(
        update_rms(model.optimizer, model.weights), torch.full((4,), spike), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("mode", ["norm", "agc", "none", "update", "zclip", "adagc"])
def test_every_mode_trains_and_says_what_it_did(small_config, train_set, mode):
    settings = {"zclip_warmup": 2, "zclip_z": 1e-3, "adagc_warmup": 1, "gradient_clip_norm": 1e6}
    run = build_state(small_config(gradient_clip_mode=mode, lr=1e-2, **settings), train_set, None)
    rows = [training_step(run)[0] for _ in range(4)]
    if mode == "zclip":
        run.clipping.mean.zero_()  # so that the next norm is a spike
    rows.append(training_step(run)[0])
    for row in rows:
        assert 0 <= row["grad/clipped"] <= 1
        assert row["grad/norm_after"] <= row["grad/norm"] * (1 + 1e-5)
        assert row["grad/rms"] > 0
    some = [row["grad/clipped"] > 0 for row in rows]
    assert any(some) is (mode not in ("norm", "none"))
    parts = [0 < row["grad/clipped"] < 1 for row in rows]
    assert any(parts) is (mode in ("update", "adagc"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["norm", "none", "update", "zclip", "adagc"])
def test_no_mode_waits_for_the_device(mode):
    settings = {"zclip_warmup": 2, "adagc_warmup": 2}
    model = Model("cuda", gradient_clip_mode=mode, **settings)
    every = list(stream(6, {4: 50.0}, "cuda"))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for grads in every:
            model.step(grads)
            update_rms(model.optimizer, model.weights).max()
    finally:
        torch.cuda.set_sync_debug_mode("default")


Build = Callable[..., TrainConfig]


def test_update_clipping_needs_adamw():
    with pytest.raises(ValueError, match="gradient_clip_mode update needs optimizer adamw"):
        TrainConfig(gradient_clip_mode="update", optimizer="sgd")


def test_settings_of_another_mode_have_no_effect(small_config, train_set):
    others = {"update_clip_rms": 0.01, "zclip_z": 0.01, "adagc_factor": 0.01}
    runs = [build_state(small_config(**some), train_set, None) for some in ({}, others)]
    assert training_step(runs[0])[0] == training_step(runs[1])[0]
