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
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from origin_text import BANDS, CLAIMS, INTRO, SWEEPS, Claim
from scipy.stats import spearmanr

from fsdet.run_files import iterate_steps
from sweeps.confirmation.results import CONFIRM_FOLDER
from sweeps.confirmation.statistics import Difference, Estimate, adjust, estimate, paired
from sweeps.errors import SweepError
from sweeps.report.pictures import PicturesError, write_pictures
from sweeps.report.section import Figure
from sweeps.report.style import BLUE, GREEN, GREY, RED, figure
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import find_folder
from sweeps.study.location import store_of
from sweeps.study.records import TrialRecord
from sweeps.study.study import read_trials

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "origin.md"
METRIC = "test/nAP50"
LEAST_GAIN = 0.02
"""The smallest difference of AP50 that would matter: below it a claim that something helps is refuted."""
LAST = 0.25
"""Part of a run, at its end, whose median is compared with a band."""


CLAIM_COLUMNS = ("claim", "verdict", "gain in AP50 [95 %]", "p (Holm)", "seeds", "pair")
CONFIGURATION_COLUMNS = (
    *("configuration", "AP50 on test", "exploded", "median norm"),
    *("steps clipped", "largest RMS of g²/v", "scales add up to"),
)
BAND_NOTE = (
    "Where all runs or none are inside a band, it predicts nothing; the rank correlation then says whether higher or "
    "lower goes with a better AP50."
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


@dataclass(frozen=True)
class Finding:
    """What an experiment says about a claim."""

    claim: Claim
    gain: Estimate
    """In AP50, over seeds."""
    p: float
    """After Holm's correction over all claims."""
    verdict: str


def findings(experiment: Experiment) -> list[Finding]:
    """One for each claim that both configurations were measured for."""
    found = [
        (claim, difference)
        for claim in CLAIMS
        if (difference := paired(experiment.values(claim.first), experiment.values(claim.second)))
    ]
    adjusted = adjust([difference.p for _, difference in found])
    return [
        Finding(claim, difference.estimate, p, judged(difference, p))
        for (claim, difference), p in zip(found, adjusted, strict=True)
    ]


def claim_rows(experiment: Experiment) -> Iterator[str]:
    """A row for each finding."""
    for found in findings(experiment):
        claim, gain = found.claim, found.gain
        yield row(
            claim.said,
            f"**{found.verdict}**",
            f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
            f"{found.p:.2g}",
            str(gain.count),
            f"`{claim.first}` − `{claim.second}`",
        )


COLOURS = {"supported": GREEN, "refuted": RED, "undecided": GREY}


def chart(key: str, experiment: Experiment) -> Figure:
    """The gain of every claim with its interval; the band is where a gain would not matter."""
    found = findings(experiment)[::-1]
    traces = [
        go.Scatter(
            x=[one.gain.mean for one in some],
            y=[one.claim.said for one in some],
            error_x={"array": [one.gain.half for one in some], "width": 4, "thickness": 1.6},
            mode="markers",
            marker={"color": COLOURS[verdict], "size": 9},
            name=verdict,
        )
        for verdict in COLOURS
        if (some := [one for one in found if one.verdict == verdict])
    ]
    plot = figure(
        traces,
        xaxis={"title": {"text": "gain in AP50 on the test classes, 95 % interval over seeds"}},
        yaxis={"categoryarray": [one.claim.said for one in found], "automargin": True},
        legend={"orientation": "h", "y": 1.06},
    )
    plot.add_vrect(-LEAST_GAIN, LEAST_GAIN, fillcolor=BLUE, opacity=0.08, line_width=0)
    said = "; ".join(f"{one.claim.said}: {one.verdict}" for one in found[::-1])
    return Figure(key, plot, f"Gain of each claim: {said}", 520)


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


def reasons() -> list[str]:
    """Why, for each claim."""
    return ["## Why", "", *(f"- *{claim.said}*: {claim.why}" for claim in CLAIMS), ""]


def draw(experiments: Sequence[Experiment], folder: Path) -> None:
    """Write the chart of each experiment to `folder`, where a browser is installed."""
    charts = [chart(one.folder.name, one) for one in experiments]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for path in write_pictures(charts, Path(temporary)):
                shutil.copy(path, folder / path.name)
        except PicturesError as error:
            print(f"no charts: {error}", file=sys.stderr)


def section(experiment: Experiment, title: str, command: str) -> list[str]:
    """What one operating point says."""
    return [
        f"## {title}",
        "",
        f"    {command}",
        "",
        f"![The gain of each claim](pictures/{experiment.folder.name}.png)",
        "",
        *table(
            CLAIM_COLUMNS,
            claim_rows(experiment),
        ),
        *table(
            CONFIGURATION_COLUMNS,
            configuration_rows(experiment),
        ),
        BAND_NOTE,
        "",
        *table(
            BAND_COLUMNS,
            band_rows(experiment),
        ),
    ]  # fmt: skip


def main() -> int:
    """Write the page from the sweeps that there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", help="folder or URL of the sweeps")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    parts = [INTRO]
    found: list[Experiment] = []
    for name, title, command in SWEEPS:
        try:
            experiment = load(name, options.storage)
        except SweepError as error:
            print(f"left out: {error}", file=sys.stderr)
            parts.append(f"## {title}\n\n    {command}\n\nNot run yet.\n")
            continue
        found.append(experiment)
        parts.append("\n".join(section(experiment, title, command)))
    if not found:
        print("error: none of the sweeps is there; run the commands above first", file=sys.stderr)
        return 2
    parts.append("\n".join(reasons()))
    draw(found, options.out.parent / "pictures")
    options.out.write_text("\n".join(parts), encoding="utf-8")
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
