"""Evaluation: average precision over fixed episodes, ST-IoU over videos, confidence intervals."""
