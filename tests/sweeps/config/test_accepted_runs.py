"""What the check accepts runs: random sweeps, every trial to its end, with a made-up trainer in this process."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from session_parts import Driver, report_of
from yaml_files import load

from fsdet.config import TrainConfig
from sweeps.config import SweepSpec
from sweeps.errors import SweepError
from sweeps.study.store import JournalStore
from sweeps.trial.messages import TrialRequest

FLOATS = (
    "lr",
    "weight_decay",
    "fusion_lr_mult",
    "gradient_clip_norm",
    "bbox_weight",
    "supcon_weight",
)
WHOLE = ("gradient_accumulation", "batch_size", "n_episodes", "train_scenes", "epochs")
EDGES = [
    1e-320,
    1e-300,
    1e-12,
    0.01,
    0.1,
    0.5,
    1,
    1.0000000000000002,
    1.5,
    3,
    10,
    1e6,
    1e15,
    1e99,
    1e100,
    1e300,
]
COUNTS = [0, 1, 2, 3, 7, 16, 64, 4096, 2**31, 2**32, 2**53, 2**63, 10**30]


def floats() -> st.SearchStrategy[Any]:
    """A range or choices of a real number, many of them at the edge of what can be computed."""
    number = st.sampled_from(EDGES) | st.floats(0.001, 1e6)
    pair = st.tuples(number, number).map(sorted)
    return st.one_of(
        st.builds(lambda ends, log: {"low": ends[0], "high": ends[1], "log": log}, pair, st.booleans()),
        st.builds(lambda low, step, count: {"low": low, "high": low + step * count, "step": step},
                  st.sampled_from([1, 5]), st.sampled_from([0.25, 1e-3, 1e-12, 2]),
                  st.sampled_from([1, 4, 1000, 10**9])),
        st.lists(number, min_size=1, max_size=4, unique=True).map(lambda values: {"choices": values}),
    )  # fmt: skip


def whole_numbers() -> st.SearchStrategy[Any]:
    """A range or choices of a whole number."""
    count = st.sampled_from(COUNTS) | st.integers(16, 40)
    pair = st.tuples(count, count).map(sorted)
    return st.one_of(
        st.builds(lambda ends, log: {"low": ends[0], "high": ends[1], "log": log}, pair, st.booleans()),
        st.lists(count, min_size=1, max_size=4, unique=True).map(lambda values: {"choices": values}),
    )  # fmt: skip


@st.composite
def sweep_values(draw: st.DrawFn) -> dict[str, Any]:
    """A sweep's YAML; most pass the check."""
    names = draw(st.lists(st.sampled_from([*FLOATS, *WHOLE]), min_size=1, max_size=3, unique=True))
    space = {name: draw(floats() if name in FLOATS else whole_numbers()) for name in names}
    sampler = {
        "name": draw(st.sampled_from(["random", "random", "tpe", "qmc", "grid", "cmaes"])),
        "seed": draw(st.sampled_from([0, 1, 2**31, 2**32 - 1])),
        "startup_trials": draw(st.sampled_from([1, 2, 6, 10**5])),
    }
    reduction = draw(st.sampled_from([1.1, 1.5, 3, 4, 1000]))
    scheduler = {"name": draw(st.sampled_from(["asha", "asha", "none"])), "reduction": reduction}
    grace = draw(st.sampled_from([None, None, 1, 3, 10**12]))
    values: dict[str, Any] = {
        "name": "random",
        "space": space,
        "fixed": {"seed": draw(st.sampled_from([0, 2**32 - 1]))},
        "sampler": sampler,
        "scheduler": {**scheduler, "grace": grace} if grace else scheduler,
        "resources": {"cpus": draw(st.sampled_from([1, 0.5, 0.01, 1e6, 3.5]))},
        "stall_minutes": draw(st.sampled_from([None, 0.01, 1e5])),
        "prior": {"width": draw(st.sampled_from([0.25, 1, 1e-6]))},
    }
    if "epochs" not in space:
        values["fixed"]["epochs"] = draw(st.sampled_from([1, 3, 9, 81, 10**9]))
    if sampler["name"] != "grid":
        values["trials"] = draw(st.sampled_from([1, 2, 6]))
    return values


def run_to_the_end(spec: SweepSpec, most: int = 40) -> int:
    """Run the trials of `spec`, at most `most` stretches of them; returns how many."""
    session = Driver(spec, JournalStore(Path("study.journal").absolute()))
    for stretch in range(most):
        request = session.next()
        if not isinstance(request, TrialRequest):
            return stretch
        assert isinstance(request.config, TrainConfig)
        value = math.sin(request.number) ** 2
        if request.until is None:
            session.end(request.number, report_of(request.config.epochs, value, "final"))
        else:
            session.pause(request.number, request.until, value)
    return most


def run_in_a_folder(values: dict[str, Any]) -> None:
    """Check the sweep, and run it if the check accepts it."""
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            try:
                spec = load(yaml.safe_dump(values))
            except SweepError:
                event("refused")
                assume(False)
            assert run_to_the_end(spec) > 0
        finally:
            os.chdir(before)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=sweep_values())
def test_a_sweep_that_passes_the_check_runs_to_its_end(values):
    run_in_a_folder(values)


REFUSED = {
    "sampler.seed=4294967296": "less than 4294967296",
    "fixed.seed=4294967296": "less than 4294967296",
    "resources.cpus=1e-300": "greater than or equal to 0.01",
    "resources.gpus=0.001": "must be 0 or at least 0.01",
    "resources.gpus=1.5": "above 1 must be a whole number",
    "scheduler.reduction=1.0000001": "greater than or equal to 1.1",
    "stall_minutes=1e300": "less than or equal to 100000",
    "stall_minutes=1e-300": "greater than or equal to 0.01",
    "budget.hours=1e308": "less than or equal to 1000000",
    "prior.width=1e-300": "greater than or equal to 0.000001",
    "confirm.seeds=1000000000": "must be at most 1000",
    "trials=100000000000": "less than or equal to 10000000",
    "space.lr.high=1e300": "must lie between -1e+100 and 1e+100",
    "space.lr={low: 1, high: 2, step: 1e-12}": "step must leave at most 1e+09 values",
    "space.lr={low: 1, high: 1e90, step: 1e-12}": "step must leave at most 1e+09 values",
    "space.train_scenes={low: 16, high: 1e30}": "high must be at most 2^53 in magnitude",
    "fixed.epochs=[1]": "input should be a valid integer",
    "fixed.eval_episodes=many": "input should be a valid integer",
    "space.epochs={choices: [many, 2]}": "input should be a valid integer",
    "scheduler.name=[asha]": "must be 'asha' or 'none'",
    "storage.path=~nobody_x/x": "the home directory of this user is not known",
    "fixed.resume=~nobody_x/x": "the home directory of this user is not known",
}  # fmt: skip
GOOD = "name: good\nspace:\n  lr: {low: 0.001, high: 0.1}\ntrials: 4\n"


@pytest.mark.parametrize("override", REFUSED)
def test_what_would_end_a_sweep_later_is_refused_at_the_door(override):
    with pytest.raises(SweepError) as caught:
        load(GOOD, override)
    assert REFUSED[override] in str(caught.value)
    assert "\n" not in str(caught.value)
