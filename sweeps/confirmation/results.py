"""Results of a confirmation and the conclusions: feasible configurations, winner, ablation.

Configurations are ranked by their means over the seeds at which all of them were measured, so that none
gains from a run that failed at a hard seed. One that exploded at any seed is excluded.

The winner is the highest-ranked configuration among those that are better than the best baseline beyond
noise; if no configuration is, that baseline is recommended. Holm's correction covers the comparisons of all
candidates with all baselines: if no candidate is truly better than any baseline, one is called better in at
most 5 % of sweeps, whatever their numbers. The winner's mean itself is still slightly optimistic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsdet.errors import cut
from fsdet.files import write_text_atomic
from fsdet.reading import read_json
from sweeps.config.sections import Mode, sign_of
from sweeps.confirmation.candidates import Candidate
from sweeps.confirmation.statistics import (
    LEAST_SEEDS,
    Difference,
    Estimate,
    Verdict,
    adjust,
    estimate,
    paired,
    verdict,
)
from sweeps.errors import SweepError
from sweeps.states import State
from sweeps.study.records import TrialRecord

CONFIRM_FILE = "confirm.json"
"""File in the sweep's folder, written when all runs have been measured."""
CONFIRM_FOLDER = "confirm"
"""Folder of the runs, in that of the sweep; name of their study; suffix of their tag `sweep.id`."""


@dataclass(frozen=True)
class CandidateResult:
    """One configuration with its runs by seed."""

    candidate: Candidate
    results: dict[int, TrialRecord]

    def values(self, metric: str) -> dict[int, float]:
        """Seed -> value, of the completed runs."""
        done = {s: r for s, r in self.results.items() if r.state is State.COMPLETED}
        return {s: r.metrics[metric] for s, r in done.items() if metric in r.metrics}

    def with_state(self, state: State) -> dict[int, str]:
        """Seed -> reason, of the runs in this state."""
        return {s: r.reason for s, r in self.results.items() if r.state is state}

    @property
    def infeasible(self) -> bool:
        """Whether it exploded at any seed."""
        return bool(self.with_state(State.INFEASIBLE))

    def estimate(self, metric: str, seeds: Collection[int]) -> Estimate | None:
        """Mean over those of `seeds` that have a value; None if none has."""
        values = [value for seed, value in self.values(metric).items() if seed in seeds]
        return estimate(values) if values else None


@dataclass(frozen=True)
class Comparison:
    """A configuration against another one, seed by seed."""

    first: Candidate
    second: Candidate
    difference: Difference
    adjusted: float
    """p-value after Holm's correction."""
    verdict: Verdict
    """First against second."""


@dataclass(frozen=True)
class Confirmation:
    """All results of a confirmation, and the conclusions as properties."""

    metric: str
    mode: Mode
    seeds: tuple[int, ...]
    configurations: tuple[CandidateResult, ...]
    """Candidates and baselines."""
    ablation: tuple[CandidateResult, ...] = ()
    """The winner with one setting at a time as in the best baseline."""

    @property
    def baselines(self) -> list[CandidateResult]:
        """The baselines among the configurations."""
        return [m for m in self.configurations if m.candidate.baseline]

    @property
    def feasible(self) -> list[CandidateResult]:
        """Configurations that can be compared and recommended; best mean over common seeds first.

        None exploded at any seed. While fewer than `LEAST_SEEDS` seeds have a value of each, the one
        with the fewest values is left out; of equals the last candidate, and baselines last.
        """
        found = [m for m in self.configurations if self.is_feasible(m)]
        while found and len(self._common(found)) < LEAST_SEEDS:
            found.remove(min(reversed(found), key=self._completeness))
        seeds, sign = self._common(found), sign_of(self.mode)
        return sorted(found, key=lambda m: -sign * sum(m.values(self.metric)[s] for s in seeds))

    @property
    def common_seeds(self) -> tuple[int, ...]:
        """Seeds at which every feasible configuration was measured."""
        return self._common(self.feasible)

    def is_feasible(self, measured: CandidateResult) -> bool:
        """Whether it exploded at no seed and was measured at enough of them."""
        return not measured.infeasible and len(measured.values(self.metric)) >= LEAST_SEEDS

    def estimate(self, measured: CandidateResult, metric: str | None = None) -> Estimate | None:
        """Mean of `metric` (None for the objective); of a feasible configuration over the common seeds."""
        seeds = self.common_seeds if measured in self.feasible else self.seeds
        return measured.estimate(metric or self.metric, seeds)

    def _common(self, some: Sequence[CandidateResult]) -> tuple[int, ...]:
        values = [m.values(self.metric) for m in some]
        return tuple(s for s in self.seeds if some and all(s in one for one in values))

    def _completeness(self, measured: CandidateResult) -> tuple[int, bool]:
        return len(measured.values(self.metric)), measured.candidate.baseline is not None

    @property
    def best_baseline(self) -> CandidateResult | None:
        """The feasible baseline with the best mean."""
        return next((m for m in self.feasible if m.candidate.baseline), None)

    @property
    def comparisons(self) -> list[Comparison]:
        """Every feasible candidate against every feasible baseline: one family."""
        bases = [m for m in self.feasible if m.candidate.baseline]
        others = [m for m in self.feasible if not m.candidate.baseline]
        return self.compare([(m, base) for base in bases for m in others])

    def compare(self, pairs: Sequence[tuple[CandidateResult, CandidateResult]]) -> list[Comparison]:
        """One family of comparisons, each over all seeds that the pair has in common.

        A pair that has too few of them is left out.
        """
        found = [
            (first.candidate, second.candidate, difference)
            for first, second in pairs
            if (difference := paired(first.values(self.metric), second.values(self.metric)))
        ]
        adjusted = adjust([difference.p for _, _, difference in found])
        return [
            Comparison(first, second, difference, p, verdict(difference, p, self.mode))
            for (first, second, difference), p in zip(found, adjusted, strict=True)
        ]

    @property
    def winner(self) -> CandidateResult | None:
        """What is recommended; None if nothing is feasible."""
        base = self.best_baseline
        if base is None:
            return next(iter(self.feasible), None)
        better = [
            c.first
            for c in self.comparisons
            if c.second == base.candidate and c.verdict == "better"
        ]
        return next((m for m in self.feasible if m.candidate in better), base)

    @property
    def contributions(self) -> list[Comparison]:
        """The winner against each of its feasible ablations."""
        winner = self.winner
        if winner is None:
            return []
        return self.compare([(winner, m) for m in self.ablation if self.is_feasible(m)])


def save_confirmation(path: Path, confirmation: Confirmation, summary: list[str]) -> None:
    """Write the results as JSON, with the conclusions for human readers.

    Args:
        path: of the JSON file.
        confirmation: the results.
        summary: the conclusions as sentences.
    """
    winner = confirmation.winner
    values = {
        "metric": confirmation.metric,
        "mode": confirmation.mode,
        "seeds": confirmation.seeds,
        "configurations": [_result_to_dict(one) for one in confirmation.configurations],
        "ablation": [_result_to_dict(one) for one in confirmation.ablation],
        "summary": summary,
        "winner": None if winner is None else winner.candidate.label,
        "common_seeds": confirmation.common_seeds,
        "comparisons": [_comparison_to_dict(c) for c in confirmation.comparisons],
        "contributions": [
            {"factor": c.second.factor, **_comparison_to_dict(c)}
            for c in confirmation.contributions
        ],
    }
    write_text_atomic(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _result_to_dict(result: CandidateResult) -> dict[str, Any]:
    keys = ("number", "state", "reason", "metrics", "best_epoch")
    runs = {
        seed: {key: getattr(record, key) for key in keys} for seed, record in result.results.items()
    }
    return {"candidate": asdict(result.candidate), "results": runs}


def _comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    found = comparison.difference.estimate
    return {
        "first": comparison.first.label,
        "second": comparison.second.label,
        "difference": found.mean,
        "interval": None if math.isnan(found.half) else [found.low, found.high],
        "seeds": found.count,
        "p": comparison.difference.p,
        "p_holm": comparison.adjusted,
        "verdict": comparison.verdict,
    }


CURE = "restore it from a backup, or remove it and resume the sweep with --resume"
"""Of a damaged file: the runs themselves are in the study."""


def load_confirmation(path: Path) -> Confirmation | None:
    """Load what `save_confirmation` wrote; None if there is no such file.

    Raises:
        SweepError: it is damaged.
    """
    if not path.is_file():
        return None
    values = read_json(path, SweepError, cure=CURE)
    try:
        parts = {
            name: tuple(_result_from_dict(one) for one in values[name])
            for name in ("configurations", "ablation")
        }
        return Confirmation(values["metric"], values["mode"], tuple(values["seeds"]), **parts)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        rule = f"is not what a confirmation wrote ({cut(str(error))})"
        raise SweepError(f"{path}: {rule}; {CURE}") from None


def load_findings(path: Path) -> dict[str, Any] | None:
    """The content of what `save_confirmation` wrote, with its conclusions; None if there is no such file."""
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path, SweepError, cure=CURE)
    return found


def _result_from_dict(values: dict[str, Any]) -> CandidateResult:
    runs = {
        int(seed): TrialRecord(**{**run, "state": State(run["state"]), "parameters": {}})
        for seed, run in values["results"].items()
    }
    return CandidateResult(Candidate(**values["candidate"]), runs)
