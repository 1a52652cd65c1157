"""Thins long series so that every extreme survives.

Up to step `DENSE` every value is kept. Beyond it, steps are divided into stretches whose length grows with the step,
and each stretch keeps the smallest, the largest and the last of its values. So 100,000 steps become some 4,500 values,
a spike of one step is among them, and a chart, which has fewer pixels, looks the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DENSE = 2000
"""Steps of which every value is kept."""
STRETCHES = 400
"""Stretches between a step and twice that step, at least."""


def kept(steps: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) which values to keep.

    Args:
        steps: (n,) ascending, from 1.
        values: (n,) NaN is never an extreme.
    """
    mask = steps <= DENSE
    later = np.flatnonzero(~mask)
    if not later.size:
        return mask
    # the logarithm of the step counts stretches whose length is a fixed share of the step
    stretch = np.floor(np.log2(steps[later] / DENSE) * STRETCHES)
    starts = np.flatnonzero(np.diff(stretch, prepend=-1))
    for few in np.split(later, starts[1:]):
        finite = few[np.isfinite(values[few])]
        if finite.size:
            mask[finite[np.array([values[finite].argmin(), values[finite].argmax(), -1])]] = True
    return mask
