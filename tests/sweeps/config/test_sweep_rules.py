"""Mistakes that need more than one value to be seen, each with its place, rule and cure."""

from __future__ import annotations

import pytest
from yaml_files import GOOD, NUMBERS, load

from sweeps.config.check import check_files
from sweeps.errors import SweepError

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
MISTAKES = {**CONDITIONS, **TIES, **VALUES}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_told_with_place_and_cure(case):
    old, new, words = MISTAKES[case]
    assert old in GOOD
    with pytest.raises(SweepError) as caught:
        load(GOOD.replace(old, new, 1))
    for word in words:
        assert word in str(caught.value)


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
