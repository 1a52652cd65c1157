"""Does DFL come down? The line of the health report that sees targets which are not distances.

Where the targets of DFL are absolute image coordinates and not distances from the anchor point, DFL and the box
loss pull the same distributions to different places. Boxes are still found, so neither a norm nor AP alone
shows it. But whoever finds boxes by right targets knows them by DFL too. Measured on the embedded data, stages 1
and 2, from random weights and from a checkpoint, 42 runs of 110 to 1000 steps: with AP50 of boxes above 0.2, right
targets had DFL at 0.25 to 0.55 of uniform, wrong ones at 0.72 (after 1000 steps) to 1.8. Runs with right targets
and a small learning rate lie between, with AP50 below 0.1; of these a short run only warns. Weights that learn nothing
(learning rate 1e-8) had 1.01 to 1.04 of uniform, wrong targets without boxes 1.09 to 1.16 after 100 steps.

A clamp leaves a loss without gradient wherever it holds. Two signs show it in the second half of a run. Steps that it
holds altogether are equal to the last digits, while losses of different images are not: the largest group of equal
values was at most 8 % with right targets, also of weights that learn nothing, and 16 to 88 % behind a clamp. And what
it holds in part crowds below its ceiling, while losses spread farther upwards than downwards: the largest value lay 2.4
to 12 times as far from the median as the lower quartile with right targets, 0.07 to 0.39 times behind a clamp of each
anchor point at batch size 1. Where a step has many anchor points, such a clamp shows neither sign (6 %, 1.5 times), and
DFL fails only by its height (`python benchmarks/spread.py --only dfl`).
"""

from __future__ import annotations

import math

import numpy as np

from fsdet.health.evidence import (
    SHORTEST_WINDOW,
    Array,
    Check,
    Evidence,
    build_check,
    finite_of,
    median,
)

PATIENCE = 100
"""Steps with positives before which nothing is said."""
LEARNED, WORSE = 0.65, 1.07
"""Parts of the uniform loss, ln(reg_max): up to the first DFL has come down, above the second it is worse than that
of untrained weights."""
FOUND = 0.2
"""AP50 from which on boxes are found."""
HELD, EQUAL = 0.2, 1e-4
"""Where more than this part of the values in the second half of a run are equal, up to this relative difference,
something holds DFL."""


def dfl_falls(run: Evidence) -> Check:
    """DFL per side lies clearly below uniform; fails where it does not though the boxes or the steps say it should."""
    values = _measured(run)
    if run.config.dfl_weight == 0 or not len(values):
        return build_check("dfl_falls", "skip", "dfl_weight is 0, or no step had positives")
    now, start = median(values[-run.window :]), median(values[:SHORTEST_WINDOW])
    if len(values) < PATIENCE:
        return build_check(
            "dfl_falls", "skip", f"too early to tell before {PATIENCE} steps with positives", now
        )
    uniform = math.log(run.config.reg_max)
    told = (
        f"{now / uniform:.0%} of the uniform {uniform:.2f} nats per side, {start:.2f} at the start"
    )
    if sign := _clamped(values[len(values) // 2 :]):
        cure = f"{sign}: something clamps it, so that it has no gradient"
        return build_check("dfl_falls", "fail", f"DFL does not move: {told}; {cure}", now)
    if now <= LEARNED * uniform:
        return build_check("dfl_falls", "pass", told, now)
    if reason := _reason(run, now / uniform):
        cure = (
            "usually its targets are not distances from the anchor point in stride units (absolute coordinates, "
            "another number of bins); compare them with fsdet.models.head.boxes_to_ltrb"
        )
        told = f"DFL does not come down {reason}: {told}; {cure}"
        return build_check("dfl_falls", "fail", told, now)
    return build_check("dfl_falls", "warn", f"DFL is still high: {told}; train longer", now)


def _clamped(values: Array) -> str:
    """By what `values` show a clamp; empty if they do not."""
    if (share := held_share(values)) > HELD:
        return f"{share:.0%} of the later values are equal"
    return "the later values crowd below a ceiling" if headroom(values) < 1 else ""


def headroom(values: Array) -> float:
    """How far the largest of `values` lies above their median, in distances from there down to the lower quartile."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 1.0))
    return float((high - middle) / (middle - low)) if middle > low else math.inf


def held_share(values: Array) -> float:
    """Part of `values`, which must not be empty, in the largest group of equal ones."""
    ordered = np.sort(values)
    ends = np.searchsorted(ordered, ordered * (1 + EQUAL), side="right")
    return float(np.max(ends - np.arange(len(ordered))) / len(ordered))


def _measured(run: Evidence) -> Array:
    """DFL of every step that had positives; without any the loss is 0 and says nothing."""
    values = run.all("train/loss/dfl")
    return finite_of(values[run.all("train/positives") != 0])


def _reason(run: Evidence, part: float) -> str:
    """Why DFL at `part` of uniform is a fault; empty if it may still come down."""
    if (ap50 := _boxes_found(run)) >= FOUND:
        return f"though boxes are found (AP50 {ap50:.2f})"
    if part > WORSE:
        return "and is worse than untrained weights"
    return f"in {len(run.steps)} steps" if run.long else ""


def _boxes_found(run: Evidence) -> float:
    """The best AP50 of any evaluation, with or without classes."""
    names = ("object_AP50", "nAP50")
    return max((row.get(name, 0.0) for row in run.scores for name in names), default=0.0)
