"""How sure the result of a search is: whether the best is better than a baseline, and what more trials would change.

All of it is about one seed of each trial and the episodes of its last evaluation; a confirmation over fresh seeds says
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from sweeps.config import Objective, SweepSpec
from sweeps.states import State
from sweeps.study.records import TrialRecord, best_of, noise_of_difference, ranked


def verdicts(spec: SweepSpec, trials: list[TrialRecord]) -> list[str]:
    """One sentence per baseline: its difference to the best, and how sure that is; then what more trials would do."""
    best = best_of(trials, spec.objective)
    if best is None or best.value is None:
        return []
    lines = []
    for base in (t for t in trials if t.baseline):
        if base.state is State.INFEASIBLE:
            lines.append(f"baseline '{base.baseline}' exploded: {base.reason}")
        elif base.number == best.number:
            lines.append(f"baseline '{base.baseline}' is the best of all")
        elif base.value is None or base.state is not State.COMPLETED:
            lines.append(
                f"baseline '{base.baseline}' was not measured: {base.reason or base.state}"
            )
        else:
            lines.append(_against(spec, best, base))
    more = more_trials(trials, spec.objective)
    return lines if more is None else [*lines, more]


def _against(spec: SweepSpec, best: TrialRecord, base: TrialRecord) -> str:
    assert best.value is not None
    assert base.value is not None
    gain = best.value - base.value
    difference = f"best against baseline '{base.baseline}': {gain:+.4f}"
    noise, chance = noise_of_difference(best, base), chance_better(best, base, spec.objective)
    if noise is None or chance is None:
        return f"{difference}; its standard error is not known"
    better = f"better with a chance of {percent(chance)} by the noise over episodes alone"
    if abs(gain) <= noise:
        return f"{difference}, within noise (two standard errors are {noise:.4f}); {better}"
    return (
        f"{difference}, more than two standard errors ({noise:.4f}); {better}; unconfirmed: one seed, and "
        "the best of several"
    )


def chance_better(best: TrialRecord, other: TrialRecord, objective: Objective) -> float | None:
    """Probability that `best` is truly better, by the noise over episodes; None if that is not known.

    The difference of two values has a normal distribution whose standard deviation is that of their standard errors.
    """
    noise = noise_of_difference(best, other)
    if not noise or best.value is None or other.value is None:
        return None
    return NormalDist().cdf(2 * objective.sign * (best.value - other.value) / noise)


def chance_of_record(trials: int, more: int) -> float:
    """Probability that one of `more` trials is better than the best of `trials`, if all are drawn alike.

    Each of them is the best with the same probability. A sampler that learns finds more.
    """
    return more / (trials + more)


def gain_of_doubling(values: Sequence[float]) -> float:
    """How much the best of all exceeds, on average, the best of a random half: what as many trials again would gain.

    Args:
        values: of the completed trials, more is better; at least one.
    """
    found = sorted(values, reverse=True)
    # the best of a half is the k-th best of all if that is in the half and none of the better ones is
    weights = [0.5 ** (place + 1) for place in range(len(found))]
    half = sum(w * v for w, v in zip(weights, found, strict=True)) / sum(weights)
    return found[0] - half


def more_trials(trials: Sequence[TrialRecord], objective: Objective) -> str | None:
    """One sentence: what as many trials again would change; None with fewer than three completed trials."""
    own = [t for t in trials if t.baseline is None]
    done = ranked(own, objective)
    if len(done) < 3:
        return None
    values = [objective.sign * t.value for t in done if t.value is not None]
    gain, noise = gain_of_doubling(values), noise_of_difference(done[0], done[1])
    against = "" if noise is None else f"; two standard errors of a difference are {noise:.4f}"
    chance = chance_of_record(len(own), len(own))
    return (
        f"another {len(own)} trials would find a better one with a chance of {100 * chance:.0f} %, better by "
        f"about {gain / chance:.4f}{against}"  # the mean gain includes the cases without a better one
    )


def percent(chance: float) -> str:
    """A probability in words that do not claim more than it can: at most `over 99 %`."""
    if chance > 0.99:
        return "over 99 %"
    return "under 1 %" if chance < 0.01 else f"{100 * chance:.0f} %"
