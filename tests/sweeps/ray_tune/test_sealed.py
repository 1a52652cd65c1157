"""What Ray Tune carries unseen, and what it keeps of trials that have ended."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from ray import cloudpickle
from ray.tune.experiment import Trial

from sweeps.ray_tune import internals
from sweeps.ray_tune.adapters import REPORT, to_result
from sweeps.ray_tune.sealed import Sealed
from sweeps.trial.messages import TrialReport


def test_a_report_arrives_as_it_was_sent_and_is_short_in_log_messages():
    history = {"step": np.arange(1e5), "grad/norm": np.ones(100_000)}
    result = to_result(
        TrialReport("final", 100_000, 3, metrics={"val/nAP50": 0.5}, history=history)
    )
    assert len(repr(result)) < 200
    arrived = cloudpickle.loads(cloudpickle.dumps(result))[REPORT].value
    assert (arrived.phase, arrived.step, arrived.metrics) == ("final", 100_000, {"val/nAP50": 0.5})
    assert np.array_equal(arrived.history["step"], history["step"])


def test_a_value_is_unpickled_once_and_not_before_it_is_used():
    text = cloudpickle.dumps(Sealed("the value"))
    assert b"the value" in text
    sealed = cloudpickle.loads(text)
    assert sealed.value == "the value"
    assert sealed.value is sealed.value
    assert copy.deepcopy(sealed) is sealed


def test_discarded_value_is_gone_wherever_it_was_copied_to():
    sealed = Sealed("x" * 10_000)
    config, unresolved = {"request": sealed}, copy.deepcopy({"request": sealed})
    sealed.discard()
    assert len(cloudpickle.dumps([config, unresolved])) < 500
    with pytest.raises(EOFError):
        _ = unresolved["request"].value


def test_trial_that_has_ended_keeps_no_results_and_asks_no_worker_for_one():
    trial = Trial("any", stub=True)
    trial._default_result_or_future = {"pid": 1}
    for step in range(1, 5):
        trial.update_last_result({"value": 0.5 * step, "training_iteration": step, "pid": 1})
    internals.forget_results(trial)
    record = trial.run_metadata
    assert (record.metric_analysis, record.metric_n_steps) == ({}, {})
    assert trial.last_result == {"done": True, "trial_id": trial.trial_id}
    assert trial._default_result_or_future is None
