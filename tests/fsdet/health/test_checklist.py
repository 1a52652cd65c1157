import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdet.checkpoint import save_checkpoint
from fsdet.config import MODULES, HealthConfig, TrainConfig
from fsdet.config.parsing import save_config
from fsdet.errors import ConfigError
from fsdet.health.checklist import (
    HealthReport,
    health_of_run,
    health_report,
    load_evaluations,
    load_steps,
    read_health,
    write_health,
)
from fsdet.health.record import HEALTH_FILE
from fsdet.report import Explosion, Result
from fsdet.train import train
from fsdet.training.build import build_state
from fsdet.training.step import backward

EXPLOSION = Explosion("norm_ceiling", 7, "scs_fusion", "gradient norm 2e+04 > 10000")
PEAKS = {f"{module}.weight": 1.0 for module in MODULES}

Row = dict[str, float]


def wobble(number: int) -> float:
    """What keeps a made-up loss from standing still."""
    return 0.01 * math.sin(number)


def step(number: int, **values: float) -> Row:
    """A healthy step; `values` replace some, with `__` for a slash."""
    row: Row = {
        "step": number,
        "grad/norm": 9.0,
        "grad/clipped": 0.0,
        "train/loss/total": 7.0 - number / 200,
        "train/loss/bbox": 0.4,
        "train/loss/cls": 0.4,
        "train/loss/dfl": 2.5 - 1.5 * min(1, number / 100) + wobble(number),
        "train/loss/supcon": 0.5,
        "train/positives": 40.0,
    }
    row |= {f"grad/norm/{module}": 4.0 for module in MODULES}
    row |= {f"update_ratio/{module}": 1e-3 if number % 10 == 1 else math.nan for module in MODULES}
    return row | {key.replace("__", "/"): value for key, value in values.items()}


def steps(count: int = 200, **values: float) -> list[Row]:
    return [step(number, **values) for number in range(1, count + 1)]


def evaluation(number: int, ap50: float, **values: float) -> Row:
    row = {"step": number, "epoch": 1, "val/nAP50": ap50, "val/nAP50_se": 0.02, "memory": 1e9}
    return row | {key.replace("__", "/"): value for key, value in values.items()}


GOOD_EVALUATIONS = [
    *(evaluation(50 * n, 0.1 * n) for n in (1, 2, 3)),
    evaluation(200, 0.4, val__nAP50_swapped=0.05, val__swap_gap=0.35),
]


def report(
    rows: list[Row] | None = None,
    evaluations: list[Row] | None = None,
    peaks: dict[str, float] | None = None,
    explosion: Explosion | None = None,
    **settings: Any,
) -> HealthReport:
    return health_report(
        TrainConfig(**settings),
        steps() if rows is None else rows,
        GOOD_EVALUATIONS if evaluations is None else evaluations,
        PEAKS if peaks is None else peaks,
        explosion,
    )


def status(name: str, *given_: Any, **named: Any) -> str:
    return report(*given_, **named).check(name).status


def changed(count: int, **values: Callable[[int], float]) -> list[Row]:
    """Healthy steps in which some values are functions of the step."""
    return [
        step(n, **{key: value(n) for key, value in values.items()}) for n in range(1, count + 1)
    ]


def test_a_healthy_run_passes_every_line():
    found = report()
    assert [check.name for check in found.checks if check.status != "pass"] == []
    assert found.dead == ()
    assert found.verdict == "healthy after 200 steps; no warnings"
    assert not found.failed


def test_a_run_without_a_step_is_not_called_healthy():
    found = report([], [], {})
    assert "nothing to report" in found.verdict
    assert not found.failed


def test_a_run_of_a_few_steps_is_neither_healthy_nor_spared_its_faults():
    bad = [evaluation(1, 0.0)]
    assert report(steps(1), bad).verdict.startswith(
        "too short to judge: 1 step without a fault, but it takes 100; warnings: "
    )
    assert report(steps(99), bad).verdict.startswith("too short to judge: 99 steps without a fault")
    assert report(steps(100)).verdict.startswith("healthy after 100 steps")
    assert report(steps(1), explosion=EXPLOSION).verdict.startswith("not healthy after 1 step. ")


@pytest.mark.parametrize("name", ["gradient_norm", "total", "bbox", "cls", "dfl", "supcon"])
def test_a_figure_in_its_band_passes_above_it_warns_and_below_it_passes(name: str):
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
def test_one_value_that_is_not_finite_fails(key: str):
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
def test_the_total_is_to_fall_smoothly(total, expected: str, words: str):
    found = report(changed(200, train__loss__total=total)).check("total_falls")
    assert found.status == expected
    assert words in found.message


def test_a_few_steps_say_nothing_of_a_trend():
    assert status("total_falls", steps(20)) == "skip"
    assert status("dfl_falls", steps(99, train__loss__dfl=4.0)) == "skip"


@pytest.mark.parametrize(
    ("dfl", "expected", "words"),
    [
        (lambda n: 2.9 - 1.9 * min(1, n / 150) + wobble(n), "pass", "36% of the uniform 2.77"),
        (lambda n: 0.7 + wobble(n), "pass", "25% of the uniform"),  # an earlier stage learned it
        (lambda n: 1.7 + wobble(n), "pass", "61% of the uniform"),
        (lambda n: 2.0 + wobble(n), "fail", "though boxes are found (AP50 0.40)"),
        (lambda n: 3.0 + 10 / n, "fail", "not distances from the anchor point"),
        (lambda n: 2.5 + 0 * n, "fail", "does not change"),  # held by a clamp
        (lambda n: 2.5 - (n % 3 > 0) * (1 + wobble(n)), "fail", "does not change"),  # by a ceiling
        (
            lambda n: 2.0 + (n % 3 > 0) * (1 + wobble(n)),
            "fail",
            "33% of the later values are equal",
        ),
    ],
)
def test_dfl_is_to_come_down(dfl, expected: str, words: str):
    found = report(changed(200, train__loss__dfl=dfl)).check("dfl_falls")
    assert found.status == expected
    assert words in found.message


def test_a_clamp_that_holds_a_part_of_the_steps_is_seen_and_a_chance_pair_is_not():
    held = changed(100, train__loss__dfl=lambda n: 2.5 if n % 5 < 2 else 2.4 + wobble(n))
    pair = changed(100, train__loss__dfl=lambda n: 1.0 + wobble(n - n % 2))
    assert "40% of the later values are equal" in report(held).check("dfl_falls").message
    assert status("dfl_falls", pair) == "pass"


def test_values_that_crowd_below_a_ceiling_are_seen_without_being_equal():
    """A clamp of each anchor point: few steps are held altogether, and those the least that are."""
    crowded = changed(
        100, train__loss__dfl=lambda n: 2.5 - 0.1 * abs(math.sin(n)) ** 6 - 1e-3 * (n % 7)
    )
    skewed = changed(
        100, train__loss__dfl=lambda n: 1.0 + 0.1 * abs(math.sin(n)) ** 6 + 1e-3 * (n % 7)
    )
    assert "close below a ceiling" in report(crowded).check("dfl_falls").message
    assert status("dfl_falls", skewed) == "pass"


def test_steps_without_positives_say_nothing_of_dfl():
    def empty(n: int) -> bool:
        return n % 3 == 0

    rows = changed(
        150,
        train__loss__dfl=lambda n: 0.0 if empty(n) else 0.9 + wobble(n),
        train__positives=lambda n: 0.0 if empty(n) else 40.0,
    )
    found = report(rows).check("dfl_falls")
    assert (found.status, found.value) == ("pass", pytest.approx(0.9, abs=0.01))
    assert "before 100 steps with positives" in report(rows[:148]).check("dfl_falls").message


def test_high_dfl_without_boxes_fails_only_when_it_is_worse_than_untrained_or_late():
    slow = changed(1000, train__loss__dfl=lambda n: 2.6 - n / 5000 + wobble(n))
    worse = changed(200, train__loss__dfl=lambda n: 3.1 + wobble(n))
    nothing = [evaluation(200, 0.05)]
    assert status("dfl_falls", slow[:200], nothing) == "warn"
    assert status("dfl_falls", slow[:300], nothing, resume=Path("stage1.pt")) == "fail"
    assert status("dfl_falls", slow[:999], nothing) == "warn"
    assert status("dfl_falls", slow, nothing) == "fail"
    assert status("dfl_falls", worse, nothing) == "fail"


def test_uniform_depends_on_the_number_of_bins():
    rows = changed(200, train__loss__dfl=lambda n: 2.2 + wobble(n))
    assert status("dfl_falls", rows, reg_max=16) == "fail"
    assert status("dfl_falls", rows, reg_max=32) == "pass"


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
def test_the_clipping_regime_is_told_in_words(every: int, words: str):
    rows = changed(200, grad__clipped=lambda n: float(every > 0 and n % every == 0))
    found = report(rows).check("clipping")
    assert found.status == "pass"
    assert found.message.startswith(words)


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
def test_ap_is_to_rise_or_to_lie_above_nothing(curve: list[float], expected: str):
    rows = [evaluation(100 * n, value) for n, value in enumerate(curve, 1)]
    assert status("ap", evaluations=rows) == expected


@pytest.mark.parametrize("name", ["ap", "supports"])
def test_no_ap_or_unused_supports_fail_in_a_long_run_only(name: str):
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


def as_run(folder: Path, rows: list[Row], evaluations: list[Row], **settings: Any) -> TrainConfig:
    """A run folder as the trainer leaves it."""
    folder.mkdir(exist_ok=True)
    config = TrainConfig(**settings)
    save_config(config, folder / "config.yaml")
    for name, lines in (("steps", rows), ("evaluations", evaluations)):
        text = [{k: v if math.isfinite(v) else str(v) for k, v in row.items()} for row in lines]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text))
    return config


def test_the_file_holds_the_report_and_reads_back(tmp_path: Path):
    rows = changed(200, grad__norm=lambda n: math.inf if n == 200 else 9.0)
    config = as_run(tmp_path, rows, GOOD_EVALUATIONS)
    peaks = {**PEAKS, "backbone.x": math.inf, "backbone.y": 0.0}
    written = write_health(tmp_path, config, peaks, EXPLOSION)
    text = (tmp_path / HEALTH_FILE).read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read_health(tmp_path) == written
    assert health_of_run(tmp_path) == written
    assert written.dead == ("backbone.y",)


def test_a_killed_run_is_judged_without_its_last_cut_line(tmp_path: Path):
    as_run(tmp_path, steps(150), GOOD_EVALUATIONS[:2])
    path = tmp_path / "steps.jsonl"
    path.write_text(path.read_text()[:-30])
    assert len(load_steps(tmp_path)) == 149
    found = health_of_run(tmp_path)
    assert not found.failed
    assert found.check("dead_tensors").status == "skip"
    with pytest.raises(ConfigError, match=r"holds no health\.json that can be read"):
        read_health(tmp_path)


def test_an_explosion_is_found_again_in_the_steps_of_a_killed_run(tmp_path: Path):
    as_run(tmp_path, changed(40, grad__norm=lambda n: 2e4 if n > 36 else 9.0), [])
    found = health_of_run(tmp_path).check("explosion")
    assert found.status == "fail"
    assert "step 39: norm_ceiling" in found.message


def test_a_report_of_earlier_steps_is_not_believed(tmp_path: Path):
    config = as_run(tmp_path, steps(100), [])
    write_health(tmp_path, config, {"backbone.x": 0.0}, EXPLOSION)
    as_run(tmp_path, steps(150), [])
    found = health_of_run(tmp_path)
    assert found.check("explosion").status == "pass"
    assert found.dead == ()


@pytest.mark.parametrize(
    "line",
    ['{"loss": 1.0}', '{"step": "nan"}', '{"step": null}', '{"step": 1' + 400 * "0" + "}", "[]", "7"],
)  # fmt: skip
def test_lines_without_a_step_are_none_of_the_run(tmp_path: Path, line: str):
    as_run(tmp_path, steps(150), GOOD_EVALUATIONS)
    for name in ("steps", "evaluations"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f"{line}\n{path.read_text()}")
    assert [row["step"] for row in load_steps(tmp_path)] == list(range(1, 151))
    found = health_of_run(tmp_path)
    assert found.verdict == "healthy after 150 steps; no warnings"


FOREIGN = [
    {"verdict": 1},
    {"steps": "many"},
    {"checks": [1]},
    {"checks": [{"name": "ap"}]},
    {"explosion": {"reason": "norm_ceiling"}},
    {"explosion": "boom"},
    {"peaks": {"backbone.x": "large"}},
    {"peaks": ["backbone.x"]},
    {"dead": 3},
]


@pytest.mark.parametrize("part", FOREIGN, ids=str)
def test_a_report_of_another_program_is_not_believed(tmp_path: Path, part: Row):
    config = as_run(tmp_path, steps(150), GOOD_EVALUATIONS)
    write_health(tmp_path, config, {"backbone.x": 0.0}, EXPLOSION)
    path = tmp_path / HEALTH_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | part))
    assert not health_of_run(tmp_path).failed  # neither the explosion nor the dead tensor
    with pytest.raises(ConfigError, match=r"holds no health\.json that can be read"):
        read_health(tmp_path)


def test_checkpoints_that_cannot_be_read_are_passed_over(tmp_path: Path):
    config = as_run(tmp_path, steps(150), GOOD_EVALUATIONS)
    good = {"gradient_peaks": {"backbone.x": 0.0}, "stability": {"reference": 9.0}}
    foreign = [{"gradient_peaks": 5}, {"stability": [1]}, {"stability": {"reference": -1.0}}]
    for number, state in enumerate([good, *foreign]):
        path = tmp_path / f"stage2_epoch{number:04d}.pt"
        save_checkpoint(path, state, config)
        os.utime(path, (number, number))
    (tmp_path / "stage2_epoch0008.pt").write_text("no checkpoint")
    (tmp_path / "stage2_epoch0009.pt").symlink_to("nowhere")
    (tmp_path / "stage2_epoch0010.pt").mkdir()
    assert health_of_run(tmp_path).dead == ("backbone.x",)


def test_a_real_run_is_judged_by_its_files(base_run: Result):
    found = health_of_run(base_run.run_dir)
    assert found.check("explosion").status == "pass"
    assert found.check("finite").status == "pass"
    assert found.check("learning/backbone").status == "pass"
    assert found.check("positives").status == "pass"
    assert found.check("dead_tensors").status == "pass"
    assert found.dead == ()


def test_what_stage_1_leaves_without_gradient_is_what_needs_supports(small_config, train_set):
    run = build_state(small_config(stage=1), train_set, None)
    backward(run)
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
