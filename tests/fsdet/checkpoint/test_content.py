import pickle
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from made_up_checkpoint import made_up_content

from fsdet.checkpoint.content import load_checkpoint, load_detector, save_checkpoint
from fsdet.config import TrainConfig
from fsdet.errors import CheckpointError
from fsdet.models.detector import build_detector

STATE = {**made_up_content(TrainConfig(), step=3), "reference_norm": None}


def test_what_was_written_is_read(tmp_path):
    config = TrainConfig(lr=0.5, checkpoint_dir=tmp_path)
    save_checkpoint(tmp_path / "a" / "c.pt", STATE, config)
    state = load_checkpoint(tmp_path / "a" / "c.pt")
    assert state["step"] == 3
    assert state["config"]["lr"] == 0.5
    assert state["detector"].keys() == STATE["detector"].keys()
    assert TrainConfig(**state["config"]) == config


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE, TrainConfig())
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(path, {**STATE, "bad": lambda: None}, TrainConfig())
    assert path.read_bytes() == before
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


def save(path: Path, config, **state) -> Path:
    weights = build_detector(config.model_copy(update={"seed": 1})).state_dict()
    save_checkpoint(path, made_up_content(config, detector=weights, **state), config)
    return path


def test_weights_and_settings_are_those_of_the_checkpoint(small_config, tmp_path):
    config = small_config(seed=3, embed_dim=32)
    detector, stored = load_detector(save(tmp_path / "a.pt", config), "cpu")
    saved = load_checkpoint(tmp_path / "a.pt")["detector"]
    assert stored == config
    assert not detector.training
    assert all(torch.equal(saved[name], t) for name, t in detector.state_dict().items())


def test_the_moving_average_is_preferred(small_config, tmp_path):
    config = small_config()
    average = build_detector(config.model_copy(update={"seed": 2})).state_dict()
    detector, _ = load_detector(save(tmp_path / "a.pt", config, ema=average), "cpu")
    assert all(torch.equal(average[name], t) for name, t in detector.state_dict().items())


def test_loading_leaves_the_random_numbers_of_the_caller_alone(small_config, tmp_path):
    path = save(tmp_path / "a.pt", small_config())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_detector(path, "cpu")
    assert torch.equal(torch.rand(3), expected)


def test_other_weights_are_refused(small_config, tmp_path):
    path = tmp_path / "a.pt"
    other = made_up_content(small_config(), detector={"x": torch.zeros(1)})
    save_checkpoint(path, other, small_config())
    with pytest.raises(CheckpointError, match=r"a\.pt: checkpoint: .*its weights do not fit"):
        load_detector(path, "cpu")
    with pytest.raises(CheckpointError, match=r"b\.pt: checkpoint: no such checkpoint"):
        load_detector(tmp_path / "b.pt", "cpu")
