"""A study in a journal file: what is written at once, and what is read."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage

from sweeps.errors import SweepError
from sweeps.study.store import Journal, JournalStore, batched
from sweeps.study.study import load_study


def study_in(path: Path) -> optuna.Study:
    return optuna.create_study(storage=JournalStorage(Journal(str(path))), study_name="s")


def load_again(folder: Path) -> optuna.Study:
    return optuna.load_study(
        study_name="s", storage=JournalStorage(Journal(str(folder / "journal")))
    )


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_changes_made_together_are_written_at_the_end_and_in_order(tmp_path):
    study = study_in(tmp_path / "journal")
    trial = study.ask()
    before = lines_of(tmp_path / "journal")
    with batched(study):
        trial.set_user_attr("first", 1)
        trial.report(0.5, 1)
        trial.set_user_attr("last", 2)
        assert lines_of(tmp_path / "journal") == before
    text = (tmp_path / "journal").read_text(encoding="utf-8")
    written = [json.loads(line) for line in text.splitlines()[before:]]
    assert [x.get("user_attr") for x in written] == [{"first": 1}, None, {"last": 2}]
    again = load_again(tmp_path)
    assert again.trials[0].user_attrs == {"first": 1, "last": 2}
    assert again.trials[0].intermediate_values == {1: 0.5}


def test_changes_of_a_second_wait_for_the_disk_once_and_are_in_the_file_at_once(
    tmp_path, monkeypatch
):
    waits: list[int] = []
    study = study_in(tmp_path / "journal")
    trial = study.ask()
    monkeypatch.setattr("sweeps.study.store.os.fsync", waits.append)
    monkeypatch.setattr("sweeps.study.store.SYNC_SECONDS", 3600.0)
    for step in range(20):
        with batched(study, durable=False):
            trial.report(0.5, step)
        assert len(load_again(tmp_path).trials[0].intermediate_values) == step + 1
    assert waits == []
    with batched(study):
        trial.set_user_attr("state", "completed")
    assert len(waits) == 1
    monkeypatch.setattr("sweeps.study.store.SYNC_SECONDS", 0.0)
    with batched(study, durable=False):
        trial.report(0.5, 20)
    assert len(waits) == 2


def test_what_was_changed_before_an_error_is_written(tmp_path):
    study = study_in(tmp_path / "journal")
    trial = study.ask()

    def fail() -> None:
        with batched(study):
            trial.set_user_attr("kept", True)
            raise RuntimeError("after it")

    with pytest.raises(RuntimeError, match="after it"):
        fail()
    again = load_again(tmp_path)
    assert again.trials[0].user_attrs == {"kept": True}


def test_what_a_journal_remembers_does_not_grow(tmp_path):
    journal = Journal(str(tmp_path / "journal"))
    study = optuna.create_study(storage=JournalStorage(journal), study_name="s")
    for _ in range(20):
        study.tell(study.ask(), 1.0)
    assert len(journal._log_number_offset) <= 2
    assert len(study.trials) == 20


def test_changes_of_another_process_are_read(tmp_path):
    mine = study_in(tmp_path / "journal")
    other = load_again(tmp_path)
    other.tell(other.ask(), 1.0)
    mine.tell(mine.ask(), 2.0)
    assert [t.value for t in mine.trials] == [t.value for t in other.trials] == [1.0, 2.0]


def test_a_second_study_lies_in_the_same_file(tmp_path):
    store = JournalStore(tmp_path / "journal")
    beside = store.beside("second")
    for place, count in ((store, 1), (beside, 2)):
        study = optuna.create_study(storage=place.storage(), study_name=place.name)
        for _ in range(count):
            study.tell(study.ask(), 1.0)
    assert len(load_study(store).trials) == 1
    assert len(load_study(beside).trials) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_changes_of_the_other_study_are_not_lost_in_between(tmp_path):
    store = JournalStore(tmp_path / "journal")
    study = optuna.create_study(storage=store.storage(), study_name=store.name)
    beside = store.beside("second")
    other = optuna.create_study(storage=beside.storage(), study_name=beside.name)
    trial = study.ask()
    with batched(study):
        trial.set_user_attr("mine", 1)
        other.tell(other.ask(), 2.0)
    assert load_study(store).trials[0].user_attrs == {"mine": 1}
    assert load_study(store.beside("second")).trials[0].value == 2.0


def test_a_study_is_named_for_its_sweep_and_found_in_a_renamed_folder(tmp_path):
    before, after = tmp_path / "small", tmp_path / "renamed"
    before.mkdir()
    store = JournalStore(before / "study.journal")
    optuna.create_study(storage=store.storage(), study_name=store.name)
    before.rename(after)
    renamed = JournalStore(after / "study.journal")
    assert load_study(renamed).study_name == "small"
    assert renamed.beside("confirm").name == "small/confirm"


def test_the_names_in_files_of_earlier_versions_stay(tmp_path):
    path = tmp_path / "journal"
    for name in ("sweep", "confirm"):
        optuna.create_study(storage=JournalStorage(Journal(str(path))), study_name=name)
    store = JournalStore(path)
    assert load_study(store).study_name == "sweep"
    assert load_study(store.beside("confirm")).study_name == "confirm"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "nowhere"])
def test_a_study_that_is_no_file_is_told_at_once(tmp_path, kind):
    path = tmp_path / "study.journal"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name if kind == "loop" else kind)
    with pytest.raises(SweepError, match="the study is not a regular file; restore it"):
        JournalStore(path).storage()


@contextmanager
def room_for(more: int, path: Path) -> Iterator[None]:
    """The file can grow by so many bytes only; a write beyond that does what fits, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_change_without_room_leaves_the_journal_as_it_was(tmp_path):
    path = tmp_path / "journal"
    study = study_in(path)
    trial = study.ask()
    before = path.read_bytes()
    with room_for(40, path), pytest.raises(OSError, match="File too large"):
        trial.set_user_attr("reason", "x" * 1000)
    assert path.read_bytes() == before
    trial.set_user_attr("state", "interrupted")  # there is room again
    assert load_again(tmp_path).trials[0].user_attrs == {"state": "interrupted"}


def test_a_line_that_was_cut_off_before_another_is_repaired(tmp_path):
    """As earlier versions left it on a full disk."""
    path = tmp_path / "study.journal"
    study = study_in(path)
    study.ask().set_user_attr("kept", 1)
    whole = path.read_bytes()
    study.ask()
    added = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + added[:55] + added)
    JournalStore(path).repair()
    assert path.read_bytes() == whole + added
    JournalStore(path).repair()
    assert path.read_bytes() == whole + added
