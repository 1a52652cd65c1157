"""Draws `docs/origin.md`: what an experiment says about each conclusion that a team drew by hand.

    python -m sweeps.run origin_claims.yaml
    python -m sweeps.run origin_claims.yaml --name origin_claims_low --set fixed.lr=1e-4 --set fixed.n_episodes=64
    python benchmarks/origin_claims.py

A claim is a pair of configurations that differ in what it speaks of, run at the same fresh seeds and measured
on the test classes. It is supported if the first is better than the second beyond noise (paired t-test, Holm's
correction over all claims of a table), refuted if it is worse, or if its 95 % interval leaves no room for a
gain of `LEAST_GAIN`, and undecided otherwise. A sweep that has not ended is read as far as it came.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from fsdet.run_files import iterate_steps
from sweeps.confirmation.results import CONFIRM_FOLDER
from sweeps.confirmation.statistics import Difference, adjust, estimate, paired
from sweeps.errors import SweepError
from sweeps.states import State
from sweeps.storage.folder import SweepFolder, find_folder
from sweeps.study.location import store_of
from sweeps.study.study import TrialRecord, read_trials

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "origin.md"
METRIC = "test/nAP50"
LEAST_GAIN = 0.02
"""The smallest difference of AP50 that would matter: below it a claim that something helps is refuted."""
LAST = 0.25
"""Part of a run, at its end, whose median is compared with a band."""


INTRO = """# What was really so: the conclusions of one team, each as an experiment

A team trained a few-shot detector, saw a gradient norm of 4.97 million in stage 2 and a DFL loss that would not
move, and found by hand what let them go on: clip at 10 instead of 1, weigh DFL 0.5 instead of 1.5, a learning
rate for each module. They did honest work with one run at a time and no way to tell a cause from a coincidence.
Here each conclusion is a pair of configurations that differ in it alone, trained at the same fresh seeds from
the shipped stage-1 checkpoint on the embedded data, and measured once, on test classes.

*Supported*: better beyond noise (paired t-test over seeds, Holm's correction over the claims of a table, 5 %).
*Refuted*: worse beyond noise, or the 95 % interval leaves no room for a gain of 0.02 AP50. *Undecided*:
neither. This page is written by `python benchmarks/origin_claims.py` from two sweeps; what each mode does
stands in [training.md](training.md).

One claim needs no training. *"The gradient exploded because four scales add up."* The norm of a sum of four
parts is at most four times their mean norm, twice if they are unrelated; the column *scales add up to* shows
what was measured. Four scales do not make 8 into millions; [historical_failure.md](historical_failure.md) shows
what did.
"""


@dataclass(frozen=True)
class Claim:
    """A conclusion of the team, as a pair of configurations."""

    said: str
    first: str
    """Name of the configuration that should be the better one."""
    second: str
    """Name of the other one."""


@dataclass(frozen=True)
class Band:
    """A range that the team's checklist gives for a value at the end of a run."""

    name: str
    key: str
    low: float
    high: float


CLAIMS = (
    Claim("clip the gradient norm at 10, not at 1", "by_hand", "clip_1"),
    Claim("clip at all", "by_hand", "no_clip"),
    Claim("weigh DFL with 0.5, not 1.5", "by_hand", "dfl_1.5"),
    Claim("train the backbone, do not freeze it", "by_hand", "frozen_backbone"),
    Claim("a rate for each module, not one for all", "by_hand", "one_rate"),
    Claim("lower the backbone's rate, do not scale its gradient (AdamW)", "adamw_slowed", "adamw_scaled"),
    Claim("scaling the backbone's gradient by 0.1 helps (AdamW)", "adamw_scaled", "adamw_full"),
    Claim("lower the backbone's rate, do not scale its gradient (SGD)", "sgd_slowed", "sgd_scaled"),
    Claim("scaling the backbone's gradient by 0.1 helps (SGD)", "sgd_scaled", "sgd_full"),
    Claim("adaptive clipping (AGC) helps", "agc", "by_hand"),
    Claim("clipping AdamW's update helps", "update", "by_hand"),
    Claim("clipping spikes of the norm (ZClip) helps", "zclip", "by_hand"),
    Claim("clipping each tensor by its own history (AdaGC) helps", "adagc", "by_hand"),
)  # fmt: skip
"""In the order of the page."""
BANDS = (
    Band("gradient norm 5 to 15", "grad/norm", 5, 15),
    Band("total loss 5 to 8", "train/loss/total", 5, 8),
    Band("DFL 1.0 to 1.5 nats", "train/loss/dfl", 1.0, 1.5),
    Band("box loss 0.2 to 0.8", "train/loss/bbox", 0.2, 0.8),
    Band("classification 0.3 to 0.5", "train/loss/cls", 0.3, 0.5),
    Band("SupCon 0.4 to 0.6", "train/loss/supcon", 0.4, 0.6),
)


CLAIM_COLUMNS = ("claim", "verdict", "gain in AP50 [95 %]", "p (Holm)", "seeds", "pair")
CONFIGURATION_COLUMNS = (
    *("configuration", "AP50 on test", "exploded", "median norm"),
    *("steps clipped", "largest RMS of g²/v", "scales add up to"),
)
BAND_COLUMNS = (
    *("the checklist's band, at the end", "runs inside", "AP50 inside − outside [95 %]"),
    *("rank correlation with AP50", "p"),
)


@dataclass(frozen=True)
class Run:
    """One training of a configuration at a seed."""

    record: TrialRecord
    folder: Path

    @property
    def value(self) -> float | None:
        """AP50 on the test classes; None if it exploded or has not ended."""
        done = self.record.state is State.COMPLETED
        return self.record.metrics.get(METRIC) if done else None

    @cached_property
    def series(self) -> dict[str, np.ndarray]:
        """Value of each step, of what this page reads."""
        rows = list(iterate_steps(self.folder))
        keys = {band.key for band in BANDS} | {"grad/clipped", "grad/accumulation", "grad/rms"}
        return {k: np.array([row.get(k, math.nan) for row in rows]) for k in keys}

    def at_the_end(self, key: str) -> float:
        """Median over the last quarter of the steps."""
        values = self.series[key]
        return float(np.median(values[-max(1, round(LAST * len(values))) :]))


@dataclass(frozen=True)
class Experiment:
    """All runs of a sweep's confirmation."""

    folder: SweepFolder
    runs: dict[str, dict[int, Run]]
    """Configuration -> seed -> run."""

    def values(self, name: str) -> dict[int, float]:
        """Seed -> AP50 of the completed runs of a configuration."""
        found = self.runs.get(name, {})
        return {seed: run.value for seed, run in found.items() if run.value is not None}

    def exploded(self, name: str) -> int:
        """Number of runs of a configuration that exploded."""
        runs = self.runs.get(name, {}).values()
        return sum(run.record.state is State.INFEASIBLE for run in runs)

    @property
    def all_runs(self) -> list[Run]:
        """All that completed."""
        runs = [run for by_seed in self.runs.values() for run in by_seed.values()]
        return [run for run in runs if run.value is not None]


def load(name: str, storage: str | None) -> Experiment:
    """The runs of a sweep's confirmation, as far as it came.

    Raises:
        SweepError: there is no such sweep.
    """
    folder = find_folder(name, storage)
    runs: dict[str, dict[int, Run]] = {}
    for record in read_trials(store_of(folder).beside(CONFIRM_FOLDER)):
        preset = record.preset
        if (
            preset is not None
            and preset.baseline
            and record.state in (State.COMPLETED, State.INFEASIBLE)
        ):
            run = Run(record, folder.path / CONFIRM_FOLDER / preset.key)
            runs.setdefault(preset.baseline, {})[preset.overrides["seed"]] = run
    return Experiment(folder, runs)


def judged(difference: Difference, adjusted: float) -> str:
    """Supported, refuted or undecided."""
    found = difference.estimate
    if adjusted < 0.05:
        return "supported" if found.mean > 0 else "refuted"
    return "refuted" if found.high < LEAST_GAIN else "undecided"


def claim_rows(experiment: Experiment) -> Iterator[str]:
    """A row for each claim that both configurations were measured for."""
    found = [
        (claim, difference)
        for claim in CLAIMS
        if (difference := paired(experiment.values(claim.first), experiment.values(claim.second)))
    ]
    adjusted = adjust([difference.p for _, difference in found])
    for (claim, difference), p in zip(found, adjusted, strict=True):
        gain = difference.estimate
        yield row(
            claim.said,
            f"**{judged(difference, p)}**",
            f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
            f"{p:.2g}",
            str(gain.count),
            f"`{claim.first}` − `{claim.second}`",
        )


def configuration_rows(experiment: Experiment) -> Iterator[str]:
    """A row for each configuration: its AP50, how often it exploded, what was clipped."""
    for name, runs in sorted(experiment.runs.items()):
        values = list(experiment.values(name).values())
        mean = estimate(values) if len(values) > 1 else None
        shown = "—" if mean is None else f"{mean.mean:.4f} ± {mean.half:.4f}"
        shares = {
            key: [
                float(np.nanmean(run.series[key]))
                for run in runs.values()
                if np.isfinite(run.series[key]).any()
            ]
            for key in ("grad/clipped", "grad/rms", "grad/accumulation")
        }
        norms = [float(np.median(run.series["grad/norm"])) for run in runs.values()]
        yield row(
            f"`{name}`", shown, f"{experiment.exploded(name)} of {len(runs)}",
            f"{statistics.median(norms):.3g}",
            *(f"{statistics.mean(found):.2f}" if found else "—" for found in shares.values()),
        )  # fmt: skip


def band_rows(experiment: Experiment) -> Iterator[str]:
    """A row for each band of the checklist: does being inside it predict anything?"""
    runs = experiment.all_runs
    values = np.array([run.value for run in runs], dtype=float)
    for band in BANDS:
        ends = np.array([run.at_the_end(band.key) for run in runs])
        inside = (ends >= band.low) & (ends <= band.high)
        known = np.isfinite(ends) & (np.ptp(ends) > 0)
        rank = spearmanr(ends[known], values[known]) if known.any() else None
        yield row(
            band.name,
            f"{inside.sum()} of {len(runs)}",
            gain_of(values[inside], values[~inside]),
            *(("—", "—") if rank is None else (f"{rank.statistic:+.2f}", f"{rank.pvalue:.1g}")),
        )


def gain_of(inner: np.ndarray, outer: np.ndarray) -> str:
    """Difference of two means with its 95 % interval."""
    if min(len(inner), len(outer)) < 2:
        return "—"
    half = 1.96 * math.sqrt(inner.var(ddof=1) / len(inner) + outer.var(ddof=1) / len(outer))
    mean = inner.mean() - outer.mean()
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], rows: Iterator[str]) -> list[str]:
    """A Markdown table."""
    return [row(*head), row(*["---"] * len(head)), *rows, ""]


def section(experiment: Experiment, title: str, command: str) -> list[str]:
    """What one operating point says."""
    return [
        f"## {title}",
        "",
        f"    {command}",
        "",
        *table(
            CLAIM_COLUMNS,
            claim_rows(experiment),
        ),
        *table(
            CONFIGURATION_COLUMNS,
            configuration_rows(experiment),
        ),
        *table(
            BAND_COLUMNS,
            band_rows(experiment),
        ),
    ]  # fmt: skip


LOW_RATE = (
    "python -m sweeps.run origin_claims.yaml --name origin_claims_low "
    "--set fixed.lr=1e-4 --set fixed.n_episodes=64"
)
SWEEPS = (
    (
        "origin_claims",
        "At a rate that suits 128 steps (lr 3e-3)",
        "python -m sweeps.run origin_claims.yaml",
    ),
    (
        "origin_claims_low",
        "At the team's own rate (lr 1e-4), 1024 steps",
        LOW_RATE,
    ),
)
"""Name of the sweep, title of its section, command that runs it."""


def main() -> int:
    """Write the page from the sweeps that there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", help="folder or URL of the sweeps")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    parts = [INTRO]
    found = 0
    for name, title, command in SWEEPS:
        try:
            experiment = load(name, options.storage)
        except SweepError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        found += 1
        parts.append("\n".join(section(experiment, title, command)))
    if not found:
        print("error: none of the sweeps is there; run the commands above first", file=sys.stderr)
        return 2
    options.out.write_text("\n".join(parts), encoding="utf-8")
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
