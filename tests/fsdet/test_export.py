import hashlib
import json
from pathlib import Path

import pytest
import torch

from fsdet.checkpoint.content import load_detector, save_checkpoint
from fsdet.config import TrainConfig
from fsdet.device import usable_device
from fsdet.errors import CheckpointError, ConfigError, DataError
from fsdet.evaluation.metrics import evaluate_run
from fsdet.export import export, main, write_pair
from fsdet.models.detector import build_detector
from fsdet.train import train


def test_the_file_holds_the_average_and_what_a_next_stage_needs(small_config, tmp_path):
    result = train(small_config(ema_decay=0.9, lr=1e-2, epochs=1))
    out = tmp_path / "small.pt"
    facts = export(result.run_dir, out)
    whole, small = (torch.load(p, weights_only=True) for p in (result.checkpoint, out))
    assert out.stat().st_size < result.checkpoint.stat().st_size / 5
    assert "optimizer" not in small
    for name, tensor in whole["ema"].items():
        expected = tensor.half() if tensor.is_floating_point() else tensor
        assert torch.equal(small["detector"][name], expected), name
    assert small["trained_on"] == whole["trained_on"] != []
    assert facts["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert json.loads(out.with_suffix(".json").read_text())["metrics"] == facts["metrics"]
    detector, config = load_detector(out, "cpu")
    assert not detector.training
    assert config.resume is None
    assert train(small_config(resume=out, stage=3, checkpoint_dir=tmp_path / "next")).steps > 0


def test_backbone_weights_that_have_moved_are_not_missed(small_config, tmp_path):
    """And the metrics are those of the file."""
    run_dir, out = tmp_path / "run", tmp_path / "small.pt"
    save(run_dir, small_config(yolo_weights=tmp_path / "moved.pt", eval_draws=1))
    facts = export(run_dir, out)
    device = usable_device("auto")  # where the export evaluates
    detector, config = load_detector(out, device)
    assert facts["metrics"] == pytest.approx(evaluate_run(detector, config, device, final=True))


def test_a_failure_leaves_neither_file(small_config, tmp_path):
    """Whether before the weights are written or behind them."""
    run_dir, out = tmp_path / "run", tmp_path / "new" / "small.pt"
    save(run_dir, small_config(dataset="coco", data_root=tmp_path / "moved", eval_draws=1))
    with pytest.raises(DataError):
        export(run_dir, out)
    assert not out.parent.exists()
    with pytest.raises(TypeError):  # no JSON
        write_pair(out, {"detector": {}}, small_config(), {"metrics": {1j}})
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["small", "small.json", "folder.pt", "notes.pt", "file/small.pt"])
def test_a_file_that_cannot_be_written_is_refused_at_once(small_config, tmp_path, name):
    for folder in ("folder.pt", "notes.json"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^OUT\.pt: "):
        export(tmp_path / "no_run", tmp_path / name)


def test_a_mistake_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["export", str(tmp_path), str(tmp_path / "out.pt")])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: holds no checkpoint")


def save(run_dir: Path, config: TrainConfig) -> None:
    """A checkpoint of untrained weights."""
    weights = build_detector(config.model_copy(update={"yolo_weights": None, "seed": 1}))
    state = {"stage": 2, "step": 0, "trained_on": [], "criterion": {}}
    state |= {"detector": weights.state_dict()}
    save_checkpoint(run_dir / "stage2_epoch0001.pt", state, config)


def test_a_folder_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        export(tmp_path, tmp_path / "out.pt")
