"""How a trial ended, told by its last report and a crash."""

from __future__ import annotations

from sweeps.states import Outcome, State
from sweeps.trial.messages import BestValue, TrialReport, outcome_of


def test_end_without_report():
    assert outcome_of(None, crash="it died") == Outcome(State.FAILED, "it died")
    assert outcome_of(None).state is State.FAILED
    assert outcome_of(TrialReport("running")).state is State.FAILED


def test_pause_says_where():
    assert outcome_of(TrialReport("paused", epoch=3)) == Outcome(State.PAUSED, "at epoch 3")


def test_a_crash_counts_more_than_what_was_reported_before():
    assert outcome_of(TrialReport("running"), crash="it died").state is State.FAILED


def test_end_without_a_value_is_a_failure():
    assert outcome_of(TrialReport("final")).state is State.FAILED
    assert outcome_of(TrialReport("final", best=BestValue(None, 1))).state is State.FAILED
