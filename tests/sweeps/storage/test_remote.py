"""Where the files of a sweep go: a shared folder, a URL; what is there is whole and found again."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.storage.remote import RemoteFolder, StorageError


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
