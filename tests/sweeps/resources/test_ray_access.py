"""What a local Ray needs to be this user's alone; whether it is so: `test_private_ray.py`."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.errors import SweepError
from sweeps.resources.ray_access import LONGEST_SOCKET, SOCKET, own_token, ray_folder, token_file


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for Ray with a short path."""
    path = Path(tempfile.mkdtemp(prefix="r-"))
    monkeypatch.setenv("RAY_TMPDIR", str(path))
    yield path
    shutil.rmtree(path)


def mode(path: Path) -> int:
    """Its permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_of_ray_is_within_one_that_only_this_user_can_read(short):
    folder = ray_folder()
    assert folder == short / f"fsdet-sweeps-{os.getuid()}" / "ray"
    assert mode(folder.parent) == 0o700
    folder.parent.chmod(0o777)
    ray_folder()
    assert mode(folder.parent) == 0o700


def test_token_is_in_a_file_that_only_this_user_can_read_and_does_not_stay(short):
    with token_file(short) as path:
        assert mode(path) == 0o600
        assert path.read_text() == own_token()
        with token_file(short) as other:
            assert other != path
            assert other.read_text() == own_token()  # Ray reads it once in a process
    assert list(short.iterdir()) == []
    (short / f"token-{2**22 + 1}-0").touch()  # of a process that was killed
    with token_file(short) as path:
        assert list(short.iterdir()) == [path]
    command = "from sweeps.resources.ray_access import own_token; print(own_token())"
    other = subprocess.check_output([sys.executable, "-c", command], text=True)
    assert len(other.strip()) == len(own_token()) == 64
    assert other.strip() != own_token()


def test_folder_that_another_user_owns_or_a_link_is_refused(short):
    (short / "elsewhere").mkdir()
    (short / f"fsdet-sweeps-{os.getuid()}").symlink_to(short / "elsewhere")
    with pytest.raises(SweepError, match="another user; set RAY_TMPDIR"):
        ray_folder()


def test_folder_that_cannot_be_used_is_one_line(short, monkeypatch):
    (short / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(short / "file"))
    with pytest.raises(
        SweepError, match=r"file: cannot be used \(Not a directory\); set RAY_TMPDIR"
    ):
        ray_folder()


def test_folder_with_too_long_a_path_is_refused_if_it_was_chosen_and_replaced_otherwise(
    short, monkeypatch
):
    long = short / ("x" * 60)
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(SweepError, match="set RAY_TMPDIR to a shorter one"):
        ray_folder()
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = ray_folder()
    assert folder.parent.parent == Path("/tmp")
    assert len(str(folder) + SOCKET) <= LONGEST_SOCKET


@pytest.mark.parametrize(
    ("blocks", "files", "told"),
    [
        (250, 10**6, "Ray needs 105 MB there, 1 MB are free"),
        (10**6, 3, "Ray needs room for 1000 files there, but only 3 more can be created"),
        (10**6, 0, None),  # this file system has no fixed number of files
    ],
)
def test_full_disk_is_said_before_anything_starts(short, monkeypatch, blocks, files, told):
    disk = namedtuple("disk", "f_bavail f_frsize f_files f_favail")
    monkeypatch.setattr(os, "statvfs", lambda _: disk(blocks, 4096, files, files))
    if told is None:
        ray_folder()
    else:
        with pytest.raises(SweepError, match=f"the disk is full: {told}; make room"):
            ray_folder()
