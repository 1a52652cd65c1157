"""Finds the rungs of a sweep: the lowest first rung that says something about the next one and is worth its evaluation.

A low first rung lets a sweep look at many trials. Two things speak against one, and both are read from the trials:

- Its evaluation takes longer than the training up to it.
- The trials that were promoted from it rank differently at the next rung. As in PASHA (Bohdal et al. 2023), rungs
  are kept while the ranking is stable. Promoted trials are the best of their rung, so their rank correlation is
  corrected for that selection (Thorndike's case 2), and a rung is dropped only if the correlation is low beyond
  chance.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.search.promotion import Progress
from sweeps.states import State

PRICES = 8
"""Trials whose evaluation was timed before a rung can be dropped for it: the first ones load and compile."""
PAIRS = 8
"""Trials with a value at both rungs before a rung can be dropped."""
LOW = 0.3
"""Rank correlation with the next rung below which a rung says too little."""
BOUND = 1.645
"""Standard errors above the measured correlation that must still be below `LOW`: 95 %, one-sided."""


@dataclass(frozen=True)
class Rungs:
    """Where trials pause, and why there."""

    epochs: tuple[int, ...]
    """Ascending."""
    reason: str
    """Why lower ones were dropped; empty if none was."""

    def __str__(self) -> str:
        where = ", ".join(map(str, self.epochs))
        return f"trials paused at epoch {where}" + (f"; {self.reason}" if self.reason else "")


def find_rungs(trials: Sequence[Progress], ladders: Sequence[tuple[int, ...]]) -> Rungs:
    """The first of the ladders whose first rung is worth it; the last one if none is.

    Args:
        trials: all that have begun.
        ladders: possible rungs, by their first one; ascending.
    """
    reasons: list[str] = []
    for ladder in ladders[:-1]:
        reason = too_dear(trials, ladder[0]) or says_too_little(trials, *ladder[:2])
        if reason is None:
            return Rungs(ladder, "; ".join(reasons))
        reasons.append(reason)
    return Rungs(ladders[-1] if ladders else (), "; ".join(reasons))


def too_dear(trials: Sequence[Progress], rung: int) -> str | None:
    """Why an evaluation at `rung` is not worth it; None if it is, or its price is not known yet."""
    prices = [t.price for t in trials if t.price is not None and t.state is not State.COMPLETED]
    if len(prices) < PRICES or (price := statistics.median(prices)) <= rung:
        return None
    return f"not at epoch {rung}: an evaluation takes as long as {price:.1f} epochs"


def says_too_little(trials: Sequence[Progress], rung: int, following: int) -> str | None:
    """Why ranks at `rung` mean little at the next one; None if they mean enough, or that is not known yet."""
    seen = [t for t in trials if rung in t.values and t.state is not State.INFEASIBLE]
    both = [t for t in seen if following in t.values]
    if len(both) < PAIRS:
        return None
    ranks = np.argsort(np.argsort([t.values[rung] for t in seen]))
    chosen = ranks[[following in t.values for t in seen]].astype(float)
    later = np.argsort(np.argsort([t.values[following] for t in both])).astype(float)
    measured = float(np.corrcoef(np.argsort(np.argsort(chosen)), later)[0, 1])
    widened = float(ranks.std() / chosen.std())
    upper = math.tanh(
        math.atanh(max(-0.999, min(measured, 0.999))) + BOUND / math.sqrt(len(both) - 3)
    )
    if unselected(upper, widened) >= LOW:
        return None
    return (
        f"not at epoch {rung}: over {len(both)} trials its rank correlation with epoch {following} "
        f"is {unselected(measured, widened):.2f}"
    )


def unselected(correlation: float, widened: float) -> float:
    """The correlation over all trials, from that over selected ones (Thorndike's case 2).

    Args:
        correlation: over the selected ones.
        widened: standard deviation of the selecting variable over all, divided by that of the selected.
    """
    return correlation * widened / math.sqrt(1 + correlation**2 * (widened**2 - 1))
