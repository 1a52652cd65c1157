"""Draws `docs/origin.md`: what an experiment says about each conclusion that a team drew by hand.

    python -m sweeps.run origin_claims.yaml
    python -m sweeps.run origin_claims.yaml --name origin_claims_low --set fixed.lr=1e-4 --set fixed.n_episodes=64
    python benchmarks/origin_claims.py

A claim is a pair of configurations that differ in what it speaks of, run at the same fresh seeds and measured on the
test classes. Its verdict is that of two paired t-tests, each with Holm's correction over the claims of its table:
is there a difference (two-sided), and is a gain of `LEAST_GAIN` excluded (one-sided)? A sweep that has not ended is
read as far as it came.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from origin_bands import band_cells
from origin_runs import Experiment, Figures, load, measured, shown
from origin_text import (
    BAND_COLUMNS,
    BANDS_TEXT,
    CLAIM_COLUMNS,
    CONFIGURATION_COLUMNS,
    CONFIGURATION_NOTE,
    INTRO,
    LEAST_GAIN,
    MODES,
    MODES_TEXT,
    POINTS,
    SCALES_TEXT,
    TEAM,
    Claim,
    Point,
)

from sweeps.confirmation.statistics import ALPHA, Estimate, holm, paired
from sweeps.errors import SweepError
from sweeps.report.pictures import PicturesError, write_pictures
from sweeps.report.section import Figure
from sweeps.report.style import BLUE, GREEN, GREY, RED, figure

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "origin.md"
OF_TENSORS = ("update", "adagc")
"""Configurations whose clip mode clips each tensor by itself."""
COLOURS = {"supported": GREEN, "refuted": RED, "undecided": GREY}


@dataclass(frozen=True)
class Finding:
    """What an experiment says about a claim."""

    claim: Claim
    gain: Estimate
    """In AP50, over seeds."""
    p: float
    """That there is no difference, after Holm's correction."""
    p_gain: float
    """That the gain is at least `LEAST_GAIN`, after Holm's correction."""

    @property
    def verdict(self) -> str:
        """Supported, refuted with the way in which it is, or undecided."""
        differs = self.p < ALPHA
        if differs and self.gain.mean < 0:
            return "refuted (worse)"
        if self.p_gain < ALPHA:
            return f"refuted (gain < {LEAST_GAIN})"
        return "supported" if differs else "undecided"


def findings(claims: Sequence[Claim], experiment: Experiment) -> list[Finding]:
    """One for each claim that both configurations were measured for."""
    found = []
    for claim in claims:
        first, second = (experiment.values(name) for name in (claim.first, claim.second))
        difference = paired(first, second)
        beyond = paired({seed: value - LEAST_GAIN for seed, value in first.items()}, second)
        if difference and beyond:
            p = beyond.p / 2 if beyond.estimate.mean < 0 else 1 - beyond.p / 2
            found.append(Finding(claim, difference.estimate, difference.p, p))
    p, p_gain = (holm([getattr(one, key) for one in found]) for key in ("p", "p_gain"))
    return [
        Finding(one.claim, one.gain, *both) for one, *both in zip(found, p, p_gain, strict=True)
    ]


def claim_rows(claims: Sequence[Claim], experiment: Experiment) -> Iterator[str]:
    """A row for each finding."""
    for found in findings(claims, experiment):
        claim = found.claim
        yield row(
            *(claim.said, f"**{found.verdict}**", shown(found.gain), f"{found.p:.2g}"),
            *(f"{found.p_gain:.2g}", f"`{claim.first}` − `{claim.second}`"),
        )


def overview(experiments: Sequence[tuple[Point, Experiment]]) -> list[str]:
    """The verdict on each conclusion of the team at each operating point, side by side."""
    by_point = [{f.claim.said: f for f in findings(TEAM, one)} for _, one in experiments]
    rows = (
        row(said, *(f"{found[said].verdict}, {found[said].gain.mean:+.3f}" for found in by_point))
        for said in (claim.said for claim in TEAM)
        if all(said in found for found in by_point)
    )
    head = ("claim", *(f"{point.short}: verdict, gain in AP50" for point, _ in experiments))
    return ["## In short", "", *table(head, rows)]


def chart(experiment: Experiment) -> Figure:
    """The gain of every claim with its interval; the band is where a gain would not matter."""
    found = [one for claims in (TEAM, MODES) for one in findings(claims, experiment)][::-1]
    traces = [
        go.Scatter(
            x=[one.gain.mean for one in some],
            y=[one.claim.said for one in some],
            error_x={"array": [one.gain.half for one in some], "width": 4, "thickness": 1.6},
            mode="markers",
            marker={"color": colour, "size": 9},
            name=word,
        )
        for word, colour in COLOURS.items()
        if (some := [one for one in found if one.verdict.startswith(word)])
    ]
    plot = figure(
        traces,
        xaxis={"title": {"text": "gain in AP50 on the test classes, 95 % interval over seeds"}},
        yaxis={"categoryarray": [one.claim.said for one in found], "automargin": True},
        legend={"orientation": "h", "y": 1.06},
    )
    plot.add_vrect(-LEAST_GAIN, LEAST_GAIN, fillcolor=BLUE, opacity=0.08, line_width=0)
    said = "; ".join(f"{one.claim.said}: {one.verdict}" for one in found[::-1])
    return Figure(experiment.folder.name, plot, f"Gain of each claim: {said}", 640)


def configuration_rows(experiment: Experiment) -> Iterator[str]:
    """A row for each configuration: its AP50, how often it exploded, what was clipped."""
    for name, runs in sorted(experiment.runs.items()):
        found = measured(experiment, name)
        share = f"{found['clipped']:.0%}"
        if name in OF_TENSORS:
            share = f"{share} of the tensors, at {found['touched']:.0%}"
        yield row(
            *(f"`{name}`", f"{found['value']:.4f} ± {found['half']:.4f}"),
            *(f"{experiment.exploded(name)} of {len(runs)}", f"{found['norm']:.3g}", share),
            *(number(found["rms"]), number(found["peak"]), number(found["scales"])),
        )


def number(value: float) -> str:
    """With two decimals; a dash for what was not measured."""
    return f"{value:.2f}" if np.isfinite(value) else "—"


def scales_text(experiments: Sequence[Experiment]) -> str:
    """How much of the gradient norm comes from four scales instead of one."""
    steps = [run.known("grad/accumulation") for one in experiments for _, run in one.all_runs()]
    values = np.concatenate(steps)
    low, high = np.quantile(values, (0.025, 0.975))
    return SCALES_TEXT.format(
        mean=values.mean(), low=low, high=high, most=values.max(), steps=len(values),
        runs=sum(len(some) > 0 for some in steps),
    )  # fmt: skip


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], rows: Iterable[str]) -> list[str]:
    """A Markdown table."""
    return [row(*head), row(*["---"] * len(head)), *rows, ""]


def reasons(claims: Sequence[Claim], point: Point, experiment: Experiment) -> list[str]:
    """Why, for each claim, with the figures of an operating point."""
    figures = Figures(experiment)
    found = [
        (one.claim.said, (point.low and one.claim.why_low) or one.claim.why)
        for one in findings(claims, experiment)
    ]
    return [*(f"- *{said}*: {why.format_map(figures)}" for said, why in found if why), ""]


def draw(experiments: Sequence[Experiment], folder: Path) -> None:
    """Write the chart of each experiment to `folder`, where a browser is installed."""
    charts = [chart(one) for one in experiments]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for path in write_pictures(charts, Path(temporary)):
                shutil.copy(path, folder / path.name)
        except PicturesError as error:
            print(f"no charts: {error}", file=sys.stderr)


def section(experiment: Experiment, point: Point) -> list[str]:
    """What one operating point says."""
    return [
        f"## {point.title}",
        "",
        f"    {point.command}",
        "",
        f"![The gain of each claim](pictures/{point.name}.png)",
        "",
        *table(CLAIM_COLUMNS, claim_rows(TEAM, experiment)),
        *reasons(TEAM, point, experiment),
        MODES_TEXT,
        *table(CLAIM_COLUMNS, claim_rows(MODES, experiment)),
        *reasons(MODES, point, experiment),
        CONFIGURATION_NOTE,
        *table(CONFIGURATION_COLUMNS, configuration_rows(experiment)),
    ]


def main() -> int:
    """Write the page from the sweeps that there are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", help="folder or URL of the sweeps")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    parts: list[str] = []
    found: list[tuple[Point, Experiment]] = []
    for point in POINTS:
        try:
            experiment = load(point.name, options.storage)
        except SweepError as error:
            print(f"left out: {error}", file=sys.stderr)
            parts.append(f"## {point.title}\n\n    {point.command}\n\nNot run yet.\n")
            continue
        found.append((point, experiment))
        parts.append("\n".join(section(experiment, point)))
    if not found:
        print("error: none of the sweeps is there; run the commands above first", file=sys.stderr)
        return 2
    experiments = [experiment for _, experiment in found]
    bands = table(BAND_COLUMNS, (row(*cells) for cells in band_cells(experiments)))
    parts = [INTRO, "\n".join(overview(found)), *parts]
    parts += [scales_text(experiments), "\n".join([BANDS_TEXT, *bands])]
    draw(experiments, options.out.parent / "pictures")
    options.out.write_text("\n".join(parts), encoding="utf-8")
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
