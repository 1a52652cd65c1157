"""Checkpoints: what is in one (`content`), and how the one that a user names is found (`lookup`)."""

from fsdet.checkpoint.content import (
    as_float,
    load_checkpoint,
    load_detector,
    read_checkpoint,
    restore_detector,
    save_checkpoint,
    score_threshold_of,
    store_score_threshold,
    weights_of,
)
from fsdet.checkpoint.lookup import find_checkpoint, find_run

__all__ = [
    "as_float",
    "find_checkpoint",
    "find_run",
    "load_checkpoint",
    "load_detector",
    "read_checkpoint",
    "restore_detector",
    "save_checkpoint",
    "score_threshold_of",
    "store_score_threshold",
    "weights_of",
]
