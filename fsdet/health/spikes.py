"""Spike scores: at which share of its steps the gradient norm or the loss of a run jumped.

Losses and norms of trials with other settings cannot be compared; how often they lie far outside their own recent past
can. A step is a spike if its value is at least 7 standard deviations away from the mean of the steps before it in a
rolling window, as in OLMo 2 (2025), section 3. That window has the last 1000 steps, this one the last 100, since runs
here have some hundred steps. A value that is not finite is left out: the line `finite` of the health report counts
these, and a loss scaler that looks for its scale makes some.

Computed on the host from the values of a step, which it costs nothing to bring there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

WINDOW, MIN_STEPS = 100, 20
"""Steps in the rolling window, and the fewest by which a value is judged."""
DEVIATIONS = 7.0
"""Standard deviations from the mean at which a value is a spike."""
SCORES = {
    "norm": ("grad/spike_score", "grad/norm"),
    "loss": ("train/spike_score", "train/loss/total"),
}
"""Series -> its score, and the value of a step that it is about."""


class SpikeScores:
    """The scores of a run, step by step."""

    def __init__(self) -> None:
        self._windows = {name: deque[float](maxlen=WINDOW) for name in SCORES}
        self._spikes = dict.fromkeys(SCORES, 0)
        self._steps = dict.fromkeys(SCORES, 0)

    def update(self, values: Mapping[str, float]) -> dict[str, float]:
        """Count one step.

        Args:
            values: of the step; those that `SCORES` names.

        Returns:
            each score, the share of spikes among all steps so far.
        """
        scores = {}
        for name, (score, key) in SCORES.items():
            if math.isfinite(values[key]):
                self._spikes[name] += is_spike(values[key], self._windows[name])
                self._windows[name].append(values[key])
                self._steps[name] += 1
            scores[score] = self._spikes[name] / max(self._steps[name], 1)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            name: {
                "window": list(self._windows[name]),
                "spikes": self._spikes[name],
                "steps": self._steps[name],
            }
            for name in SCORES
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        for name in SCORES:
            self._windows[name] = deque(state[name]["window"], maxlen=WINDOW)
            self._spikes[name] = state[name]["spikes"]
            self._steps[name] = state[name]["steps"]


def is_spike(value: float, before: deque[float]) -> bool:
    """Whether `value` lies far outside the window of values before it; never while they are few."""
    if len(before) < MIN_STEPS:
        return False
    window = np.array(before)
    return bool(abs(value - window.mean()) >= DEVIATIONS * max(window.std(), 1e-12))
