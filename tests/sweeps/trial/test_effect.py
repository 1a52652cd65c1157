"""What the first step of real trainings proves, and whether lost settings are noticed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tiny_runs import first_step_of

from fsdet.config import TrainConfig
from fsdet.report import FirstStep
from sweeps.trial.effect import SHOWN, FirstSteps, read_first_step

Trained = tuple[TrainConfig, FirstStep]
OTHER = {
    "lr": 2e-3,
    "weight_decay": 0.1,
    "seed": 1,
    "backbone_lr_mult": 1.0,
    "support_encoder_lr_mult": 0.2,
    "fusion_lr_mult": 1.0,
    "head_lr_mult": 1.0,
    "bbox_weight": 1.0,
    "cls_weight": 1.0,
    "dfl_weight": 1.5,
    "n_way": 3,
    "n_query": 2,
    "n_shot": 3,
    "embed_dim": 32,
    "reg_max": 8,
}
"""Setting -> a value other than that of `tiny_runs.TINY`."""
COSTLY = {"image_size", "support_size", "support_encoder"}
"""Settings with data of their own to draw, or weights to download."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return first_step_of(tmp_path_factory.mktemp("run"))


def test_every_shown_setting_has_another_value_here():
    assert set(OTHER) | COSTLY == set(SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize("key", OTHER)
def test_a_shown_setting_changes_the_first_step(key, tiny, tmp_path):
    config, first = first_step_of(tmp_path, **{key: OTHER[key]})
    steps = FirstSteps()
    assert steps.check("trial 0", *tiny) is None
    assert steps.check("trial 1", config, first) is None
    assert first.digest != tiny[1].digest


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 2},
        {"gradient_clip_norm": 1e6},
        {"gradient_clip_mode": "none"},
        {"gradient_clip_mode": "agc"},
        {"stage": 1},
        {"support_encoder_lr_mult": 0},
        {"backbone_lr_mult": 0},
        {"ema_decay": 0.9},
    ],
    ids=str,
)
def test_no_false_alarm(settings, tiny, tmp_path):
    steps = FirstSteps()
    assert steps.check("trial 0", *tiny) is None
    assert steps.check("trial 1", *first_step_of(tmp_path, **settings)) is None


@pytest.mark.parametrize("key", ["lr", "fusion_lr_mult", "weight_decay", "dfl_weight", "seed"])
def test_a_setting_that_another_part_overwrote_is_noticed(key, tiny):
    """The trainer's config is as suggested, the part that works with it is not."""
    config, first = tiny
    suggested = config.model_copy(update={key: OTHER[key]})
    settings = suggested.model_dump(mode="json")
    why = FirstSteps().check("trial 1", suggested, replace(first, settings=settings))
    assert why is not None
    assert "trial 1 used" in why
    assert "was suggested; no value of this sweep can be trusted" in why


def test_a_setting_that_never_arrived_is_noticed(tiny):
    config, first = tiny
    suggested = config.model_copy(update={"supcon_temperature": 0.2})
    why = FirstSteps().check("trial 1", suggested, first)
    assert why is not None
    assert "trial 1 trained with supcon_temperature 0.1, but 0.2 was suggested" in why


def test_a_norm_that_was_not_clipped_is_noticed(tiny):
    config, first = tiny
    assert first.measured["grad/norm"] > 20
    unclipped = {**first.measured, "grad/norm_after": first.measured["grad/norm"]}
    why = FirstSteps().check("trial 1", config, replace(first, measured=unclipped))
    assert why is not None
    assert "gradient_clip_norm 10 makes it 10" in why


def test_two_trials_with_other_settings_and_the_same_first_step_are_noticed(tiny):
    config, first = tiny
    other = config.model_copy(update={"n_shot": 3})
    steps = FirstSteps()
    assert steps.check("trial 0", config, first) is None
    settings = other.model_dump(mode="json")
    why = steps.check("trial 4", other, replace(first, settings=settings))
    assert why is not None
    assert "trial 4 has n_shot 3 and trial 0 has 2, but their first steps are identical" in why


def test_the_same_settings_give_the_same_first_step(tiny, tmp_path):
    config, first = first_step_of(tmp_path)
    assert first.digest == tiny[1].digest
    steps = FirstSteps()
    assert steps.check("trial 0", *tiny) is None
    assert steps.check("trial 1", config, first) is None


def test_the_file_holds_it_and_survives_damage(tiny):
    config, first = tiny
    path = config.checkpoint_dir / "first_step.json"
    assert read_first_step(config.checkpoint_dir) == first
    text = path.read_text(encoding="utf-8")
    whole = asdict(first)
    parts = {"settings": [], "used": {"lr/backbone": "x"}, "measured": {}, "digest": 3, "step": "x"}
    wrong = [json.dumps({**whole, part: value}) for part, value in parts.items()]
    for damaged in ("", "[]", '{"step": 1}', text[:100], *wrong):
        path.write_text(damaged, encoding="utf-8")
        assert read_first_step(config.checkpoint_dir) is None
    path.write_text(text, encoding="utf-8")
    assert read_first_step(Path("nowhere")) is None
