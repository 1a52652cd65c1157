"""The smallest difference that a sweep can resolve."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import small_spec

from sweeps.confirmation.candidates import Candidate
from sweeps.confirmation.resolution import resolution_lines, spread_over_seeds
from sweeps.confirmation.results import (
    CONFIRM_FILE,
    CandidateResult,
    Confirmation,
    save_confirmation,
)
from sweeps.confirmation.statistics import power, smallest_gain
from sweeps.states import State
from sweeps.storage.lookup import new_folder
from sweeps.study.records import TrialRecord

METRIC = "test/nAP50"
CONFIRMED = {"confirm": {"top_k": 2, "seeds": 5}, "baselines": {"b": {"lr": 0.1}}}


def confirmation(*values: list[float]) -> Confirmation:
    """Configurations with these values, one for each seed."""
    found = tuple(
        CandidateResult(
            Candidate(f"trial {n}", f"trial_{n}", {"lr": 0.1}),
            {
                seed: TrialRecord(seed, State.COMPLETED, {}, v, metrics={METRIC: v})
                for seed, v in enumerate(row)
            },
        )
        for n, row in enumerate(values)
    )
    return Confirmation(METRIC, "max", tuple(range(len(values[0]))), found)


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_smallest_gain_has_the_wanted_power(shared):
    gain = smallest_gain(5, 4, shared, 0.8)
    assert power(gain, 5, 4, shared) == pytest.approx(0.8, abs=0.005)


def test_spread_is_pooled_over_configurations():
    found = confirmation([0.3, 0.32, 0.34], [0.1, 0.1, 0.1])
    assert spread_over_seeds(found) == pytest.approx(np.sqrt(0.02**2 / 2))
    assert spread_over_seeds(confirmation([0.3], [0.2])) is None


def test_search_alone_resolves_two_standard_errors_of_a_difference():
    (line,) = resolution_lines(small_spec(), 0.01)
    assert "a difference of about 0.028 in val/nAP50" in line
    assert resolution_lines(small_spec(), None) == []


def test_confirmation_is_in_standard_deviations_until_one_is_known():
    (line,) = resolution_lines(small_spec(**CONFIRMED), None)
    assert line.endswith("how large these are is known after a first confirmed sweep")


def test_earlier_sweep_of_the_name_gives_the_spread(in_own_folder):
    folder = new_folder("small", numbered=True)
    folder.save_spec(small_spec(**CONFIRMED), {})
    save_confirmation(folder.path / CONFIRM_FILE, confirmation([0.30, 0.32, 0.34, 0.36]), [])
    (line,) = resolution_lines(small_spec(**CONFIRMED), None)
    least, most = (smallest_gain(5, 2, shared, 0.8) for shared in (0.5, 0.0))
    spread = np.std([0.30, 0.32, 0.34, 0.36], ddof=1)
    assert f"{least * spread:.3f} to {most * spread:.3f} at the spread of {folder.name}" in line
