from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from fsdet.checkpoint import load_checkpoint, save_checkpoint
from fsdet.config import TrainConfig
from fsdet.errors import CheckpointError
from fsdet.training.resuming import (
    ARCHITECTURE,
    BY_CONTENT,
    CURES,
    HARMLESS,
    check_architecture,
    check_changes,
    continues,
    find_changes,
)

STATE = {"stage": 2, "step": 3, "detector": {"w": torch.arange(4.0)}, "reference_norm": None}


@pytest.mark.parametrize(
    ("stored", "wanted", "message"),
    [
        ({"embed_dim": 32}, {}, "embed_dim 32, but the run asks for 64; set embed_dim: 32"),
        ({}, {"reg_max": 8}, "reg_max 16, but the run asks for 8; set reg_max: 16"),
        ({"support_encoder": "resnet10t"}, {}, "support_encoder 'resnet10t', .* 'small_conv'"),
        ({"stage": 2}, {"stage": 1}, "is of stage 2, but the run is stage 1"),
    ],
)
def test_another_architecture_is_named_with_its_cure(tmp_path, stored, wanted, message):
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE, TrainConfig(**stored))
    with pytest.raises(CheckpointError, match=rf"c\.pt: resume: .*{message}"):
        check_architecture(load_checkpoint(path), TrainConfig(**wanted), path)


@pytest.mark.parametrize(("stored", "wanted"), product((1, 2, 3), repeat=2))
def test_a_stage_starts_from_the_same_or_an_earlier_one(stored, wanted):
    state = {"config": TrainConfig(stage=stored).model_dump(mode="json")}
    refused = ""
    try:
        check_architecture(state, TrainConfig(stage=wanted), Path("c.pt"))
    except CheckpointError as error:
        refused = str(error)
    assert (f"is of stage {stored}, but the run is stage {wanted}" in refused) is (stored > wanted)


SOME_VALUES = (
    *(
        True,
        False,
        1,
        2,
        32,
        96,
        160,
        0.25,
        0.5,
        2.0,
        20.0,
        "cpu",
        "resnet10t",
        "other",
        "test",
        ("x",),
        (0.1, 100.0),
    ),
)


def another_value(name: str) -> TrainConfig:
    """The config of `COCO` with another value of one setting, whichever it takes."""
    for value in (*get_args(TrainConfig.model_fields[name].annotation), *SOME_VALUES):
        with suppress(ValidationError):
            config = TrainConfig(**{**COCO, name: value})
            if getattr(config, name) != getattr(TrainConfig(**COCO), name):
                return config
    raise AssertionError(f"no other value for {name}")


COCO = {"dataset": "coco"}
INPUTS = {"kind of device": "cpu", "training data": "a" * 64}
STORED = {"config": TrainConfig(**COCO).model_dump(mode="json"), "optimizer": {}, "inputs": INPUTS}


@pytest.mark.parametrize("name", sorted({*TrainConfig.model_fields} - {"stage"}))
def test_every_setting_is_harmless_or_compared_when_a_stage_resumes(name):
    config, path = another_value(name), Path("a.pt")
    if name in HARMLESS or name in BY_CONTENT:
        check_architecture(STORED, config, path)
        return
    with pytest.raises(
        CheckpointError, match=rf"a\.pt: resume: .*\b{name}\b.*set {name}: "
    ) as told:
        check_architecture(STORED, config, path)
    assert "\n" not in str(told.value)
    if name not in ARCHITECTURE:
        check_architecture(STORED, config.model_copy(update={"resume_with_changes": True}), path)


def test_only_settings_that_change_neither_steps_nor_figures_are_harmless():
    steps = {"dfl_weight", "bbox_loss", "gradient_clip_norm", "support_size", "epochs", "threads"}
    steps |= {"warmup_fraction", "final_lr_fraction", "supcon_temperature", "stop_on_explosion"}
    figures = {"novel_split", "eval_episodes", "eval_draws"}
    assert not {*HARMLESS} & (steps | figures)
    assert {*HARMLESS, *BY_CONTENT} < {*TrainConfig.model_fields}
    assert not {*HARMLESS} & {*BY_CONTENT, *ARCHITECTURE}


@pytest.mark.parametrize("name", BY_CONTENT)
def test_a_checkpoint_that_does_not_say_what_a_path_held_is_compared_by_the_path(name):
    stored = {key: value for key, value in STORED.items() if key != "inputs"}
    with pytest.raises(CheckpointError, match=f"{name} was .* and is "):
        check_architecture(stored, another_value(name), Path("a.pt"))


def test_a_setting_added_later_is_compared_without_being_named_anywhere():
    class LaterConfig(TrainConfig):
        added_later: int = 3

    stored = {**STORED, "config": LaterConfig(**COCO).model_dump(mode="json")}
    with pytest.raises(CheckpointError, match="added_later was 3 and is 4; set added_later: 3"):
        check_architecture(stored, LaterConfig(**COCO, added_later=4), Path("a.pt"))


def test_all_changes_are_told_at_once():
    with pytest.raises(
        CheckpointError, match=r"epochs was .*, lr was .*; set epochs: 100, set lr: .*, or"
    ):
        check_architecture(STORED, TrainConfig(**COCO, lr=0.2, epochs=7), Path("a.pt"))


@pytest.mark.parametrize("name", INPUTS)
def test_other_inputs_are_a_change(name):
    changes = find_changes(STORED, TrainConfig(**COCO), {**INPUTS, name: "b" * 64})
    assert changes == {name: (INPUTS[name], "b" * 64)}
    with pytest.raises(
        CheckpointError, match=f"{name} was .* and is '{'b' * 12}'; {CURES[name]}, or"
    ):
        check_changes(changes, TrainConfig(**COCO), Path("a.pt"))


def test_an_exported_checkpoint_starts_its_stage_anew_with_any_settings():
    exported = {key: value for key, value in STORED.items() if key != "optimizer"}
    config, path = TrainConfig(lr=0.2, epochs=7), Path("a.pt")
    with pytest.raises(CheckpointError, match="lr was"):
        check_architecture(STORED, config, path)
    assert not continues(exported, config)
    check_architecture(exported, config, path)
