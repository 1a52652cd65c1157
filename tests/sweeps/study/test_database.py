"""Studies in a real PostgreSQL server, which is stopped and started again under them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import session_parts
from conftest import small_spec
from servers import PASSWORD, Postgres, postgres

from fsdet.command import ExitCode
from sweeps.errors import SweepError
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import new_folder
from sweeps.study import database
from sweeps.study.database import DatabaseStore
from sweeps.study.location import begin_store, store_of
from sweeps.study.store import JournalStore
from sweeps.study.study import create_study, load_study, read_trials, warm_start
from sweeps.trial.messages import BestValue, Phase, TrialReport


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


@pytest.fixture
def running(server: Postgres) -> Postgres:
    """The server, started again where a test has stopped it."""
    if server.process is None:
        server.start()
    return server


def report(epoch: int, value: float, phase: Phase = "running") -> TrialReport:
    best = BestValue(value, epoch)
    return TrialReport(phase, epoch=epoch, objective=value, best=best, violation=-2.0)


class Driver(session_parts.Driver):
    """One session of a sweep whose study is in a database."""

    def __init__(self, url: str, folder: SweepFolder, **changes: Any) -> None:
        spec = small_spec(storage={"study": url}, **changes)
        self.store = begin_store(spec, folder)
        super().__init__(spec, self.store)


def test_study_in_a_database_is_told_the_same_as_one_in_a_file(running):
    folder = new_folder("told")
    driver = Driver(running.url, folder, baselines={"b": {"lr": 1.0}}, trials=3)
    for _ in range(3):
        driver.trials.next_request()
    driver.trials.on_report(0, report(1, 0.5))
    driver.end(0, report(2, 0.6, "final"))
    driver.end(1, TrialReport("exploded", epoch=1, violation=0.7))
    assert driver.trials.close() == 1
    trials = read_trials(store_of(folder, running.url))
    assert [t.state for t in trials] == [State.COMPLETED, State.INFEASIBLE, State.INTERRUPTED]
    assert trials[0].value == 0.6
    assert trials[0].baseline == "b"
    assert load_study(driver.store).trials[0].intermediate_values == {1: 0.5, 2: 0.6}


def test_paused_trial_is_promoted_by_a_later_session(running):
    changes = {
        "fixed": {"epochs": 9, "n_episodes": 3},
        "scheduler": {"name": "asha", "grace": 1, "reduction": 2},
    }
    folder = new_folder("paused")
    first = Driver(running.url, folder, **changes)
    for number, value in enumerate((0.5, 0.6)):
        first.start()
        first.pause(number, 1, value)
    assert [t.state for t in read_trials(store_of(folder, running.url))] == [State.PAUSED] * 2
    second = Driver(running.url, folder, **changes).start()
    assert (second.number, second.until) == (1, 2)


def test_short_outage_is_waited_for_and_nothing_is_lost(running):
    driver = Driver(running.url, new_folder("short"))
    driver.trials.next_request()
    running.stop()
    back = threading.Timer(1.0, running.start)
    back.start()
    driver.trials.on_report(0, report(1, 0.5))
    back.join()
    assert driver.stopping.reason is None
    assert load_study(driver.store).trials[0].intermediate_values == {1: 0.5}


def test_database_that_stays_away_stops_the_sweep_which_goes_on_later(running, monkeypatch):
    monkeypatch.setattr(database, "WAIT_SECONDS", 1.0)
    folder = new_folder("away")
    driver = Driver(running.url, folder)
    driver.trials.next_request()
    running.stop()
    driver.trials.on_report(0, report(1, 0.5))
    assert driver.stopping.reason is not None
    assert driver.stopping.reason.exit_code == ExitCode.STUDY_LOST
    assert "the study cannot be written" in driver.stopping.reason.text
    assert PASSWORD not in driver.stopping.reason.text
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it is not waited for again"))
    assert driver.trials.close() == 1
    monkeypatch.undo()
    running.start()
    again = Driver(running.url, folder).trials.next_request()
    assert again is not None
    assert again.number == 0


def test_study_in_sqlite_is_held_by_the_lock_of_its_folder(in_own_folder):
    folder = new_folder("small")
    driver = Driver("sqlite:///study.db", folder)
    driver.trials.next_request()
    assert (in_own_folder / "study.db").is_file()
    with folder.locked():
        assert [t.state for t in read_trials(store_of(folder))] == [State.RUNNING]
    assert [t.state for t in read_trials(store_of(folder))] == [State.INTERRUPTED]


def test_equal_names_of_two_people_do_not_meet(running):
    first, second = SweepFolder(new_folder("same").path), new_folder("same-2")
    second.path.rename(second.path.with_name("elsewhere"))
    mine = Driver(running.url, first)
    other = SweepFolder(second.path.with_name("elsewhere"))
    other.update_record(sweep_id="another")
    theirs = Driver(running.url, other)
    mine.trials.next_request()
    assert len(load_study(mine.store).trials) == 1
    assert load_study(theirs.store).trials == []
    assert mine.store.name.startswith("same.")


def test_a_second_study_lies_beside_the_first(running):
    driver = Driver(running.url, new_folder("first"))
    driver.trials.next_request()
    beside = driver.store.beside("second")
    assert not beside.exists()
    create_study(beside, driver.spec, driver.study.sampler)
    assert (len(read_trials(driver.store)), len(read_trials(beside))) == (1, 0)
    assert beside.place == driver.store.place


def test_study_is_held_by_one_driver_at_a_time(running):
    store = DatabaseStore(running.url, "held.1", Path("here"))
    other = DatabaseStore(running.url, "held.1", Path("there"))
    with store.locked():
        assert other.is_locked()
        with pytest.raises(SweepError, match="is being written by another driver"), other.locked():
            pass
    assert not other.is_locked()


def test_a_reader_never_stands_in_the_way_of_a_driver(running):
    store, readers = DatabaseStore(running.url, "read", Path("here")), []
    done = threading.Event()

    def read() -> None:
        reader = DatabaseStore(running.url, "read", Path("there"))
        while not done.is_set():
            readers.append(reader.is_locked())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(30):
            with store.locked():  # raises if a reader holds it
                pass
    finally:
        done.set()
        thread.join()
    assert readers


def test_warm_start_takes_over_from_a_database(running):
    driver = Driver(running.url, new_folder("earlier"))
    driver.trials.next_request()
    driver.end(0, report(3, 0.6, "final"))
    spec = small_spec()
    study = create_study(JournalStore(new_folder("later").study_file), spec, driver.study.sampler)
    assert warm_start(study, spec, "earlier", driver.store) == 1
    assert study.trials[0].params == driver.study.trials[0].params


def test_password_is_kept_nowhere_and_asked_for_again(running, monkeypatch):
    folder = new_folder("small")
    driver = Driver(running.url, folder)
    folder.save_spec(driver.spec)
    driver.trials.next_request()
    for path in (folder.spec_file, folder.record_file):
        assert PASSWORD not in path.read_text()
    assert folder.load_spec().storage.study == driver.store.place
    with pytest.raises(SweepError, match="set OPTUNA_STORAGE to the full URL") as caught:
        store_of(folder)
    assert PASSWORD not in str(caught.value)
    monkeypatch.setenv("OPTUNA_STORAGE", running.url)
    assert len(read_trials(store_of(folder))) == 1


def test_sweep_stays_with_its_store(running, monkeypatch):
    folder = new_folder("in_a_file")
    begin_store(small_spec(), folder)
    monkeypatch.setenv("OPTUNA_STORAGE", running.url)  # set since then: changes nothing
    assert begin_store(small_spec(), folder).place == str(folder.study_file)
    with pytest.raises(SweepError, match=r"the study of .* is in a file"):
        begin_store(small_spec(storage={"study": running.url}), folder)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://tester:wrong-{password}@127.0.0.1:{port}/postgres", "authentication failed"),
        ("postgresql://tester:{password}@127.0.0.1:1/postgres", "refused"),
        ("postgresql://tester:{password}@127.0.0.1:{port}/none", "does not exist"),
        ("oracle://tester:{password}@127.0.0.1/x", "driver is not installed"),
        ("nonsense://tester:{password}@127.0.0.1/x", "Can't load plugin"),
    ],
)
def test_database_that_cannot_be_opened_is_told_in_one_line(running, url, told):
    whole = url.format(password=PASSWORD, port=running.port)
    with pytest.raises(SweepError, match=told) as caught:
        Driver(whole, new_folder("wrong"))
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)
