"""What evaluations tell of a run: AP, the use of the supports, memory. Lines of the health report."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fsdet.engine.health_evidence import Array, Check, Evidence, build_check
from fsdet.engine.report import BEST_EPOCH

NOTHING = 0.1
"""AP50 that wrong supports reach in 8-way episodes of the embedded data (.05 to .09); stands in where the
run has no swap control."""
LEAST = 0.01
"""Differences of AP50 up to this say nothing, however small their standard error."""
GROWTH = 0.1
"""Part by which memory may grow over the second half of a run."""


def ap(run: Evidence) -> Check:
    """AP50 rises, or lies clearly above what wrong supports reach; fails only in a long run.

    Differences count from two standard errors and `LEAST` on. Stage 1 is judged by the objects it finds, of
    whatever class.
    """
    name = "object_AP50" if run.config.stage == 1 else "nAP50"
    scores = [row for row in run.scores if name in row and is_compared(run, row)]
    if not scores:
        return build_check("ap", "skip", f"no evaluation with {name} yet")
    first, last = scores[0], scores[-1]
    best = max(scores, key=lambda row: row[name])
    nothing = NOTHING if run.config.stage == 1 else last.get("nAP50_swapped", NOTHING)
    if best[name] - last[name] > _error(name, best, last):
        told = f"{name} has fallen from {best[name]:.3f} at step {best['step']:.0f}; usually a too large lr"
        return build_check("ap", "warn", told, last[name])
    if last[name] - nothing > _error(name, last):
        return build_check("ap", "pass", f"{name} clearly above {nothing:.3f}", last[name])
    if last[name] - first[name] > _error(name, first, last):
        return build_check("ap", "pass", f"{name} rises from {first[name]:.3f}", last[name])
    told = f"{name} neither rises nor lies clearly above {nothing:.3f}"
    return _late(run, "ap", told, "look at dfl_falls and learning/*, then raise lr", last[name])


def is_compared(run: Evidence, row: Mapping[str, float]) -> bool:
    """Whether an evaluation is one of those over the same episodes: the last one is not, but for stage 1 it is all."""
    return run.config.stage == 1 or BEST_EPOCH not in row


def supports(run: Evidence) -> Check:
    """The swap gap, AP50 with the right supports minus that with wrong ones, is more than two errors above 0."""
    if run.config.stage == 1:
        return build_check("supports", "skip", "stage 1 has no supports to use")
    measured = [row for row in run.scores if "swap_gap" in row]
    if not measured:
        return build_check("supports", "skip", "no evaluation with the swap control yet")
    last = measured[-1]
    gap = last["swap_gap"]
    paired = "swap_gap_se" in last  # else the error of a difference of two independent values
    error = _error("swap_gap", last) if paired else _error("nAP50", last, last)
    if gap > error:
        return build_check("supports", "pass", f"swapping them costs {gap:.3f} AP50", gap)
    told = (
        f"swapping them costs {gap:.3f} AP50, within two standard errors ({error:.3f}) of nothing"
    )
    cure = "train longer, or raise support_encoder_lr_mult and fusion_lr_mult"
    return _late(run, "supports", told, cure, gap)


def memory(run: Evidence) -> Check:
    """Warns if memory still grows in the second half."""
    used = _memory(run)
    if len(used) < 4:
        return build_check("memory", "skip", "needs four evaluations")
    growth = float(used[-1] / used[(len(used) - 1) // 2] - 1)
    size = f"{used[-1] / 1e6:.0f} MB"
    if growth <= GROWTH:
        return build_check("memory", "pass", f"steady at {size}", growth)
    told = f"grows, now {size}: usually tensors kept with their graph, or growing caches of workers"
    return build_check("memory", "warn", told, growth)


def _memory(run: Evidence) -> Array:
    """(evaluations,) bytes."""
    return np.array([row["memory"] for row in run.scores if row.get("memory", 0) > 0], np.float64)


def _late(run: Evidence, name: str, told: str, cure: str, value: float) -> Check:
    """A failure in a long run, else a warning."""
    if run.long:
        return build_check(name, "fail", f"{told}; {cure}", value)
    return build_check(name, "warn", f"{told}; fails from step {run.long_from} on", value)


def _error(name: str, *rows: Mapping[str, float]) -> float:
    """Two standard errors of a metric, or of the difference of two of its values, but at least `LEAST`."""
    return max(LEAST, 2 * math.hypot(*(row.get(f"{name}_se", 0.0) for row in rows)))
