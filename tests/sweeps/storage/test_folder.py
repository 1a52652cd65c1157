"""A sweep never goes into the folder of an earlier one."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import small_spec

from fsdet.files import write_text_atomic
from sweeps.errors import SweepError
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import find_folder, latest_folder, new_folder, sweeps_root


def made(name: str) -> SweepFolder:
    """The folder of a sweep that has begun."""
    folder = new_folder(name, numbered=True)
    folder.save_spec(small_spec())
    return folder


def test_name_that_is_taken_is_refused_in_one_line():
    made("a")
    with pytest.raises(SweepError, match=r"sweep a: .* --resume.* --name NAME") as caught:
        new_folder("a")
    assert "\n" not in str(caught.value)


def test_name_may_be_left_to_be_numbered():
    assert [made("a").name for _ in range(3)] == ["a", "a-2", "a-3"]


def test_folder_of_a_sweep_that_never_began_is_taken():
    assert new_folder("a").path == new_folder("a").path


def test_exact_name_goes_first_then_the_latest_by_number():
    for _ in range(11):
        made("a")
    made("ab")
    assert find_folder("a").name == "a"
    assert find_folder("a-2").name == "a-2"
    assert latest_folder("a").name == "a-11"
    shutil.rmtree(find_folder("a").path)
    assert find_folder("a").name == "a-11"


def test_unknown_name_gets_the_nearest():
    made("stage2")
    with pytest.raises(SweepError, match="did you mean 'stage2'"):
        find_folder("stage3")


def test_spec_comes_back_as_it_was_saved():
    folder = new_folder("a")
    spec = small_spec(baselines={"b": {"lr": 1}}, space={"lr": {"choices": [1, 0.1]}})
    folder.save_spec(spec)
    assert folder.load_spec() == spec.with_source(str(folder.spec_file))


@pytest.mark.parametrize("content", ["", '{"study": "jour', "[]", "null", "{}"])
def test_damaged_record_counts_as_lost(content):
    folder = made("a")
    folder.save_record({"study": "journal", "sweep_id": "x"})
    assert not folder.is_record_lost()
    folder.record_file.write_text(content)
    assert folder.is_record_lost()
    assert folder.load_record() == {}


def test_folders_of_trials_are_those_that_hold_a_file():
    folder = made("a")
    for name in ("0000/config.yaml", "0002/.lock", "12345/x", "notes/x"):
        path = folder.trials_dir / name
        path.parent.mkdir(parents=True)
        path.touch()
    assert folder.trial_folders() == {0: "0000", 12345: "12345"}


def test_one_process_at_a_time_holds_a_folder():
    folder = made("a")
    with (
        folder.locked(),
        pytest.raises(SweepError, match="run by another process"),
        folder.locked(),
    ):
        pass
    with folder.locked():
        pass


def test_shared_folder_holds_the_sweeps(tmp_path):
    shared = str(tmp_path / "shared")
    folder = new_folder("a", storage=shared)
    folder.save_spec(small_spec())
    assert folder.path == tmp_path / "shared" / "a"
    assert find_folder("a", shared) == folder
    with pytest.raises(SweepError, match=r"no such sweep in .*mlruns"):
        find_folder("a")
    assert sweeps_root(str(tmp_path)) == tmp_path


def test_another_machine_finds_the_sweep_at_its_url(url, tmp_path, monkeypatch):
    folder = new_folder("a", storage=url)
    folder.save_spec(small_spec(trials=7))
    folder.update_record(sweep_id="of this one")
    with pytest.raises(SweepError, match="holds one already"):
        new_folder("a", storage=url)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert new_folder("a", numbered=True, storage=url).name == "a-2"
    found = find_folder("a", url)
    assert found.path.is_relative_to(tmp_path / "other")
    assert found.load_spec().trials == 7
    assert found.sweep_id() == "of this one"
    with pytest.raises(SweepError, match=f"no such sweep in {url}"):
        find_folder("b", url)


@pytest.mark.parametrize("content", ["", "[]", "3", "x"])
def test_a_file_without_keys_is_damaged_in_one_line(content):
    folder = made("a")
    folder.spec_file.write_text(content)
    with pytest.raises(SweepError, match=r"sweep.yaml: must hold .*; the file is damaged: "):
        folder.load_spec()


def test_a_lock_that_cannot_be_opened_is_told_and_other_errors_pass():
    folder = made("a")
    with pytest.raises(OSError, match="full"), folder.locked():
        raise OSError("full")
    with folder.locked():
        pass
    (folder.path / ".lock").unlink()
    (folder.path / ".lock").symlink_to(".lock")
    told = r"\.lock: cannot be used \(Too many levels of symbolic links\); remove it"
    with pytest.raises(SweepError, match=told), folder.locked():
        pass


def test_a_reader_leaves_the_files_of_a_running_driver_alone(url):
    folder = new_folder("a", storage=url)
    folder.save_record({"uri": "old"})
    if folder.url is None:
        return
    write_text_atomic(folder.record_file, json.dumps({"uri": "not there yet"}))
    with folder.locked():
        folder.download()
        assert folder.load_record() == {"uri": "not there yet"}
    folder.download()
    assert folder.load_record() == {"uri": "old"}


def test_a_removed_file_does_not_come_back(url):
    folder = new_folder("a", storage=url)
    path = folder.path / "confirm.json"
    path.write_text("{}")
    folder.upload(path)
    folder.remove(path.name)
    folder.download()
    assert not path.exists()
