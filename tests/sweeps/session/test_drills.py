"""The shortest of the drills (`make drills` runs all): break a sweep, resume it, find nothing lost."""

from __future__ import annotations

import drills
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_driver_killed_three_times(tmp_path):
    wrongs, _ = drills.kill_driver(tmp_path / "drill", kills=3, seed=1)
    assert wrongs == []


def test_sigterm_stops_cleanly_and_can_be_gone_on_from(tmp_path):
    wrongs, _ = drills.sigterm(tmp_path / "drill", most=300)  # `make drills` asks for 10 s
    assert wrongs == []


def test_trial_on_a_lost_node_goes_on_elsewhere(tmp_path):
    wrongs, _ = drills.node_lost(tmp_path / "drill")
    assert wrongs == []
