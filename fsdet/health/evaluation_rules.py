"""The rules of the health report about evaluations: AP, use of the supports, memory."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fsdet.health.run_record import (
    Array,
    Check,
    RunRecord,
    build_check,
)
from fsdet.report import BEST_EPOCH, EARLY_EPISODES, NO_SWAP_CONTROL

CHANCE_AP50 = 0.1
"""AP50 with swapped supports in 8-way episodes of the embedded data (0.05 to 0.09); used if a run has no swap
control."""
MIN_DIFFERENCE = 0.01
"""Differences of AP50 up to this are ignored, however small their standard error."""
GROWTH = 0.1
"""Fraction by which memory may grow over the second half of a run."""


def ap(run: RunRecord) -> Check:
    """AP50 rises, or is clearly above that with swapped supports; fails only in a long run.

    Only differences above two standard errors and `MIN_DIFFERENCE` count. Stage 1 is judged by its class-agnostic
    detection of objects.
    """
    name = "object_AP50" if run.config.stage == 1 else "nAP50"
    scores = [row for row in run.scores if name in row and over_same_episodes(run, row)]
    if not scores:
        return build_check("ap", "skip", f"no evaluation with {name} yet")
    first, last = scores[0], scores[-1]
    best = max(scores, key=lambda row: row[name])
    chance = CHANCE_AP50 if run.config.stage == 1 else last.get("nAP50_swapped", CHANCE_AP50)
    if best[name] - last[name] > _error(name, best, last):
        message = f"{name} has fallen from {best[name]:.3f} at step {best['step']:.0f}; usually a too large lr"
        return build_check("ap", "warn", message, last[name])
    if last[name] - chance > _error(name, last):
        return build_check("ap", "pass", f"{name} clearly above {chance:.3f}", last[name])
    if last[name] - first[name] > _error(name, first, last):
        return build_check("ap", "pass", f"{name} rises from {first[name]:.3f}", last[name])
    message = f"{name} neither rises nor is clearly above {chance:.3f}"
    return _fail_if_long(
        run, "ap", message, "look at dfl_falls and learning/*, then raise lr", last[name]
    )


def over_same_episodes(run: RunRecord, row: Mapping[str, float]) -> bool:
    """Whether an evaluation is over the same episodes as others: no early one, and except in stage 1 not the last."""
    return EARLY_EPISODES not in row and (run.config.stage == 1 or BEST_EPOCH not in row)


def supports(run: RunRecord) -> Check:
    """The swap gap (AP50 with the correct supports minus that with swapped ones) is above 0 by two standard errors."""
    if run.config.stage == 1:
        return build_check("supports", "skip", "stage 1 does not use supports")
    if run.config.n_way == 1:
        return build_check("supports", "skip", f"swap control {NO_SWAP_CONTROL}")
    measured = [row for row in run.scores if "swap_gap" in row]
    if not measured:
        return build_check("supports", "skip", "no evaluation with the swap control yet")
    last = measured[-1]
    gap = last["swap_gap"]
    paired = "swap_gap_se" in last  # otherwise the two values are taken as independent
    error = _error("swap_gap", last) if paired else _error("nAP50", last, last)
    if gap > error:
        return build_check("supports", "pass", f"swapping them costs {gap:.3f} AP50", gap)
    message = (
        f"swapping them costs {gap:.3f} AP50, within two standard errors ({error:.3f}) of nothing"
    )
    advice = "train longer, or raise support_encoder_lr_mult and fusion_lr_mult"
    return _fail_if_long(run, "supports", message, advice, gap)


def memory(run: RunRecord) -> Check:
    """Warns if memory still grows in the second half."""
    used = _memory(run)
    if len(used) < 4:
        return build_check("memory", "skip", "needs four evaluations")
    growth = float(used[-1] / used[(len(used) - 1) // 2] - 1)
    size = f"{used[-1] / 1e6:.0f} MB"
    if growth <= GROWTH:
        return build_check("memory", "pass", f"steady at {size}", growth)
    message = (
        f"grows, now {size}: usually tensors stored with their graph, or growing caches of workers"
    )
    return build_check("memory", "warn", message, growth)


def _memory(run: RunRecord) -> Array:
    """(evaluations,) bytes."""
    return np.array([row["memory"] for row in run.scores if row.get("memory", 0) > 0], np.float64)


def _fail_if_long(run: RunRecord, name: str, message: str, advice: str, value: float) -> Check:
    """A failure in a long run, otherwise a warning."""
    if run.long:
        return build_check(name, "fail", f"{message}; {advice}", value)
    return build_check(name, "warn", f"{message}; fails from step {run.long_from} on", value)


def _error(name: str, *rows: Mapping[str, float]) -> float:
    """Two standard errors of a metric, or of the difference of two of its values, but at least `MIN_DIFFERENCE`."""
    return max(MIN_DIFFERENCE, 2 * math.hypot(*(row.get(f"{name}_se", 0.0) for row in rows)))
