import json
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import torch
from made_up_checkpoint import made_up_content
from pydantic import ValidationError
from trained_runs import InterruptError, equal, stop_after, tensors

from fsdet.checkpoint.content import load_checkpoint, save_checkpoint
from fsdet.config import TrainConfig
from fsdet.data.sources import load_image_set
from fsdet.errors import CheckpointError
from fsdet.train import train
from fsdet.training.build import build_state
from fsdet.training.resuming import (
    ARCHITECTURE,
    BY_CONTENT,
    FIXES,
    HARMLESS,
    check_architecture,
    check_changes,
    find_changes,
    is_same_stage,
)


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
    config = TrainConfig(**stored)
    save_checkpoint(path, made_up_content(config), config)
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
        (1, 2),
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
    figures = {"novel_split", "eval_episodes", "early_eval_episodes", "eval_draws"}
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
        CheckpointError, match=f"{name} was .* and is '{'b' * 12}'; {FIXES[name]}, or"
    ):
        check_changes(changes, TrainConfig(**COCO), Path("a.pt"))


def test_an_exported_checkpoint_starts_its_stage_anew_with_any_settings():
    exported = {key: value for key, value in STORED.items() if key != "optimizer"}
    config, path = TrainConfig(lr=0.2, epochs=7), Path("a.pt")
    with pytest.raises(CheckpointError, match="lr was"):
        check_architecture(STORED, config, path)
    assert not is_same_stage(exported, config)
    check_architecture(exported, config, path)


def test_a_stage_starts_at_its_beginning_with_a_fresh_optimiser(small_config, base_run, train_set):
    earlier = torch.load(base_run.checkpoint, weights_only=True)
    run = build_state(small_config(resume=base_run.checkpoint), train_set, None)
    assert run.step == run.epoch == 0
    assert not run.optimizer.state_dict()["state"]
    assert run.scheduler.last_epoch == 0
    weights = run.detector.state_dict()
    assert all(torch.equal(weights[name], t) for name, t in earlier["detector"].items())


def test_a_run_resumed_with_harmless_changes_equals_one_never_interrupted(small_config, tmp_path):
    settings = {"n_query": 2, "share_interval": 1, "early_eval_episodes": 1}
    whole = train(small_config(**settings, checkpoint_dir=tmp_path / "whole"))
    with pytest.raises(InterruptError):
        train(small_config(**settings), stop_after(1))
    others = {
        "share_interval": None,
        "eval_interval": 7,
        "early_eval_epochs": (2,),
        "save_interval": 5,
        "debug": True,
        "num_workers": 1,
        "cache_limit_gb": 49,
        "support_pretrained": False,
        "yolo_weights": tmp_path / "none.pt",
        "health_norm": (1.0, 2.0),
        "checkpoint_dir": tmp_path / "on",
    }
    assert {*others} < {*HARMLESS}
    half = tmp_path / "run" / "stage2_epoch0001.pt"
    resumed = train(small_config(**{**settings, **others, "resume": half}))
    one, other = (torch.load(r.checkpoint, weights_only=True) for r in (whole, resumed))
    for part in ("detector", "criterion", "optimizer", "stability", "rng", "step"):
        a, b = tensors(one[part]), tensors(other[part])
        assert a.keys() == b.keys()
        assert [key for key in a if not equal(a[key], b[key])] == []
    assert other["changed"] == []
    assert not (tmp_path / "on" / "changes.json").exists()


CHANGES = {
    "lr": 5e-3,
    "weight_decay": 0.5,
    "gradient_clip_norm": 0.01,
    "dfl_weight": 1.5,
    "bbox_loss": "ciou",
    "ema_decay": 0.9,
    "mixed_precision": "fp16",
    "support_size": 48,
    "epochs": 3,
    "n_episodes": 6,
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_stage_does_not_resume_with_other_settings(small_config, tmp_path, key):
    with pytest.raises(InterruptError):
        train(small_config(), stop_after(1))
    half = tmp_path / "run" / "stage2_epoch0001.pt"
    changed = small_config(resume=half, checkpoint_dir=tmp_path / "on", **{key: CHANGES[key]})
    with pytest.raises(CheckpointError, match=rf"resume: .* {key} was .*; set {key}: "):
        train(changed)
    assert not (tmp_path / "on").exists()


@pytest.mark.slow
def test_a_deliberate_change_is_made_logged_and_recorded(small_config, tmp_path, caplog):
    with pytest.raises(InterruptError):
        train(small_config(), stop_after(1))
    half = tmp_path / "run" / "stage2_epoch0001.pt"
    step = torch.load(half, weights_only=True)["step"]
    config = small_config(**CHANGES, resume=half, resume_with_changes=True)
    result = train(config)
    state = torch.load(result.checkpoint, weights_only=True)
    before = small_config()
    for key, value in CHANGES.items():
        then = getattr(before, key)
        change = {"stage": 2, "step": step, "setting": key, "from": then, "to": value}
        assert change in state["changed"]
    others = {change["setting"] for change in state["changed"]} - {*CHANGES}
    assert others == {
        f"{kind} data" for kind in ("training", "base", "novel")
    }  # by the support_size
    assert json.loads((result.run_dir / "changes.json").read_text()) == state["changed"]
    for key, value in CHANGES.items():
        line = f"resumed with a change: {key} {getattr(before, key)!r} -> {value!r}"
        assert line in caplog.text
        assert line in (result.run_dir / "training_debug.log").read_text()
    assert result.steps == config.total_steps
    assert "ema" in state
    for group in state["optimizer"]["param_groups"]:
        assert group["initial_lr"] == config.lr * config.lr_mults[group["name"]]
        assert group["weight_decay"] in (config.weight_decay, 0.0)
    again = build_state(
        small_config(**CHANGES, resume=result.checkpoint), load_image_set(config, "train"), None
    )
    assert again.changed == state["changed"]  # which need no permission any more
    later = small_config(resume=result.checkpoint, stage=3)
    assert build_state(later, load_image_set(later, "shots"), None).changed == state["changed"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("backbone_lr_mult", 0.0), ("support_encoder_lr_mult", 0.0), ("optimizer", "sgd")],
)
def test_a_stage_resumes_with_the_tensors_that_it_trained_or_not_at_all(
    small_config, tmp_path, key, value
):
    result = train(small_config(epochs=1))
    config = small_config(
        epochs=1, resume=result.checkpoint, resume_with_changes=True, **{key: value}
    )
    with pytest.raises(CheckpointError, match=rf"trains other tensors .*changed: {key}\)"):
        train(config)


def test_another_clip_mode_starts_without_a_memory(small_config, train_set, tmp_path):
    build_state(small_config(gradient_clip_mode="zclip"), train_set, None).save(tmp_path / "c.pt")
    changed = {"gradient_clip_mode": "adagc", "resume_with_changes": True}
    run = build_state(small_config(**changed), train_set, tmp_path / "c.pt")
    assert run.clipping.state_dict()["means"].isinf().all()


def test_a_stage_does_not_resume_with_other_data(small_config, train_set, tmp_path):
    config = small_config()
    build_state(config, train_set, None).save(tmp_path / "c.pt")
    moved = replace(train_set, boxes=train_set.boxes + 1)
    with pytest.raises(
        CheckpointError, match=r"training data was .* and is .*; name the same data_root"
    ):
        build_state(config, moved, tmp_path / "c.pt")
    allowed = small_config(resume_with_changes=True)
    run = build_state(allowed, moved, tmp_path / "c.pt")
    assert [change["setting"] for change in run.changed] == ["training data"]


def test_a_stage_does_not_resume_on_another_kind_of_device(small_config, train_set, tmp_path):
    config = small_config(device="auto")
    build_state(config, train_set, None).save(tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    build_state(
        small_config(device=state["inputs"]["kind of device"]), train_set, tmp_path / "c.pt"
    )
    torch.save({**state, "inputs": {**state["inputs"], "kind of device": "tpu"}}, tmp_path / "t.pt")
    with pytest.raises(
        CheckpointError, match=r"kind of device was 'tpu' and is .*; run on the same"
    ):
        build_state(config, train_set, tmp_path / "t.pt")


def test_a_class_that_was_trained_on_is_not_novel(small_config, base_run, tmp_path):
    state = torch.load(base_run.checkpoint, weights_only=True)
    assert len(state["trained_on"]) > 900
    state["trained_on"].append(load_image_set(small_config(), "val").names[0])
    torch.save(state, tmp_path / "leaky.pt")
    with pytest.raises(CheckpointError, match=r"was trained on .*, novel in this run"):
        train(small_config(resume=tmp_path / "leaky.pt"))


def test_a_stage_does_not_start_from_a_later_one(small_config, base_run, tmp_path):
    result = train(small_config(epochs=1, resume=base_run.checkpoint, n_episodes=2))
    folder = tmp_path / "back"
    with pytest.raises(CheckpointError, match="is of stage 2, but the run is stage 1"):
        train(small_config(stage=1, resume=result.checkpoint, checkpoint_dir=folder))
    assert not folder.exists()
