"""The rule for DFL, which detects targets that are not distances from the anchor point.

If the targets of DFL are absolute image coordinates instead of distances from the anchor point, DFL and the box loss
pull the same distributions to different places. Boxes are still found, so neither a norm nor AP alone shows the
fault. But with correct targets DFL falls when boxes are found. Measured on the embedded data, stages 1
and 2, from random weights and from a checkpoint, 42 runs of 110 to 1000 steps: with AP50 of boxes above 0.2, correct
targets had DFL at 0.25 to 0.55 of uniform, wrong ones at 0.72 (after 1000 steps) to 1.8. Runs with correct targets
and a small learning rate lie between, with AP50 below 0.1; of these a short run only warns. Weights that learn nothing
(learning rate 1e-8) had 1.01 to 1.04 of uniform, wrong targets without boxes 1.09 to 1.16 after 100 steps.

A clamped loss has no gradient. Two signs show a clamp in the second half of a run. Steps that are clamped entirely are
equal to the last digits, while losses of different images are not: the largest group of equal values was at most 8 %
with correct targets, also of weights that learn nothing, and 16 to 88 % with a clamp. And steps that are clamped in
part are close below the ceiling, while losses otherwise spread farther upwards than downwards: the distance of the
largest value from the median was 2.4 to 12 times that of the lower quartile with correct targets, and 0.07 to 0.39
times with a clamp of each anchor point at batch size 1. If a step has many anchor points, such a clamp shows neither
sign (6 %, 1.5 times), and DFL fails only by its value (`python benchmarks/spread.py --only dfl`).
"""

from __future__ import annotations

import math

import numpy as np

from fsdet.health.run_record import (
    MIN_WINDOW,
    Array,
    Check,
    RunRecord,
    build_check,
    finite_of,
    median,
)

MIN_STEPS = 100
"""Minimum number of steps with positives for a verdict."""
LEARNED, WORSE = 0.65, 1.07
"""Fractions of the uniform loss, ln(reg_max): below the first DFL has fallen; above the second it is worse than with
untrained weights."""
BOXES_FOUND = 0.2
"""Boxes count as found from this AP50 on."""
EQUAL_SHARE, EQUAL = 0.2, 1e-4
"""If more than this fraction of the values in the second half of a run is equal, up to this relative difference, DFL is
clamped."""


def dfl_falls(run: RunRecord) -> Check:
    """DFL per side is clearly below uniform; fails if it is not, although boxes are found or the run is long."""
    values = _measured(run)
    if run.config.dfl_weight == 0 or not len(values):
        return build_check("dfl_falls", "skip", "dfl_weight is 0, or no step had positives")
    now, start = median(values[-run.window :]), median(values[:MIN_WINDOW])
    if len(values) < MIN_STEPS:
        return build_check(
            "dfl_falls", "skip", f"too early to judge before {MIN_STEPS} steps with positives", now
        )
    uniform = math.log(run.config.reg_max)
    message = (
        f"{now / uniform:.0%} of the uniform {uniform:.2f} nats per side, {start:.2f} at the start"
    )
    if sign := _clamped(values[len(values) // 2 :]):
        advice = f"{sign}: something clamps it, so that it has no gradient"
        return build_check("dfl_falls", "fail", f"DFL does not change: {message}; {advice}", now)
    if now <= LEARNED * uniform:
        return build_check("dfl_falls", "pass", message, now)
    if reason := _fault(run, now / uniform):
        advice = (
            "usually its targets are not distances from the anchor point in stride units (absolute coordinates, "
            "another number of bins); compare them with fsdet.models.head.boxes_to_ltrb"
        )
        message = f"DFL does not fall {reason}: {message}; {advice}"
        return build_check("dfl_falls", "fail", message, now)
    return build_check("dfl_falls", "warn", f"DFL is still high: {message}; train longer", now)


def _clamped(values: Array) -> str:
    """The sign of a clamp in `values`; empty if they show none."""
    if (share := equal_share(values)) > EQUAL_SHARE:
        return f"{share:.0%} of the later values are equal"
    return "the later values are close below a ceiling" if headroom(values) < 1 else ""


def headroom(values: Array) -> float:
    """Distance of the maximum of `values` from their median, divided by that of the lower quartile."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 1.0))
    return float((high - middle) / (middle - low)) if middle > low else math.inf


def equal_share(values: Array) -> float:
    """Fraction of `values`, which must not be empty, in the largest group of equal ones."""
    ordered = np.sort(values)
    ends = np.searchsorted(ordered, ordered * (1 + EQUAL), side="right")
    return float(np.max(ends - np.arange(len(ordered))) / len(ordered))


def _measured(run: RunRecord) -> Array:
    """DFL of every step with positives; without any the loss is 0."""
    values = run.all("train/loss/dfl")
    return finite_of(values[run.all("train/positives") != 0])


def _fault(run: RunRecord, part: float) -> str:
    """Why DFL at `part` of uniform is a fault; empty if it may still fall."""
    if (ap50 := _best_ap50(run)) >= BOXES_FOUND:
        return f"though boxes are found (AP50 {ap50:.2f})"
    if part > WORSE:
        return "and is worse than untrained weights"
    return f"in {len(run.steps)} steps" if run.long else ""


def _best_ap50(run: RunRecord) -> float:
    """The best AP50 of any evaluation, with or without classes."""
    names = ("object_AP50", "nAP50")
    return max((row.get(name, 0.0) for row in run.scores for name in names), default=0.0)
