import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import (
    EXPLOSION,
    GOOD_EVALUATIONS,
    PEAKS,
    changed,
    evaluation,
    report,
    status,
    step,
    steps,
    wobble,
)

from fsdet.config import MODULES, HealthConfig, TrainConfig
from fsdet.health.checklist import (
    health_of_run,
    load_evaluations,
)
from fsdet.train import train
from fsdet.training.build import build_state
from fsdet.training.inputs import next_inputs
from fsdet.training.step import accumulate


@pytest.mark.parametrize("name", ["gradient_norm", "total", "bbox", "cls", "dfl", "supcon"])
def test_a_figure_in_its_band_passes_above_it_warns_and_below_it_passes(name):
    key = "grad__norm" if name == "gradient_norm" else f"train__loss__{name}"
    setting = "health_norm" if name == "gradient_norm" else f"health_{name}"
    low, high = getattr(TrainConfig(), setting)
    inside = report(steps(**{key: (low + high) / 2})).check(name)
    above = report(steps(**{key: high * 1.01})).check(name)
    below = report(steps(**{key: low * 0.5})).check(name)
    assert (inside.status, above.status, below.status) == ("pass", "warn", "pass")
    assert below.message == "below the band, which is fine"
    assert above.message.startswith("above the band: ")
    assert inside.band == (low, high)
    assert inside.value == pytest.approx((low + high) / 2)


@given(
    values=st.fixed_dictionaries(
        {
            "grad__norm": st.floats(1e-3, 5.0),
            "train__loss__total": st.floats(1e-3, 5.0),
            "train__loss__bbox": st.floats(0, 0.2),
            "train__loss__cls": st.floats(0, 0.3),
            "train__loss__supcon": st.floats(0, 0.4),
        }
    ),
    dfl=st.floats(1e-3, 1.0),
    update=st.floats(1e-12, 1e-5),
)
def test_a_figure_below_its_band_is_never_a_fault(values, dfl, update):
    moved = {f"update_ratio__{module}": update for module in MODULES}
    rows = [
        step(n, **values, **moved, train__loss__dfl=dfl * (1 + wobble(n))) for n in range(1, 121)
    ]
    found = report(rows)
    assert not found.failed
    assert all(check.status == "pass" for check in found.checks if check.band)


def test_bands_are_settings():
    assert status("gradient_norm", steps(grad__norm=40.0), health_norm=(5.0, 50.0)) == "pass"
    assert {
        f"health_{n}" for n in ("total", "bbox", "cls", "dfl", "supcon", "norm", "update")
    } == set(HealthConfig.model_fields)


def test_only_the_last_steps_count_for_a_band():
    rows = changed(200, grad__norm=lambda n: 600.0 if n < 150 else 9.0)
    assert report(rows).check("gradient_norm").value == 9.0


def test_terms_without_weight_of_other_stages_or_of_other_losses_are_skipped():
    assert status("supcon", supcon_weight=0) == "skip"
    assert status("bbox", bbox_loss="ciou") == "skip"
    rows = [{k: v for k, v in row.items() if "supcon" not in k} for row in steps()]
    assert status("supcon", rows, stage=1) == "skip"


@pytest.mark.parametrize("key", ["train__loss__total", "grad__norm"])
def test_one_value_that_is_not_finite_fails(key):
    rows = changed(200, **{key: lambda n: math.nan if n == 30 else 7.0})
    found = report(rows).check("finite")
    assert (found.status, found.value) == ("fail", 1)
    assert "1 " in found.message


def test_overflows_of_a_loss_scaler_pass_while_they_are_early():
    early = changed(200, grad__norm=lambda n: math.inf if n < 4 else 9.0)
    late = changed(200, grad__norm=lambda n: math.inf if n == 199 else 9.0)
    assert status("finite", early, mixed_precision="fp16") == "pass"
    assert status("finite", late, mixed_precision="fp16") == "fail"
    assert status("finite", early, mixed_precision="bf16") == "fail"


def test_an_explosion_fails_and_is_told():
    found = report(explosion=EXPLOSION)
    assert found.check("explosion").status == "fail"
    assert "step 7: norm_ceiling" in found.verdict
    assert "scs_fusion" in found.verdict


@pytest.mark.parametrize(
    ("total", "expected", "words"),
    [
        (lambda n: 7 - n / 100, "pass", "falls smoothly"),
        (lambda n: 7 + wobble(n), "pass", "stays level"),
        (lambda n: 5 + n / 100, "warn", "ends above its start"),
        (lambda n: 10.0 if 80 < n <= 120 else 7 - n / 100, "warn", "rises after 40 %"),
    ],
)
def test_the_total_is_to_fall_smoothly(total, expected, words):
    found = report(changed(200, train__loss__total=total)).check("total_falls")
    assert found.status == expected
    assert words in found.message


def test_a_few_steps_say_nothing_of_a_trend():
    assert status("total_falls", steps(20)) == "skip"
    assert status("dfl_falls", steps(99, train__loss__dfl=4.0)) == "skip"


def test_a_module_without_gradient_fails_unless_it_is_frozen():
    rows = steps(grad__norm__backbone=0.0)
    assert status("learning/backbone", rows) == "fail"
    assert status("learning/scs_fusion", rows) == "pass"
    assert status("learning/backbone", rows, backbone_lr_mult=0) == "skip"
    assert status("update_ratio/backbone", rows, backbone_lr_mult=0) == "skip"


def test_a_module_that_died_is_told_from_one_that_never_learned():
    died = changed(200, grad__norm__backbone=lambda n: 4.0 if n < 100 else 0.0)
    never = steps(grad__norm__backbone=0.0)
    assert "no longer" in report(died).check("learning/backbone").message
    assert "no gradient ever" in report(never).check("learning/backbone").message


def test_dead_tensors_are_named_unless_they_are_frozen():
    peaks = {**PEAKS, "backbone.one.weight": 0.0, "support_encoder.two.bias": 1e-13}
    found = report(peaks=peaks)
    assert found.dead == ("backbone.one.weight", "support_encoder.two.bias")
    assert found.check("dead_tensors").value == 2
    assert "backbone.one.weight" in found.verdict
    assert report(peaks=peaks, backbone_lr_mult=0).dead == ("support_encoder.two.bias",)
    assert status("dead_tensors", peaks={}) == "skip"


def test_update_ratios_warn_above_their_band():
    rows = changed(200, update_ratio__detection_head=lambda n: 0.1 if n % 10 == 1 else math.nan)
    found = report(rows).check("update_ratio/detection_head")
    assert (found.status, found.value) == ("warn", 0.1)
    bare = [{k: v for k, v in row.items() if "update" not in k} for row in steps()]
    assert status("update_ratio/backbone", bare) == "skip"


@pytest.mark.parametrize(
    ("every", "words"),
    [(0, "never clipped"), (1, "always clipped"), (4, "sometimes clipped")],
)
def test_the_clipping_regime_is_told_in_words(every, words):
    rows = changed(200, grad__clipped=lambda n: float(every > 0 and n % every == 0))
    found = report(rows).check("clipping")
    assert found.status == "pass"
    assert found.message.startswith(words)


def test_a_mode_that_clips_tensors_says_how_many():
    rows = changed(200, grad__clipped=lambda n: 0.5 if n % 2 else 0.0)
    for mode, words in (("update", "the update of 25.0%"), ("adagc", "the gradient of 25.0%")):
        assert words in report(rows, gradient_clip_mode=mode).check("clipping").message
    under_sgd = report(changed(200, grad__clipped=lambda _: 1.0), optimizer="sgd")
    assert "AdamW" not in under_sgd.check("clipping").message


def test_spikes_and_the_largest_rms_are_shown_and_never_judged():
    rows = changed(200, grad__spike_score=lambda n: 5 / n, train__spike_score=lambda _: 0.0,
                   grad__rms=lambda n: 8.0 if n == 41 else math.nan if n == 7 else 1.5)  # fmt: skip
    found = report(rows)
    assert found.check("norm_spikes").value == 0.025
    assert found.check("loss_spikes").value == 0
    assert (found.check("grad_rms").value, found.check("grad_rms").status) == (8.0, "pass")
    assert "at step 41; gradient_clip_mode update limits" in found.check("grad_rms").message
    assert "limits" not in report(rows, gradient_clip_mode="update").check("grad_rms").message
    names = ("norm_spikes", "loss_spikes", "grad_rms")
    bare = [
        {k: v for k, v in row.items() if "spike" not in k and "rms" not in k} for row in steps()
    ]
    assert [status(name, bare) for name in names] == ["skip"] * 3


def test_clipping_that_is_off_has_no_regime():
    assert status("clipping", gradient_clip_norm=0) == "skip"
    assert status("clipping", gradient_clip_mode="none") == "skip"


def test_steps_without_positives_warn_and_fail_at_the_end():
    some = changed(200, train__positives=lambda n: 0.0 if n % 5 == 0 else 40.0)
    none = changed(200, train__positives=lambda n: 0.0 if n > 150 else 40.0)
    assert status("positives", some) == "warn"
    assert status("positives", none) == "fail"


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.05, 0.30], "pass"),  # rises
        ([0.56, 0.55], "pass"),  # level, and clearly above nothing
        ([0.01, 0.08], "pass"),  # rises from nothing
        ([0.08, 0.09], "warn"),  # neither
        ([0.50, 0.20], "warn"),  # has fallen
    ],
)
def test_ap_is_to_rise_or_to_lie_above_nothing(curve, expected):
    rows = [evaluation(100 * n, value) for n, value in enumerate(curve, 1)]
    assert status("ap", evaluations=rows) == expected


@pytest.mark.parametrize("name", ["ap", "supports"])
def test_no_ap_or_unused_supports_fail_in_a_long_run_only(name):
    flat = [evaluation(1, 0.08), evaluation(2, 0.09, val__nAP50_swapped=0.09, val__swap_gap=0.0)]
    resumed = {"resume": Path("stage1.pt")}
    assert status(name, steps(200), flat, **resumed) == "warn"
    assert status(name, steps(300), flat, **resumed) == "fail"
    assert status(name, steps(300), flat) == "warn"
    assert status(name, steps(1000), flat) == "fail"


def test_the_error_of_the_gap_is_that_of_paired_episodes_where_it_is_known():
    gap = {"val__nAP50_swapped": 0.2, "val__swap_gap": 0.05, "val__nAP50_se": 0.03}
    assert status("supports", evaluations=[evaluation(200, 0.25, **gap)]) == "warn"
    paired = evaluation(200, 0.25, **gap, val__swap_gap_se=0.02)
    assert status("supports", evaluations=[paired]) == "pass"
    loose = evaluation(200, 0.25, **gap, val__swap_gap_se=0.03)
    assert status("supports", evaluations=[loose]) == "warn"


def test_a_difference_of_less_than_a_hundredth_is_none():
    rows = [evaluation(n, 0.005 * n, val__nAP50_se=0.001, val__swap_gap=0.005 * n) for n in (0, 1)]
    assert status("ap", evaluations=rows) == "warn"
    assert status("supports", evaluations=rows) == "warn"


def test_wrong_supports_set_the_level_that_ap_must_leave():
    twoway = [evaluation(1, 0.3, val__nAP50_swapped=0.32, val__swap_gap=-0.02)]
    assert status("ap", steps(1000), twoway) == "fail"
    assert status("supports", steps(1000), twoway) == "fail"


def test_lines_of_evaluations_are_skipped_where_there_is_nothing_to_see():
    assert status("ap", evaluations=[]) == "skip"
    assert status("supports", evaluations=[evaluation(1, 0.5)]) == "skip"
    assert status("supports", stage=1) == "skip"
    assert status("memory", evaluations=GOOD_EVALUATIONS[:3]) == "skip"


def test_stage_1_is_judged_by_the_objects_it_finds():
    rows = [{"step": 300, "val/nAP50": 0.07, "val/nAP50_se": 0.1, "val/object_AP50": 0.2}]
    found = report(steps(1000), rows, stage=1).check("ap")
    assert (found.status, found.value) == ("pass", 0.2)  # the error is that of another metric


@pytest.mark.parametrize("split", ["val", "test"])
def test_metrics_may_be_of_either_split(split):
    rows = [{"step": 300, f"{split}/nAP50": 0.4, f"{split}/nAP50_se": 0.02}]
    assert status("ap", evaluations=rows) == "pass"


def test_the_last_evaluation_is_not_compared_with_those_over_other_episodes():
    """Its episodes are harder: the weights have not become worse."""
    scores = [{"step": step, "val/nAP50": 0.5, "val/nAP50_se": 0.01} for step in (100, 200, 300)]
    last = {"step": 300, "val/nAP50": 0.4, "val/nAP50_se": 0.01}
    assert status("ap", evaluations=[*scores, {**last, "best_epoch": 2}]) == "pass"
    assert status("ap", evaluations=[*scores, last]) == "warn"


def test_an_early_evaluation_is_not_compared_with_full_ones():
    """Its few episodes are easier: the weights have not become worse since."""
    early = {"step": 50, "early_episodes": 8, "val/nAP50": 0.9, "val/nAP50_se": 0.01}
    later = {"step": 300, "val/nAP50": 0.5, "val/nAP50_se": 0.01}
    assert status("ap", evaluations=[early, later]) == "pass"
    assert status("ap", evaluations=[early]) == "skip"


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "metric"), [(1, "object_AP50"), (2, "nAP50")])
def test_a_run_on_the_test_classes_is_judged_by_their_metrics(small_config, stage, metric):
    result = train(small_config(stage=stage, novel_split="test", epochs=1, eval_draws=1))
    found = health_of_run(result.run_dir)
    rows = load_evaluations(result.run_dir)
    values = [row[f"test/{metric}"] for row in rows if f"test/{metric}" in row]
    assert found.check("ap").value == values[0]
    gap = None if stage == 1 else pytest.approx(result.metrics["test/swap_gap"])
    assert found.check("supports").value == gap


def test_memory_that_grows_warns():
    grows = [evaluation(n, 0.5, memory=1e9 * (1 + n / 10)) for n in range(1, 7)]
    early = [evaluation(n, 0.5, memory=2e9 if n > 1 else 1e9) for n in range(1, 7)]
    assert status("memory", evaluations=grows) == "warn"
    assert status("memory", evaluations=early) == "pass"


def test_what_stage_1_leaves_without_gradient_is_what_needs_supports(small_config, train_set):
    run = build_state(small_config(stage=1), train_set, None)
    accumulate(run, next_inputs(run))
    unused = [
        name for name, p in run.detector.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert unused == [
        name for name, _ in run.detector.named_parameters() if name not in run.tensors
    ]
    assert "scs_fusion.none_token" in unused


def test_of_a_frozen_encoder_the_projection_must_still_learn():
    peaks = {**PEAKS, "support_encoder.trunk.x": 0.0, "support_encoder.project.weight": 0.0}
    assert report(peaks=peaks, support_encoder_lr_mult=0).dead == (
        "support_encoder.project.weight",
    )
