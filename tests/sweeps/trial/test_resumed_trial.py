"""A trial of the real trainer that was cut off, or paused, and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import small_spec
from trial_requests import context_for, request_for

from fsdet.data import openmoji
from sweeps.config import SweepSpec
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


@pytest.fixture(autouse=True)
def _few_scenes(in_own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSDET_CACHE", str(in_own_folder / "cache"))
    monkeypatch.setattr(openmoji, "EVAL_SCENES", 32)
    monkeypatch.setattr(openmoji, "SUPPORT_VARIANTS", 3)


@pytest.mark.slow
def test_a_trial_resumes_from_its_own_checkpoint_without_a_change(in_own_folder):
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


def trained(spec: SweepSpec, folder: Path, url: str | None, *legs: int | None) -> list[TrialReport]:
    """The reports of a trial that trains one leg after the other; its files are in `folder / "0000"`."""
    context, reports = context_for(spec, folder, url), list[TrialReport]()
    for until in legs:
        run_trial(context, request_for(spec, {"lr": 0.01}, until=until), reports.append)
    context.download("0000", (*FILES, *WEIGHTS))
    return reports


FILES = ("steps.jsonl", "evaluations.jsonl")
WEIGHTS = ("stage2_epoch0004.pt", "best.pt")


@pytest.mark.slow
@pytest.mark.parametrize("remote", [False, True])
def test_a_trial_that_is_promoted_twice_equals_one_that_never_pauses(in_own_folder, remote):
    scheduler = {"name": "asha", "grace": 1, "reduction": 2}
    spec = small_spec(fixed={**SMALL, "epochs": 4, "eval_interval": 4}, scheduler=scheduler)
    assert spec.rungs == (1, 2)
    url = f"file://{in_own_folder}/storage/trials" if remote else None
    reports = trained(spec, in_own_folder / "paused", url, 1, 2, None)
    whole = trained(spec, in_own_folder / "whole", None, None)
    told = [(r.phase, r.epoch, r.objective) for r in reports]
    assert [phase for phase, _, _ in told] == ["paused", "running", "paused", "running", "final"]
    assert [epoch for _, epoch, _ in told] == [1, 1, 2, 2, 4]
    assert [r.objective for r in reports[::2]] == [r.objective for r in whole]
    assert reports[-1].best == whole[-1].best
    assert not any(r.set_aside for r in reports)
    paused, never = (in_own_folder / name / "0000" for name in ("paused", "whole"))
    assert (paused / "steps.jsonl").read_bytes() == (never / "steps.jsonl").read_bytes()
    evaluations = [
        [{k: v for k, v in json.loads(line).items() if k != "memory"} for line in text.splitlines()]
        for text in ((folder / "evaluations.jsonl").read_text() for folder in (paused, never))
    ]
    assert evaluations[0] == evaluations[1]
    for name in WEIGHTS:
        one, other = (torch.load(f / name, weights_only=True)["detector"] for f in (paused, never))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
