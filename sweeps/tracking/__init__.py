"""The only package that uses MLflow: a parent run per sweep, a nested run per trial.

Only the driver writes, never a trial. Writes are queued and sent by threads in batches, so that a slow server never
delays a trial, and one that is away gets them when it is back. A database in a file gets one transaction a second, any
other store calls of MLflow. A store that cannot be opened at the start ends the sweep, nothing that happens to it later
does.

A run of an earlier session is found by its tags and continued; its values are not written twice.
"""

from sweeps.tracking.store import (
    STUDY_TAG,
    WINNER_TAG,
    StoredRun,
    find_run,
    find_trial_run,
    recorded_uri,
    sqlite_file,
    tracking_uri,
)
from sweeps.tracking.tracker import Tracker
from sweeps.tracking.view import RANK, View
from sweeps.tracking.writer import NAME_TAG

__all__ = [
    "NAME_TAG",
    "RANK",
    "STUDY_TAG",
    "WINNER_TAG",
    "StoredRun",
    "Tracker",
    "View",
    "find_run",
    "find_trial_run",
    "recorded_uri",
    "sqlite_file",
    "tracking_uri",
]
