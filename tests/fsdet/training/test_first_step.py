"""What a run records of its first step; `tests/sweeps/trial/test_effect.py` shows what it proves."""

import json
from dataclasses import asdict

import torch

from fsdet.run_files import load_steps
from fsdet.train import train
from fsdet.training.first_step import digest_of


def test_digest_depends_on_every_bit():
    values, tensors = {"a": 0.1, "b": float("nan")}, [torch.ones(2, 3), torch.tensor(1.0)]
    digest = digest_of(values, tensors)
    assert digest == digest_of(dict(reversed(values.items())), [t.clone() for t in tensors])
    assert digest != digest_of({**values, "a": 0.1 + 2**-56}, tensors)
    tensors[0][1, 2] = torch.nextafter(tensors[0][1, 2], torch.tensor(2.0))
    assert digest != digest_of(values, tensors)
    assert digest != digest_of(values, [t.to(torch.bfloat16) for t in tensors])


def test_the_first_step_is_recorded_once_and_is_what_the_parts_had(small_config):
    config, reports = small_config(), []
    train(config, reports.append)
    first = reports[0].first_step
    assert all(report.first_step == first for report in reports)
    assert json.loads((config.checkpoint_dir / "first_step.json").read_text()) == asdict(first)
    assert first.step == 1
    assert first.used["lr/backbone"] == config.lr * config.backbone_lr_mult
    assert first.used["weight/dfl"] == config.dfl_weight
    row = load_steps(config.checkpoint_dir)[0]
    assert first.measured["grad/norm"] == row["grad/norm"]
    assert abs(first.measured["grad/norm_after"] - row["grad/norm_after"]) < 1e-3
