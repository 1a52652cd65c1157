"""The only package that uses MLflow: a parent run per sweep, a nested run per trial.

Only the driver writes, never a trial. Writes are queued and sent by one thread in batches, so that a slow
server never delays a trial. A failed write is logged as a warning and never ends the sweep; a store that
cannot be opened at the start does.

A run of an earlier session is found by its tags and continued; its values are not written twice.
"""

from sweeps.tracking.store import (
    STUDY_TAG,
    StoredRun,
    find_run,
    find_trial_run,
    recorded_uri,
    tracking_uri,
)
from sweeps.tracking.tracker import Tracker

__all__ = [
    "STUDY_TAG",
    "StoredRun",
    "Tracker",
    "find_run",
    "find_trial_run",
    "recorded_uri",
    "tracking_uri",
]
