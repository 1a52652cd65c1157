"""Mistakes that need more than one value to be seen, each with its place, rule and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.config import SweepSpec
from sweeps.config.check import check_files, check_spec
from sweeps.config.file import load_spec
from sweeps.errors import SweepError

GOOD = """\
name: good
space:
  gradient_clip_mode: {choices: [norm, agc]}
  gradient_clip_norm: {low: 0.1, high: 100, log: true, when: {gradient_clip_mode: norm}}
  agc_clip_factor: {choices: [0.01, 0.1], when: {gradient_clip_mode: [agc]}}
  fusion_lr_mult: {low: 1, high: 9, step: 2}
  head_lr_mult: {tie: fusion_lr_mult, times: 2}
baselines:
  clip: {gradient_clip_mode: norm, gradient_clip_norm: 10, fusion_lr_mult: 3}
  agc: {gradient_clip_mode: agc, agc_clip_factor: 0.1, fusion_lr_mult: 1}
trials: 9
"""
NUMBERS = """\
name: numbers
space:
  lr: {low: 0.001, high: 0.1, log: true}
  fusion_lr_mult: {low: 1, high: 9}
trials: 9
"""


def load(text: str, *overrides: str) -> SweepSpec:
    """Write `text` to a file, read and check it."""
    Path("x.yaml").write_text(text, encoding="utf-8")
    spec, lines = load_spec("x.yaml", overrides)
    check_spec(spec, lines)
    return spec


CONDITIONS = {
    "unknown condition": ("when: {gradient_clip_mode: norm}", "when: {clip_mode: norm}",
        ["x.yaml:4: space.gradient_clip_norm.when.clip_mode", "unknown setting 'clip_mode'"]),
    "unlike value": ("when: {gradient_clip_mode: norm}", "when: {gradient_clip_mode: nrom}",
        ["x.yaml:4", "gradient_clip_mode is never 'nrom'", "holds norm, agc"]),
    "unlike fixed value": ("when: {gradient_clip_mode: norm}", "when: {bbox_loss: ciou}",
        ["x.yaml:4", "never holds: bbox_loss is 'wiou_v3' in every trial", "search it"]),
    "unlike device": ("when: {gradient_clip_mode: norm}", "when: {device: cpu}",
        ["x.yaml:4", "same in every trial", "remove the condition"]),
    "one value of a range": ("when: {gradient_clip_mode: norm}", "when: {fusion_lr_mult: 2}",
        ["x.yaml:4", "fusion_lr_mult is never 2", "holds 1.0, 9.0"]),
    "endless range": ("fusion_lr_mult: {low: 1, high: 9, step: 2}\n",
        "fusion_lr_mult: {low: 1, high: 9}\n  dfl_weight: {choices: [1], when: {fusion_lr_mult: 2}}\n",
        ["x.yaml:7", "hardly ever has exactly one value", "give fusion_lr_mult choices or a step"]),
    "no value": ("when: {gradient_clip_mode: norm}", "when: {gradient_clip_mode: []}",
        ["x.yaml:4", "list at least one value of gradient_clip_mode"]),
    "odd value": ("when: {gradient_clip_mode: norm}", "when: {gradient_clip_mode: {a: b}}",
        ["x.yaml:4: space.gradient_clip_norm.when.gradient_clip_mode: must be a number, a text"]),
    "cycle": ("{choices: [norm, agc]}", "{choices: [norm, agc], when: {agc_clip_factor: 0.1}}",
        ["x.yaml:3", "gradient_clip_mode needs agc_clip_factor needs gradient_clip_mode"]),
    "itself": ("{choices: [norm, agc]}", "{choices: [norm, agc], when: {gradient_clip_mode: agc}}",
        ["x.yaml:3", "gradient_clip_mode needs gradient_clip_mode", "remove one"]),
    "exclude": ("step: 2}\n",
        "step: 2}\n  lr: {choices: [1], when: {gradient_clip_norm: 1}}\n"
        .replace("gradient_clip_norm: 1", "agc_clip_factor: 0.1, gradient_clip_mode: norm"),
        ["x.yaml:7", "can never apply", "gradient_clip_mode exclude one another"]),
    "on a tied one": ("step: 2}\n",
        "step: 2}\n  lr: {low: 1, high: 2, when: {head_lr_mult: 2}}\n",
        ["x.yaml:7", "'head_lr_mult' is tied to fusion_lr_mult", "make the condition on that"]),
}  # fmt: skip
TIES = {
    "tie to nothing": ("tie: fusion_lr_mult", "tie: fusion_mult",
        ["x.yaml:7: space.head_lr_mult.tie", "not searched", "did you mean 'fusion_lr_mult'"]),
    "tie to fixed": ("tie: fusion_lr_mult", "tie: warmup_fraction", ["not searched; searched are"]),
    "tie to itself": ("tie: fusion_lr_mult", "tie: head_lr_mult", ["x.yaml:7", "cannot be tied"]),
    "tie to a tied one": ("times: 2}", "times: 2}\n  lr: {tie: head_lr_mult}",
        ["x.yaml:8", "'head_lr_mult' is itself tied to fusion_lr_mult"]),
    "tie and range": ("times: 2}", "low: 2}", ["x.yaml:7", "no range of its own, but got low"]),
    "times alone": ("step: 2}", "step: 2, times: 3}", ["x.yaml:6", "times needs tie"]),
    "times text": ("times: 2}", "times: 2}\n  bbox_loss: {tie: gradient_clip_mode, times: 2}",
        ["x.yaml:8: space.bbox_loss.times", "must be numbers"]),
    "whole from real": ("head_lr_mult: {", "gradient_accumulation: {",
        ["x.yaml:7", "is a whole number, but fusion_lr_mult times 2 need not be one"]),
    "illegal product": ("times: 2}", "times: -2}",
        ["x.yaml:7: space.head_lr_mult", "greater than or equal to 0", "fusion_lr_mult 1"]),
    "illegal text": ("times: 2}", "times: 2}\n  bbox_loss: {tie: gradient_clip_mode}",
        ["x.yaml:8: space.bbox_loss", "'norm'"]),
}  # fmt: skip
VALUES = {
    "baseline gives tied": ("gradient_clip_norm: 10,", "gradient_clip_norm: 10, head_lr_mult: 2,",
        ["x.yaml:9: baselines.clip.head_lr_mult", "is tied to fusion_lr_mult; remove it"]),
    "baseline gives too much": ("gradient_clip_norm: 10,",
        "gradient_clip_norm: 10, agc_clip_factor: 0.1,",
        ["x.yaml:9: baselines.clip.agc_clip_factor", "does not apply to this baseline"]),
    "baseline lacks": ("gradient_clip_norm: 10,", "",
        ["x.yaml:9: baselines.clip", "has no value for the searched 'gradient_clip_norm'"]),
    "baseline off the steps": ("fusion_lr_mult: 3}", "fusion_lr_mult: 4}",
        ["x.yaml:9", "(1.0, 9.0 in steps of 2), but got 4"]),
    "steps past the end": ("high: 9, step: 2", "high: 10, step: 2",
        ["x.yaml:6", "steps of 2 from 1 do not meet high 10", "set high: 9"]),
    "second whole number": ("  fusion_lr_mult: {low: 1,",
        "  embed_dim: {low: 16, high: 64, step: 24}\n  fusion_lr_mult: {low: 1,",
        ["x.yaml:6", "multiple of 16", "40"]),
    "resumed with changes": ("  fusion_lr_mult: {low",
        "  resume_with_changes: {choices: [true, false]}\n  fusion_lr_mult: {low",
        ["x.yaml:6: space.resume_with_changes", "trials resume as they were", "remove the line"]),
    "missing choice": ("  fusion_lr_mult: {low",
        "  resume: {choices: [x.yaml, none.pt]}\n  fusion_lr_mult: {low",
        ["x.yaml:6: space.resume.choices", "no such file or folder: none.pt"]),
    "odd choice": ("[norm, agc]", "[norm, [agc]]",
        ["x.yaml:3: space.gradient_clip_mode.choices.1: must be a number, a text"]),
}  # fmt: skip
SEARCH = {
    "gp and when": ("trials: 9", "sampler: {name: gp}",
        ["x.yaml:11", "gp draws all settings together", "agc_clip_factor", "use tpe"]),
    "grid of reals": ("trials: 9", "sampler: {name: grid}",
        ["x.yaml:4: space.gradient_clip_norm", "give choices or a step"]),
    "pbt": ("trials: 9", "scheduler: {name: pbt}",
        ["x.yaml:11: scheduler.name", "schedule that no single job", "use asha or hyperband"]),
    "warm random": ("trials: 9", "sampler: {name: random}\nwarm_start: earlier",
        ["x.yaml:12: warm_start", "random learns nothing", "tpe or gp"]),
    "gpu hours": ("trials: 9", "budget: {gpu_hours: 2}",
        ["x.yaml:11: budget.gpu_hours", "use no GPU", "budget.hours"]),
    "target": ("trials: 9", "budget: {target: 57}", ["x.yaml:11", "between 0 and 1", "57"]),
    "no hours": ("trials: 9", "budget: {hours: 0}", ["x.yaml:11: budget.hours", "greater than 0"]),
    "unknown budget": ("trials: 9", "budget: {hour: 1}", ["did you mean 'hours'"]),
    "failures": ("trials: 9", "failures: {max_fraction: 50}", ["x.yaml:11", "less than or equal"]),
    "stall": ("trials: 9", "stall_minutes: -1", ["x.yaml:11: stall_minutes", "greater than 0"]),
    "cost first": ("trials: 9", "objective: {metric: trial/step_seconds}",
        ["x.yaml:11: objective.metric", "only at the end", "second_objective"]),
    "cost to raise": ("trials: 9", "second_objective: {metric: trial/memory_bytes, mode: max}",
        ["x.yaml:11: second_objective", "is a cost", "drop mode"]),
    "two for tpe": ("trials: 9", "second_objective: {metric: val/nAP}",
        ["x.yaml:11: second_objective", "needs sampler.name nsgaii, but got tpe"]),
}  # fmt: skip
OF_NUMBERS = {
    "cmaes and choices": ("{low: 1, high: 9}", "{choices: [1, 2]}", "cmaes",
        ["x.yaml:4: space.fusion_lr_mult", "cmaes searches numbers only"]),
    "cmaes alone": ("  fusion_lr_mult: {low: 1, high: 9}\n", "", "cmaes",
        ["sampler.name", "at least two"]),
    "one objective": ("trials: 9", "scheduler: {name: none}", "nsgaii",
        ["nsgaii needs two objectives", "add second_objective"]),
    "same twice": ("trials: 9", "second_objective: {metric: val/nAP50}", "nsgaii",
        ["x.yaml:5: second_objective.metric", "must differ"]),
    "nsgaii and asha": ("trials: 9", "second_objective: {metric: trial/step_seconds}", "nsgaii",
        ["scheduler.name", "compares complete trials, but got asha", "set it to none"]),
}  # fmt: skip
MISTAKES = {**CONDITIONS, **TIES, **VALUES, **SEARCH}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_told_with_place_and_cure(case):
    old, new, words = MISTAKES[case]
    assert old in GOOD
    with pytest.raises(SweepError) as caught:
        load(GOOD.replace(old, new, 1))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("case", OF_NUMBERS)
def test_sampler_that_does_not_fit_is_told(case):
    old, new, sampler, words = OF_NUMBERS[case]
    assert old in NUMBERS
    with pytest.raises(SweepError) as caught:
        load(NUMBERS.replace(old, new, 1), f"sampler.name={sampler}")
    for word in words:
        assert word in str(caught.value)


def test_good_files_are_accepted():
    load(GOOD)
    for name in ("tpe", "gp", "random", "qmc", "cmaes"):
        load(NUMBERS, f"sampler.name={name}")
    spec = load(
        NUMBERS,
        "sampler.name=nsgaii",
        "scheduler.name=none",
        "second_objective.metric=trial/memory_bytes",
    )
    assert [(o.metric, o.mode) for o in spec.objectives] == [
        ("val/nAP50", "max"),
        ("trial/memory_bytes", "min"),
    ]


def test_values_that_only_together_are_illegal_are_told_with_an_example():
    space = "".join(
        f"  {key}_lr_mult: {{choices: [0, 1]}}\n"
        for key in ("backbone", "support_encoder", "fusion", "head")
    )
    with pytest.raises(SweepError) as caught:
        load(f"name: frozen\nspace:\n{space}")
    assert "at least one of the four *_lr_mult must be above 0" in str(caught.value)
    assert "head_lr_mult 0" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_grid_counts_its_trials():
    grid = GOOD.replace("low: 0.1, high: 100, log: true", "choices: [1, 10]")
    whole = grid.replace("trials: 9\n", "sampler: {name: grid}\n")
    assert load(whole).trials == 20
    assert load(whole.replace("fusion_lr_mult: 3", "fusion_lr_mult: 5")).trials == 20
    assert load(whole, "trials=7").trials == 7
    with pytest.raises(SweepError, match="--set trials: the grid has 20 configurations"):
        load(whole, "trials=21")


def test_override_reaches_every_field_and_is_named_in_its_mistake():
    spec = load(
        GOOD,
        "space.agc_clip_factor.choices=[0.1, 0.2]",
        "space.gradient_clip_norm={low: 1, high: 10, when: {gradient_clip_mode: norm}}",
        "baselines.clip.gradient_clip_norm=5",
        "budget.hours=0.5",
        "failures.max_fraction=0.2",
        "stall_minutes=3",
        "epochs=2",
    )
    assert spec.space["agc_clip_factor"].choices == (0.1, 0.2)
    assert spec.baseline_parameters()["clip"]["gradient_clip_norm"] == 5
    assert (spec.budget.hours, spec.failures.max_fraction) == (0.5, 0.2)
    with pytest.raises(SweepError, match=r"x.yaml, --set scheduler.grace: input should be greater"):
        load(GOOD, "scheduler.grace=0")


def test_files_are_found_wherever_they_are_named(in_own_folder):
    for name in ("a.pt", "b.pt"):
        (in_own_folder / name).touch()
    text = GOOD.replace(
        "  fusion_lr_mult: {low",
        "  resume: {choices: [a.pt, b.pt]}\n"
        "  dfl_weight: {choices: [1], when: {resume: b.pt}}\n"
        "  fusion_lr_mult: {low",
    )
    text = text.replace("clip: {", "clip: {resume: a.pt, ")
    text = text.replace("agc: {", "agc: {resume: b.pt, dfl_weight: 1, ")
    spec = load(text)
    a, b = (str(in_own_folder / name) for name in ("a.pt", "b.pt"))
    assert spec.space["resume"].choices == (a, b)
    assert spec.space["dfl_weight"].conditions == {"resume": (b,)}
    assert spec.baseline_parameters()["clip"]["resume"] == a


@pytest.mark.slow
def test_every_searched_file_and_name_is_looked_at(in_own_folder):
    shipped = "fsdet/checkpoints/stage1_openmoji.pt"
    (in_own_folder / "broken.pt").write_bytes(b"broken")
    text = NUMBERS.replace("space:\n", f"space:\n  resume: {{choices: [broken.pt, {shipped}]}}\n")
    with pytest.raises(SweepError, match=r"broken\.pt"):
        check_files(load(text))
    text = NUMBERS.replace(
        "space:\n", "space:\n  support_encoder: {choices: [no_such_model, small_conv]}\n"
    )
    with pytest.raises(SweepError, match="no_such_model"):
        check_files(load(text))
