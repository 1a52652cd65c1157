"""How often a confirmation calls a candidate better when none is (false positives) and when one is (power).

Simulated values are ranked and tested by the package's own functions. Each table is for one number of
candidates and baselines and one fraction of the variance that runs of a seed share:
`python benchmarks/confirmation.py [--sweeps 4000]`, some minutes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from sweeps.confirmation.candidates import Candidate
from sweeps.confirmation.results import CandidateResult, Confirmation
from sweeps.confirmation.statistics import power
from sweeps.states import State
from sweeps.study.records import TrialRecord

METRIC = "test/nAP50"
SPREAD = 0.01
"""Standard deviation of one configuration over seeds."""
SEEDS = (3, 5, 8, 10)
GAINS = (1, 2)


@dataclass(frozen=True)
class Design:
    """What is simulated."""

    seeds: int = 5
    candidates: int = 3
    baselines: int = 1
    shared: float = 0.0
    """Part of the variance that runs at a seed have in common."""
    gain: float = 0.0
    """By which the first candidate is truly better, in standard deviations over seeds."""


@dataclass(frozen=True)
class Rates:
    """Parts of the simulated sweeps."""

    any_better: float
    """In which any candidate was called better than any baseline."""
    wins: float
    """In which a candidate was recommended."""
    found: float
    """In which the first candidate was called better than the first baseline."""


def confirmation_of(design: Design, rng: np.random.Generator) -> Confirmation:
    """One simulated confirmation."""
    rows = design.candidates + design.baselines
    common = rng.normal(0, design.shared**0.5, design.seeds)
    values = common + rng.normal(0, (1 - design.shared) ** 0.5, (rows, design.seeds))
    values[0] += design.gain
    measured = []
    for row, line in enumerate(0.4 + SPREAD * values):
        label = f"{row}"
        baseline = label if row >= design.candidates else None
        results = {
            seed: TrialRecord(seed, State.COMPLETED, {}, metrics={METRIC: float(value)})
            for seed, value in enumerate(line)
        }
        measured.append(CandidateResult(Candidate(label, label, {}, baseline=baseline), results))
    return Confirmation(METRIC, "max", tuple(range(design.seeds)), tuple(measured))


def rates(design: Design, sweeps: int) -> Rates:
    """Simulate `sweeps` confirmations."""
    rng = np.random.default_rng(0)
    counts = np.zeros(3)
    first, base = "0", str(design.candidates)
    for _ in range(sweeps):
        simulated = confirmation_of(design, rng)
        better = {
            (c.first.label, c.second.label) for c in simulated.comparisons if c.verdict == "better"
        }
        winner = simulated.winner
        assert winner is not None
        counts += (bool(better), winner.candidate.baseline is None, (first, base) in better)
    return Rates(*(counts / sweeps))


def table(candidates: int, baselines: int, shared: float, sweeps: int) -> None:
    """Print the rates for every number of seeds."""
    print(
        f"\n{candidates} candidates, {baselines} baselines, {shared:g} of the variance shared\n"
        f"{'seeds':>5}  {'none is better:':>15}  {'':>9}  "
        + "  ".join(f"{f'gain of {gain}:':>10}  {'':>10}" for gain in GAINS)
    )
    head = "  ".join(f"{'found':>10}  {'calculated':>10}" for _ in GAINS)
    print(f"{'':>5}  {'any better':>15}  {'one wins':>9}  {head}")
    for seeds in SEEDS:
        null = rates(Design(seeds, candidates, baselines, shared), sweeps)
        cells = []
        for gain in GAINS:
            found = rates(Design(seeds, candidates, baselines, shared, gain), sweeps).found
            least = power(gain, seeds, candidates * baselines, shared)
            cells.append(f"{found:10.1%}  {least:10.1%}")
        print(f"{seeds:5}  {null.any_better:15.1%}  {null.wins:9.1%}  {'  '.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=4000, help="simulated for each figure")
    options = parser.parse_args()
    for candidates, baselines in ((1, 1), (3, 1), (3, 2)):
        for shared in (0.0, 0.5):
            table(candidates, baselines, shared, options.sweeps)


if __name__ == "__main__":
    main()
