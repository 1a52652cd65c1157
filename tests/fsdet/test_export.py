import hashlib
import json

import pytest
import torch

from fsdet.engine.restore import load_detector
from fsdet.errors import CheckpointError
from fsdet.export import export
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
    assert small["reference_norm"] == whole["reference_norm"]
    assert facts["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert json.loads(out.with_suffix(".json").read_text())["metrics"] == facts["metrics"]
    detector, config = load_detector(out, "cpu")
    assert not detector.training
    assert config.resume is None
    assert train(small_config(resume=out, stage=3, checkpoint_dir=tmp_path / "next")).steps > 0


def test_a_folder_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        export(tmp_path, tmp_path / "out.pt")
