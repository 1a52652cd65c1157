"""Where the files of a sweep go: a shared folder, a URL; what is there is whole and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import small_spec
from optuna.samplers import RandomSampler

import fsdet
from fsdet.config.parsing import build_config
from sweeps.errors import SweepError
from sweeps.storage.folder import find_folder, new_folder, sweeps_root
from sweeps.storage.portable_files import (
    localize_paths,
    portable_names,
    scratch,
    shared_folders,
)
from sweeps.storage.remote import RemoteFolder, StorageError
from sweeps.study.location import begin_store, store_of
from sweeps.study.study import create_study


def test_file_goes_there_and_back_and_is_replaced(url, tmp_path):
    remote, here = RemoteFolder(url), tmp_path / "a.txt"
    for text in ("first", "second, and longer"):
        here.write_text(text)
        remote.upload(here, "deep/down/b.txt")
        assert remote.download("deep/down/b.txt", tmp_path / "back.txt")
        assert (tmp_path / "back.txt").read_text() == text
    assert remote.list_files() == {"deep/down/b.txt"}
    assert RemoteFolder(f"{url}/deep").list_files() == {"down/b.txt"}
    remote.remove(["deep/down/b.txt", "never/there"])
    assert remote.list_files() == set()
    assert not remote.download("deep/down/b.txt", tmp_path / "back.txt")


def test_file_that_is_cut_off_on_its_way_has_no_name(tmp_path, monkeypatch):
    remote, here = RemoteFolder(f"file://{tmp_path}/storage"), tmp_path / "x.pt"
    here.write_text("whole")
    monkeypatch.setattr(type(remote._files), "mv", lambda *_: 1 / 0)
    monkeypatch.setattr("sweeps.storage.remote.PAUSES", ())
    with pytest.raises(StorageError):
        remote.upload(here)
    assert remote.list_files() == set()


def test_short_outage_is_bridged(tmp_path, monkeypatch):
    remote, here = RemoteFolder(f"file://{tmp_path}/storage"), tmp_path / "x.pt"
    here.write_text("whole")
    move, failures = type(remote._files).mv, [ConnectionError("away")] * 2

    def shaky(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        move(*arguments)

    monkeypatch.setattr(type(remote._files), "mv", shaky)
    monkeypatch.setattr("sweeps.storage.remote.PAUSES", (0, 0))
    remote.upload(here)
    assert remote.list_files() == {"x.pt"}


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


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nonsense://bucket/x", "cannot be opened"),
        ("s3://no-such-bucket-4711/x", "cannot be used"),
        ("file:///proc/x", "cannot be used"),
    ],
)
def test_storage_that_cannot_be_used_is_told_in_one_line(path, told, tmp_path, monkeypatch, s3):
    monkeypatch.setattr("sweeps.storage.remote.PAUSES", ())
    here = tmp_path / "x"
    here.write_text("x")
    with pytest.raises(StorageError, match=told) as caught:
        RemoteFolder(path).upload(here)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["s3://key:secret@bucket/x", "https://host/x?token=secret"])
def test_storage_takes_no_secret(path):
    with pytest.raises(ValueError, match="must hold no password"):
        small_spec(storage={"path": path})


def test_study_in_a_file_of_another_machine_is_told(tmp_path, monkeypatch):
    url = f"file://{tmp_path}/storage"
    folder = new_folder("a", storage=url)
    folder.save_spec(small_spec())
    create_study(begin_store(small_spec(), folder), small_spec(), RandomSampler())
    assert store_of(find_folder("a", url)).exists()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(SweepError, match="a file on the machine that began it"):
        store_of(find_folder("a", url))


def test_files_are_found_on_a_machine_that_keeps_them_elsewhere(url, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_text("made here")
    shipped = Path(fsdet.__file__).parent / "checkpoints" / "stage1_openmoji.pt"
    spec = small_spec(
        fixed={"yolo_weights": str(weights), "data_root": str(tmp_path)},
        space={"resume": {"choices": [str(shipped)]}},
    )
    folder = new_folder("a", storage=url)
    assert portable_names(spec, folder.path, folder.url, shared=False) == {}
    names = portable_names(spec, folder.path, folder.url, shared=True)
    folder.save_spec(spec, names)
    assert names[str(shipped)] == "package:fsdet/checkpoints/stage1_openmoji.pt"
    assert shared_folders(spec) == [str(tmp_path)]
    weights.unlink()
    config = build_config({"yolo_weights": weights, "resume": shipped, "data_root": tmp_path})
    local = localize_paths(config, names, Path("/nowhere"), folder.url)
    assert local.yolo_weights is not None
    assert local.yolo_weights.read_text() == "made here"
    assert (local.resume, local.data_root) == (shipped, tmp_path)
    again = find_folder("a", url).load_spec()
    assert again.space["resume"].choices == (str(shipped),)
    assert Path(again.fixed["yolo_weights"]).read_text() == "made here"


def test_scratch_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = scratch()
    assert mine.stat().st_mode & 0o777 == 0o700
    mine.rmdir()
    mine.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="belongs to another user"):
        scratch()
