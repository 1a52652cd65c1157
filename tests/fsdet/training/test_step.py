import json
import math
from dataclasses import replace

import jaxtyping
import pytest
import torch
from timm.utils.agc import adaptive_clip_grad
from torch.optim import AdamW
from trained_runs import STAGE_1, equal, steps, tensors

from fsdet.config import MODULES
from fsdet.data.sources import load_image_set
from fsdet.train import train
from fsdet.training.build import build_state
from fsdet.training.gradients import SCALES, gradient_shares
from fsdet.training.inputs import StepInput, inputs_of_step, next_inputs, step_batches
from fsdet.training.step import accumulate, forward, initial_norm, measure_reference
from fsdet.training.trainer import training_step

STAGE_SETS = {1: "train", 2: "train", 3: "shots"}


def lines(config, name: str = "steps.jsonl") -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.checkpoint_dir / name).read_text().splitlines()]


def gradients(run) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in run.detector.named_parameters() if p.grad is not None}


def test_adaptive_clipping_equals_timms_and_leaves_the_final_layer(
    small_config, train_set, monkeypatch
):
    config = small_config(gradient_clip_mode="agc", agc_clip_factor=0.01, n_query=2)
    run, other = (build_state(config, train_set, None) for _ in range(2))
    accumulate(other, next_inputs(other))
    final = {id(p) for p in other.detector.detection_head.final_parameters()}
    plain = gradients(other)
    adaptive_clip_grad([p for p in other.detector.parameters() if id(p) not in final], 0.01, 1e-3)
    expected = gradients(other)
    monkeypatch.setattr(AdamW, "step", lambda *_, **__: None)  # gradients stay as it gets them
    values, _ = training_step(run)
    assert all(torch.equal(g, expected[n]) for n, g in gradients(run).items())
    changed = {n for n in plain if not torch.equal(plain[n], expected[n])}
    assert "backbone.layers.0.conv.weight" in changed
    kept = ("box_out", "object_out", "embed_out", "prototype_out", "log_scale", "head.bias")
    assert [n for n in changed if any(name in n for name in kept)] == []
    total = math.sqrt(sum(float(g.square().sum()) for g in expected.values()))
    assert values["grad/norm_after"] == pytest.approx(total, rel=1e-4)
    assert values["grad/norm_after"] < values["grad/norm"]
    assert values["grad/clipped"] == 1


def test_a_tensor_that_starts_at_zero_moves_under_adaptive_clipping(small_config):
    config = small_config(gradient_clip_mode="agc", n_query=2, epochs=1, lr=1e-3)
    result = train(config)
    state = torch.load(result.checkpoint, weights_only=True)["detector"]
    assert state["detection_head.box_out.bias"].any()


@pytest.mark.parametrize(("mode", "norm"), [("none", 0.01), ("norm", 0)])
def test_without_clipping_the_optimiser_gets_the_gradient_as_it_is(
    small_config, train_set, mode, norm
):
    config = small_config(gradient_clip_mode=mode, gradient_clip_norm=norm)
    values, _ = training_step(build_state(config, train_set, None))
    assert values["grad/norm_after"] == values["grad/norm"]
    assert values["grad/clipped"] == 0


def test_a_gradient_scale_multiplies_one_module_before_norms_and_clipping(small_config, train_set):
    config = small_config(grad_scale_fusion=0.25, gradient_clip_mode="none")
    scaled, plain = (build_state(c, train_set, None) for c in (config, small_config()))
    for run in (scaled, plain):
        accumulate(run, next_inputs(run))
    wanted, found = gradients(plain), gradients(scaled)
    for name, grad in wanted.items():
        factor = 0.25 if name.startswith("scs_fusion.") else 1.0
        assert torch.equal(found[name], factor * grad), name
    assert initial_norm(scaled, 1) < initial_norm(plain, 1)
    values, _ = training_step(build_state(config, train_set, None))
    whole, _ = training_step(build_state(small_config(), train_set, None))
    ratio = values["grad/norm/scs_fusion"] / whole["grad/norm/scs_fusion"]
    assert ratio == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_terms_and_scales_sum_up_to_the_gradient_itself(small_config, stage):
    config = small_config(stage=stage, n_query=2, batch_size=1)
    run = build_state(config, load_image_set(config, STAGE_SETS[stage]), None)
    run.detector.train()
    losses, encoded = forward(run, StepInput(run.batches.source.batch(0, 2)))
    shared = run.detector.backbone.shared_weight
    shares = gradient_shares(losses, encoded.taps, shared)
    losses.total.backward(retain_graph=True)
    whole = shared.grad.clone()
    for term, loss in losses.weighted.items():
        (grad,) = torch.autograd.grad(loss, shared, retain_graph=True)
        torch.testing.assert_close(shares[f"grad/term/{term}"], grad.norm(), rtol=1e-3, atol=1e-5)
    scales = torch.stack([shares[f"grad/scale/{name}"] for name in SCALES])
    assert (scales > 0).all()
    expected = whole.norm() / scales.mean()
    torch.testing.assert_close(shares["grad/accumulation"], expected, rtol=1e-3, atol=1e-5)


def test_only_one_scale_sends_what_only_one_scale_is_asked_for(small_config, train_set):
    run = build_state(small_config(), train_set, None)
    losses, encoded = forward(run, StepInput(run.batches.source.batch(0, 1)))
    alone = replace(losses, weighted={"bbox": encoded.taps[2].square().mean()})
    shares = gradient_shares(alone, encoded.taps, run.detector.backbone.shared_weight)
    assert shares["grad/scale/P4"] == shares["grad/term/bbox"] > 0
    assert [float(shares[f"grad/scale/{name}"]) for name in ("P2", "P3", "P5")] == [0, 0, 0]
    assert shares["grad/accumulation"] == pytest.approx(4)


def test_measuring_the_shares_changes_nothing_else(small_config):
    rows = []
    for name, interval in (("with", 2), ("without", None)):
        config = small_config(share_interval=interval)
        config = config.model_copy(update={"checkpoint_dir": config.checkpoint_dir / name})
        train(config)
        rows.append(lines(config))
    measured = [{k for k in row if "grad/term" in k or "grad/scale" in k} for row in rows[0]]
    assert [bool(keys) for keys in measured] == [True, False, True, False]
    assert sum(rows[0][0][f"grad/share/{t}"] for t in ("bbox", "cls", "dfl", "supcon")) == (
        pytest.approx(1)
    )
    extra = ("grad/term", "grad/scale", "grad/share", "grad/accumulation")
    plain = [{k: v for k, v in row.items() if not k.startswith(extra)} for row in rows[0]]
    assert plain == rows[1]


def test_a_frozen_encoder_encodes_each_crop_once_and_the_numbers_stay(small_config, train_set):
    config = small_config(support_encoder_lr_mult=0, n_query=2, epochs=3)
    cached, fresh = (build_state(config, train_set, None) for _ in range(2))
    fresh.frozen_features = None
    encoded: list[int] = []
    cached.detector.support_encoder.trunk.register_forward_pre_hook(
        lambda _, crops: encoded.append(len(crops[0]))
    )
    for _ in range(4):
        values, others = training_step(cached)[0], training_step(fresh)[0]
        assert values.keys() == others.keys()
        for key, value in values.items():
            assert value == pytest.approx(others[key], rel=1e-3, abs=1e-5), key
    ids = [cached.batches.source.batch(2 * n, 2).support_ids for n in range(4)]
    classes = torch.stack(ids).div(train_set.supports.shape[1], rounding_mode="floor").unique()
    assert len(encoded) == len(classes)
    encoder = cached.detector.support_encoder
    assert not any(p.grad is not None for p in encoder.trunk.parameters())
    assert encoder.project.weight.grad.any()  # it may be a fresh one


def test_the_moving_average_is_evaluated_saved_and_resumed(small_config, tmp_path):
    config = small_config(ema_decay=0.9, epochs=2, lr=1e-2, n_query=2)
    result = train(config)
    state = torch.load(result.checkpoint, weights_only=True)
    name = "scs_fusion.none_token"
    assert not torch.equal(state["ema"][name], state["detector"][name])
    run = build_state(config, load_image_set(config, "train"), result.checkpoint)
    assert torch.equal(run.eval_detector.state_dict()[name], state["ema"][name])
    assert torch.equal(run.detector.state_dict()[name], state["detector"][name])
    later = small_config(resume=result.checkpoint, stage=3)
    begun = build_state(later, load_image_set(later, "shots"), None)
    assert torch.equal(begun.detector.state_dict()[name], state["ema"][name])


def test_the_average_follows_its_formula(small_config, train_set):
    run = build_state(small_config(ema_decay=0.5, lr=1e-2), train_set, None)
    expected = None
    for _ in range(3):
        training_step(run)
        weight = run.detector.scs_fusion.none_token.detach().clone()
        decay = run.ema.get_decay(run.step)
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    torch.testing.assert_close(run.eval_detector.scs_fusion.none_token.detach(), expected)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_trainable_tensor_of_every_stage_gets_a_gradient(small_config, stage):
    config = small_config(stage=stage, n_query=2, n_way=3, batch_size=4, n_episodes=8)
    run = build_state(config, load_image_set(config, STAGE_SETS[stage]), None)
    for _ in range(2):
        training_step(run)
    peaks = run.gradient_peaks()
    assert [name for name, peak in peaks.items() if peak == 0] == []
    assert len(peaks) > (150 if stage == 1 else 180)
    assert {name.split(".")[0] for name in peaks} >= set(MODULES)


def test_stage_3_learns_from_the_shots_and_reports_its_triplet_loss(small_config, base_run):
    config = small_config(stage=3, resume=base_run.checkpoint, n_query=2)
    result = train(config)
    assert result.steps == config.total_steps
    assert all(math.isfinite(row["train/loss/triplet"]) for row in lines(config))
    assert any(row["train/loss/triplet"] > 0 for row in lines(config))
    assert "val/nAP50" in result.metrics


def test_every_evaluation_stands_in_a_file(small_config):
    config = small_config()
    result = train(config)
    rows = lines(config, "evaluations.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 2]
    assert [row.get("best_epoch") for row in rows] == [None, None, result.best_epoch]
    assert {k: rows[-1][k] for k in result.metrics} == result.metrics
    assert all(row["memory"] > 1e7 for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(
    3600
)  # compiles for half a minute on a free machine, ten times that beside other work
def test_a_compiled_detector_gives_the_same_numbers(small_config, train_set, monkeypatch):
    # what is compiled is the plain detector, without the checks of the tests
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    compiled, plain = (
        build_state(small_config(compile=c, n_query=2), train_set, None) for c in (True, False)
    )
    for _ in range(2):
        values, others = training_step(compiled)[0], training_step(plain)[0]
        for key in ("train/loss/total", "grad/norm", "grad/term/dfl", "grad/scale/P2"):
            if key in others:
                assert values[key] == pytest.approx(others[key], rel=1e-2), key
    assert compiled.detector.state_dict().keys() == plain.detector.state_dict().keys()


def test_shares_and_totals_of_a_step_add_up(base_run):
    for step in steps(base_run):
        weighted = [v for k, v in step.items() if k.startswith("train/weighted/")]
        assert len(weighted) == 4
        assert sum(weighted) == pytest.approx(step["train/loss/total"], rel=1e-5)
        shares = [v for k, v in step.items() if k.startswith("train/share/")]
        assert sum(shares) == pytest.approx(1, rel=1e-5)
        modules = [step[f"grad/norm/{name}"] for name in MODULES]
        assert math.hypot(*modules) == pytest.approx(step["grad/norm"], rel=1e-5)
        assert all(norm > 0 for norm in modules)


def test_the_norm_is_that_of_the_gradients_before_clipping(small_config, base_run, train_set):
    config = small_config(resume=base_run.checkpoint, gradient_clip_norm=0.01, epochs=1)
    run = build_state(config, train_set, None)
    accumulate(run, next_inputs(run))
    grads = [p.grad for p in run.detector.parameters() if p.grad is not None]
    expected = float(torch.nn.utils.get_total_norm(grads))
    first = steps(train(config))[0]
    assert first["grad/norm"] == pytest.approx(expected, rel=1e-5)
    assert first["grad/clipped"] == 1
    assert expected > 0.01


def test_the_batch_size_is_the_number_of_episodes_in_a_forward_pass(small_config, train_set):
    for batch_size in (1, 2, 3):
        run = build_state(small_config(batch_size=batch_size, n_query=2), train_set, None)
        seen = []
        run.detector.backbone.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(len(args[0]))
        )
        accumulate(run, next_inputs(run))
        assert seen == [batch_size * 2 * 2]


def test_gradients_of_accumulated_batches_are_their_mean(small_config, train_set):
    run = build_state(small_config(batch_size=1, gradient_accumulation=2), train_set, None)
    accumulate(run, next_inputs(run))
    together = {n: p.grad.clone() for n, p in run.detector.named_parameters() if p.grad is not None}
    assert step_batches(run.config, 0) == [(0, 1), (1, 1)]
    alone = build_state(small_config(batch_size=1), train_set, None)
    total: dict[str, torch.Tensor] = {}
    for index in range(2):
        accumulate(alone, inputs_of_step(alone, index))
        for name, parameter in alone.detector.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, 0) + parameter.grad / 2
    assert together.keys() == total.keys()
    for name in together:
        torch.testing.assert_close(together[name], total[name], rtol=1e-3, atol=1e-5)


def test_every_episode_of_an_epoch_is_used_once(small_config):
    config = small_config(n_episodes=11, batch_size=2, gradient_accumulation=3)
    dealt = [
        episode
        for step in range(2 * config.steps_per_epoch)
        for first, count in step_batches(config, step)
        for episode in range(first, first + count)
    ]
    assert dealt == list(range(22))


def test_a_frozen_module_does_not_move(small_config, train_set):
    config = small_config(epochs=1, n_query=2, backbone_lr_mult=0)
    before = build_state(config, train_set, None).detector.state_dict()
    result = train(config)
    after = torch.load(result.checkpoint, weights_only=True)["detector"]
    frozen = [n for n in before if n.startswith("backbone")]  # running statistics too
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["scs_fusion.none_token"], after["scs_fusion.none_token"])
    assert {step["grad/norm/backbone"] for step in steps(result)} == {0}


@pytest.mark.parametrize("stage", [1, 2])
def test_the_own_norm_is_measured_without_a_trace(small_config, train_set, stage):
    """Weights, running statistics, random numbers and all later steps stay the same bit for bit."""
    settings = {"stage": stage, "n_query": 2, "bbox_loss": "wiou_v3", "share_interval": 1}
    measured, plain = (build_state(small_config(**settings), train_set, None) for _ in range(2))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    norm = initial_norm(measured, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert 1 < norm < 1e4
    one, other = tensors(measured.state_dict()), tensors(plain.state_dict())
    assert [key for key in one if "rng" not in key and not equal(one[key], other[key])] == []
    for _ in range(3):
        assert training_step(measured)[0] == training_step(plain)[0]
    one, other = tensors(measured.state_dict()), tensors(plain.state_dict())
    assert [key for key in one if not equal(one[key], other[key])] == []


def test_the_own_norm_is_that_of_the_first_batches_before_any_update(small_config, train_set):
    config = small_config(n_query=2, lr=1e-20)
    run, frozen = (build_state(config, train_set, None) for _ in range(2))
    norms = [training_step(frozen)[0]["grad/norm"] for _ in range(3)]
    assert initial_norm(run, 3) == pytest.approx(max(norms), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"lr": 1.0}, True),
        ({"fusion_lr_mult": 50.0, "gradient_clip_norm": 0.1, "weight_decay": 0.5}, True),
        ({"cls_weight": 5.0}, False),
        ({"image_size": 96}, False),
        ({"batch_size": 4}, False),
    ],
    ids=str,
)
def test_the_reference_depends_on_the_losses_and_the_data_but_on_no_rate(
    small_config, settings, same
):
    found = []
    for changes in ({}, settings):
        config = small_config(resume=STAGE_1, support_size=48, n_query=2, **changes)
        run = build_state(config, load_image_set(config, "train"), None)
        measure_reference(run)
        found.append(run.stability.reference)
    assert (found[0] == found[1]) is same


def test_a_reference_that_is_given_is_not_measured(small_config):
    config = small_config(explosion_reference=5.0)
    result = train(config)
    assert torch.load(result.checkpoint, weights_only=True)["stability"]["reference"] == 5.0
    assert (
        "before the first update" not in (config.checkpoint_dir / "training_debug.log").read_text()
    )
