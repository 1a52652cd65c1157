import pickle
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from fsdet.config import TrainConfig
from fsdet.engine.checkpoint import check_architecture, load_checkpoint, save_checkpoint
from fsdet.errors import CheckpointError
from fsdet.files import atomic_path, write_text_atomic

STATE = {"stage": 2, "step": 3, "detector": {"w": torch.arange(4.0)}, "reference_norm": None}


def test_what_was_written_is_read(tmp_path):
    config = TrainConfig(lr=0.5, checkpoint_dir=tmp_path)
    save_checkpoint(tmp_path / "a" / "c.pt", STATE, config)
    state = load_checkpoint(tmp_path / "a" / "c.pt")
    assert state["step"] == 3
    assert state["config"]["lr"] == 0.5
    assert torch.equal(state["detector"]["w"], STATE["detector"]["w"])
    assert TrainConfig(**state["config"]) == config


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE, TrainConfig())
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(path, {**STATE, "bad": lambda: None}, TrainConfig())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_text_that_fails_half_way_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text_atomic(path, "old")

    def fail() -> None:
        with atomic_path(path) as part:
            part.write_text("new, but not all of")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_of_a_run_needs_no_trust(base_run):
    state = torch.load(base_run.checkpoint, weights_only=True)
    assert state["stage"] == 1
    assert state["step"] == base_run.steps


def test_a_file_that_holds_other_objects_is_refused(tmp_path):
    torch.save({"format": 1, "x": timedelta(1)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"c\.pt: resume: not a checkpoint that can be read"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(tmp_path, part):
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE, TrainConfig())
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match=r"c\.pt: resume: not a checkpoint that can be read"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"c\.pt: resume: no such checkpoint"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("content", [{"model": torch.ones(1)}, torch.ones(2), {"format": 99}])
def test_a_checkpoint_of_another_program_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of this trainer"):
        load_checkpoint(tmp_path / "c.pt")


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


def test_the_same_or_an_earlier_stage_fits(tmp_path):
    for stored, wanted in ((1, 1), (1, 2), (2, 2)):
        save_checkpoint(tmp_path / "c.pt", STATE, TrainConfig(stage=stored))
        state = load_checkpoint(tmp_path / "c.pt")
        check_architecture(state, TrainConfig(stage=wanted), tmp_path / "c.pt")


def test_going_on_with_another_learning_rate_is_refused():
    state = {"config": TrainConfig(lr=0.1).model_dump(mode="json"), "optimizer": {}}
    with pytest.raises(CheckpointError, match=r"lr 0\.1, but the run asks for 0\.2; set lr: 0\.1"):
        check_architecture({**state, "stage": 2}, TrainConfig(lr=0.2), Path("a.pt"))
