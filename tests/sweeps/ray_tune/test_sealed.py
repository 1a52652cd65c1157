"""What Ray Tune carries unseen."""

from __future__ import annotations

import copy

import numpy as np
from ray import cloudpickle

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
