from pathlib import Path

import pytest
import torch

from fsdet.engine.checkpoint import load_checkpoint, save_checkpoint
from fsdet.engine.restore import load_detector, usable_device
from fsdet.errors import CheckpointError, ConfigError
from fsdet.models.detector import build_detector


def save(path: Path, config, **state) -> Path:
    weights = build_detector(config, config, 1).state_dict()
    save_checkpoint(path, {"stage": 2, "step": 0, "detector": weights, **state}, config)
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
    average = build_detector(config, config, 2).state_dict()
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
    save_checkpoint(path, {"stage": 2, "detector": {"x": torch.zeros(1)}}, small_config())
    with pytest.raises(CheckpointError, match=r"a\.pt: checkpoint: its weights do not fit"):
        load_detector(path, "cpu")
    with pytest.raises(CheckpointError, match=r"b\.pt: checkpoint: no such checkpoint"):
        load_detector(tmp_path / "b.pt", "cpu")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="device: 'cuda:99' cannot be used"):
        usable_device("cuda:99")
    with pytest.raises(ConfigError, match="device: 'gpu' cannot be used"):
        usable_device("gpu")
    assert usable_device("cpu") == "cpu"
