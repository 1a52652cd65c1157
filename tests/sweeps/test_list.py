"""`sweeps.list` and `sweeps.best` over sweeps that are already there: text, JSON, trials.csv, the latest one."""

from __future__ import annotations

import csv
import errno
import json
import os
import time

import pytest
from conftest import small_spec
from session_parts import Driver, exploded, report_of

from sweeps import best
from sweeps import list as listing
from sweeps.storage.folder import SweepFolder
from sweeps.storage.known_sweeps import BEGAN, latest_sweep
from sweeps.storage.lookup import new_folder
from sweeps.study.location import begin_store

pytestmark = pytest.mark.usefixtures("in_own_folder")


def swept(
    name: str, values: tuple[float | None, ...], began: float, trials: int = 2
) -> SweepFolder:
    """A sweep with a trial for each of `values`; None explodes."""
    spec = small_spec(name=name, trials=trials)
    folder = new_folder(name)
    store = begin_store(spec, folder)
    folder.save_spec(spec)
    folder.update_record(**{BEGAN: began})
    driver = Driver(spec, store)
    for value in values:
        number = driver.start().number
        driver.end(number, exploded(1) if value is None else report_of(3, value, "final"))
    return folder


@pytest.fixture
def two() -> tuple[SweepFolder, SweepFolder]:
    now = time.time()
    return swept("first", (0.25, None), now), swept("second", (0.5,), now - 3600)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_list_shows_state_trials_and_the_best_the_latest_first(two, capsys):
    assert listing.main([]) == 0
    _, first, second = rows(capsys.readouterr().out)
    assert first[:8] == ["first", "done", "2/2", "val/nAP50", "0.2500", "(trial", "0)", "1"]
    assert second[:3] == ["second", "stopped", "1/2"]


def test_list_says_running_while_a_process_runs_it(two, capsys):
    with two[1].locked():
        assert listing.main(["--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["state"], second["state"]) == ("done", "running")
    assert (first["best"], first["best_trial"], first["counts"]) == (
        0.25, 0, {"completed": 1, "infeasible": 1},
    )  # fmt: skip
    assert second["folder"] == str(two[1].path)


def test_a_sweep_that_cannot_be_read_does_not_hide_the_others(two, capsys):
    two[0].spec_file.write_text("name: [")
    assert listing.main([]) == 0
    states = {row[0]: row[1] for row in rows(capsys.readouterr().out)[1:]}
    assert states == {"first": "unreadable", "second": "stopped"}


def test_an_empty_folder_is_said(capsys):
    assert listing.main([]) == 0
    assert capsys.readouterr().out.startswith("no sweeps in ")
    assert best.main([]) == 2
    assert "no sweeps in " in capsys.readouterr().err


def test_best_without_a_name_takes_the_latest(two, capsys):
    assert latest_sweep().name == "first"
    assert best.main([]) == 0
    assert "sweep first: 2 trials" in capsys.readouterr().out
    two[0].update_record(**{BEGAN: 1.0})
    assert best.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "second"


def test_best_as_json_has_all_trials_and_nothing_else_is_printed(two, capsys):
    assert best.main(["first", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["best"], found["counts"]) == (0, {"completed": 1, "infeasible": 1})
    assert [trial["state"] for trial in found["trials"]] == ["completed", "infeasible"]
    assert found["trials"][1]["reason"] == "bang"
    assert found["confirmation"] is None
    assert two[0].best_file.is_file()


def test_trials_csv_has_a_line_a_trial_and_a_column_a_setting(two):
    best.main(["first"])
    with two[0].trials_file.open(newline="") as file:
        one, other = csv.DictReader(file)
    assert (one["state"], float(one["value"]), one["best_epoch"]) == ("completed", 0.25, "3")
    assert 0.01 <= float(one["lr"]) <= 10
    assert (other["state"], other["value"], other["reason"]) == ("infeasible", "", "bang")


def test_best_of_a_sweep_without_a_completed_trial_is_1_as_json_too(capsys):
    swept("third", (None, None), time.time())
    assert best.main(["third"]) == 1
    assert "every trial exploded" in capsys.readouterr().out
    assert best.main(["third", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["best"] is None


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.EROFS, 0, "trials.csv: cannot be written (Read-only file system); give yourself"),
        (errno.ENOSPC, 1, "error: trials.csv: the disk is full; make room"),
    ],
)
def test_best_is_shown_of_a_folder_that_cannot_be_written(
    two, monkeypatch, capsys, number, code, said
):
    """The system's answer is given here: nobody denies anything to the user root."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "trials.csv")

    monkeypatch.setattr(best, "write_trials", refuse)
    assert best.main(["first"]) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert ("0.2500" in printed.out) == (code == 0)
