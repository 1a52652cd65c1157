"""A trial of the real trainer that was cut off, and goes on."""

from __future__ import annotations

import pytest
import torch
from conftest import small_spec
from trial_requests import context_for, request_for

from fsdet.data import openmoji
from sweeps.trial.messages import TrialReport
from sweeps.trial.trial import run_trial

SMALL = {
    "image_size": 64,
    "support_size": 32,
    "train_scenes": 32,
    "n_query": 1,
    "n_shot": 2,
    "n_episodes": 2,
    "batch_size": 2,
    "gradient_accumulation": 1,
    "epochs": 2,
    "eval_episodes": 2,
}


class CutOffError(BaseException):
    """As a worker ends: nothing catches it."""


@pytest.mark.slow
def test_a_trial_resumes_from_its_own_checkpoint_without_a_change(in_own_folder, monkeypatch):
    monkeypatch.setenv("FSDET_CACHE", str(in_own_folder / "cache"))
    monkeypatch.setattr(openmoji, "EVAL_SCENES", 32)
    monkeypatch.setattr(openmoji, "SUPPORT_VARIANTS", 3)
    spec = small_spec(fixed=SMALL)
    context, request = context_for(spec, in_own_folder / "trials"), request_for(spec, {"lr": 0.01})

    def cut_off(_: TrialReport) -> None:
        raise CutOffError

    with pytest.raises(CutOffError):
        run_trial(context, request, cut_off)
    reports: list[TrialReport] = []
    run_trial(context, request, reports.append)
    assert [(r.phase, r.epoch) for r in reports] == [("running", 1), ("final", 2)]
    newest = torch.load(context.run_dir(request.folder) / "stage2_epoch0002.pt", weights_only=True)
    assert newest["changed"] == []
