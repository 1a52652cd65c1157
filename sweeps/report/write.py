"""Builds the sections of a report in their order, and writes the page and the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fsdet.files import write_text_atomic
from sweeps.errors import SweepError
from sweeps.report.best_so_far import best_section
from sweeps.report.caveats import caveats_section
from sweeps.report.comparable import comparable
from sweeps.report.detections import detections_section
from sweeps.report.explosion_map import explosion_section, find_risk
from sweeps.report.gradient_norms import norms_section
from sweeps.report.hand_made import hand_made_section
from sweeps.report.importance import importance_section, importances
from sweeps.report.landscape import landscape_sections
from sweeps.report.loss_terms import terms_section
from sweeps.report.page import build_page
from sweeps.report.pictures import PicturesError, write_pictures
from sweeps.report.section import Section
from sweeps.report.stable_range import stable_sections
from sweeps.report.sweep_data import ShownTrial, SweepData, read_sweep
from sweeps.report.trial_costs import costs_section
from sweeps.report.trial_table import table_section
from sweeps.report.update_ratios import updates_section
from sweeps.report.verdict import verdict_section
from sweeps.session.best_trial import detections_of
from sweeps.session.callbacks import SWEEP_RUN
from sweeps.session.display import print_line
from sweeps.session.summary import this_python
from sweeps.storage.folder import SweepFolder
from sweeps.tracking import Tracker, recorded_uri

PAGE, PICTURES = "report.html", "report"
"""In the folder of a sweep: the page, and the folder of its pictures."""

STORE_SECONDS = 60
"""Time to log a report to the tracking store."""


@dataclass(frozen=True)
class Report:
    """The files of a report."""

    page: Path
    pictures: tuple[Path, ...]
    note: str = ""
    """Why there are no pictures; empty if there are."""


def build_sections(data: SweepData, detections: bytes | None = None) -> list[Section]:
    """All sections, in the order of the page; `detections`: the picture of what the winner finds."""
    view = comparable(data)
    ranked, risk = importances(data, view), find_risk(data)
    return [
        verdict_section(data),
        table_section(data),
        *stable_sections(data),
        best_section(data),
        explosion_section(data, risk),
        norms_section(data),
        terms_section(data),
        updates_section(data),
        importance_section(data, view, ranked),
        *landscape_sections(data, view, ranked),
        detections_section(data, detections),
        costs_section(data),
        hand_made_section(data, view),
        caveats_section(data, view, ranked, None if risk is None else risk.key),
    ]


def write_report(folder: SweepFolder, say: Callable[[str], object]) -> Report:
    """Read a sweep, and write its page and its pictures into its folder.

    Args:
        folder: of the sweep.
        say: shows what is being done.

    Raises:
        SweepError: the sweep cannot be read, or its storage not be written.
        OSError: a file cannot be written.
    """

    def watch(trials: Iterable[ShownTrial]) -> Iterator[ShownTrial]:
        for number, trial in enumerate(trials, 1):
            say(f"report: reading trial {number}")
            yield trial

    data = read_sweep(folder, watch)
    say("report: drawing figures")
    winner = data.winner
    picture = None if winner is None else detections_of(folder, winner.record.folder)
    sections = build_sections(data, None if picture is None else picture.read_bytes())
    page = folder.path / PAGE
    write_text_atomic(page, build_page(data, sections))
    folder.upload(page)
    figures = [figure for section in sections for figure in section.figures]
    say(f"report: drawing {len(figures)} pictures")
    try:
        pictures = write_pictures(figures, folder.path / PICTURES)
    except PicturesError as error:
        return Report(page, (), str(error))
    for picture in pictures:
        folder.upload(picture, f"{PICTURES}/{picture.name}")
    return Report(page, tuple(pictures))


def report_at_end(folder: SweepFolder, tracker: Tracker, console: Console) -> None:
    """Write the report of a sweep that has ended, and log it to the sweep's run.

    A failure is one line: the sweep has succeeded without it.
    """
    try:
        with shown_progress(console) as say:
            report = write_report(folder, say)
        log_report(report, tracker)
        print_report(report, console)
    except (Exception, KeyboardInterrupt) as error:  # it must not cost a sweep its exit code
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        command = f"{this_python()} -m sweeps.report {folder.name}"
        print_line(console, f"warning: no report was written ({reason}); to try again: {command}")


def log_to_store(folder: SweepFolder, report: Report) -> str:
    """Log the report of a sweep that ran earlier; returns why that was not possible, or nothing."""
    record, spec = folder.load_record(), folder.load_spec()
    if record.get("run_id") is None:
        return "no run of the sweep is recorded"
    try:
        uri = recorded_uri(record.get("uri"), spec.tracking, folder.name)
        tracker = Tracker(uri, spec.tracking.experiment)
    except SweepError as error:
        return str(error)
    tracker.adopt(SWEEP_RUN, record["run_id"])
    log_report(report, tracker)
    missing = tracker.close(STORE_SECONDS)
    return f"{tracker.public_uri} does not answer; run this again when it does" if missing else ""


def log_report(report: Report, tracker: Tracker) -> None:
    """Log page and pictures as artifacts of the sweep's run."""
    tracker.add_files(SWEEP_RUN, [report.page])
    tracker.add_files(SWEEP_RUN, report.pictures, PICTURES)


def print_report(report: Report, console: Console) -> None:
    """Print where the report is."""
    print_line(console, f"\nreport: {report.page}")
    if report.note:
        print_line(console, f"  pictures: {report.note}")
    else:
        print_line(
            console, f"  and {len(report.pictures)} pictures in {report.page.parent / PICTURES}"
        )


@contextmanager
def shown_progress(console: Console) -> Iterator[Callable[[str], object]]:
    """A line that says what is being done: a changing one on a terminal, otherwise a single one."""
    if not console.is_terminal:
        print_line(console, "writing the report …")
        yield str
        return
    with console.status("report") as status:
        yield status.update
