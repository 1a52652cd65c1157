"""The page: all sections in one HTML file that needs no network.

Texts of users are escaped by the template; what scripts read is JSON in which no tag can begin. A content security
policy in the page forbids every request, so that it cannot load anything, whatever a text contains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.io import to_json
from plotly.offline import get_plotlyjs

from fsdet.durations import duration
from sweeps.report.section import Figure, Section, SortableTable
from sweeps.report.style import template
from sweeps.report.sweep_data import SweepData
from sweeps.report.wording import count
from sweeps.states import State

TEMPLATE, STYLE, SCRIPT = "page.html", "page.css", "page.js"
"""Files of this package."""


@dataclass(frozen=True)
class Tile:
    """One number at the top of the page."""

    value: str
    label: str
    link: str
    """Key of the section that says more."""


def build_page(data: SweepData, sections: Sequence[Section]) -> str:
    """The whole file."""
    environment = Environment(
        loader=PackageLoader("sweeps.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bound"] = lambda text: text.replace(" %", "\u00a0%")
    figures = [figure for section in sections for figure in section.figures]
    return environment.get_template(TEMPLATE).render(
        name=data.name,
        about=about(data),
        tiles=tiles(data, sections),
        sections=sections,
        is_sortable=lambda table: isinstance(table, SortableTable),
        style=Markup(_own_file(STYLE)),  # noqa: S704 - a file of this package
        script=Markup(_own_file(SCRIPT)),  # noqa: S704
        plotly=Markup(get_plotlyjs()),  # noqa: S704
        content=Markup(_content(figures, sections)),  # noqa: S704 - see `in_script`
    )


@cache
def _own_file(name: str) -> str:
    return (resources.files("sweeps.report") / name).read_text(encoding="utf-8")


def _content(figures: Sequence[Figure], sections: Sequence[Section]) -> str:
    """What the script reads: figures, templates and the sortable table."""
    tables = [s.table for s in sections if isinstance(s.table, SortableTable)]
    templates = {"light": template(dark=False), "dark": template(dark=True)}
    parts = {
        "templates": json.dumps(templates),
        "tables": json.dumps([asdict(table) for table in tables]),
        "figures": in_object({f.key: to_json(f.plot, validate=False) for f in figures}),
    }
    return in_script(in_object(parts))


def in_object(parts: Mapping[str, str]) -> str:
    """A JSON object of values that are JSON already."""
    return "{" + ",".join(f"{json.dumps(key)}:{text}" for key, text in parts.items()) + "}"


def in_script(text: str) -> str:
    """JSON that can stand in a script element: none of its texts can end that."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def about(data: SweepData) -> str:
    """One line: what was searched, and how."""
    spec = data.spec
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    goal = "maximised" if spec.objective.sign > 0 else "minimised"
    settings = count(len(spec.search_space.searched), "setting")
    return (
        f"{spec.objective.metric} {goal} over {settings} · sampler {spec.sampler.name}, scheduler "
        f"{spec.scheduler.name} · written {now}"
    )


def tiles(data: SweepData, sections: Sequence[Section]) -> list[Tile]:
    """The numbers at the top."""
    found = []
    confirmation, best = data.confirmation, data.best
    winner = None if confirmation is None else confirmation.winner
    estimate = None if confirmation is None or winner is None else confirmation.estimate(winner)
    if winner is not None and estimate is not None:
        found.append(
            Tile(f"{estimate.mean:.3f}", f"confirmed, {winner.candidate.label}", "verdict")
        )
    elif best is not None:
        found.append(Tile(f"{best.record.value:.3f}", f"best, {data.name_of(best)}", "verdict"))
    states = [t.record.state for t in data.trials]
    completed = states.count(State.COMPLETED)
    found.append(Tile(str(len(states)), f"trials, {completed} completed", "trials"))
    found.append(Tile(str(states.count(State.INFEASIBLE)), "exploded", "explosions"))
    shown = [*data.trials, *data.confirmation_runs]
    found.append(Tile(duration(sum(t.record.seconds for t in shown)), "of compute", "costs"))
    warnings = sum(len(section.warnings) for section in sections)
    found.append(Tile(str(warnings), "warning" if warnings == 1 else "warnings", "warnings"))
    return found


def plot_of(figure: Figure) -> dict[str, Any]:
    """A figure as JSON holds it, in the light template."""
    plot: dict[str, Any] = json.loads(to_json(figure.plot, validate=False))
    plot["layout"]["template"] = template(dark=False)
    return plot
