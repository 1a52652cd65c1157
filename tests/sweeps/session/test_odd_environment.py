"""A sweep where the environment is not as usual: no HOME, a folder with an odd name, no room for Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import drills
import pytest
from drill_sweep import SWEEP

from sweeps.session.session import full_disk

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, for Ray's sockets."""
    path = Path(tempfile.mkdtemp(prefix="e-"))
    yield path
    shutil.rmtree(path)


def run(folder: Path, without: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """A sweep of two made-up trials in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "drill.yaml").write_text(SWEEP.replace("trials: 12", "trials: 2"))
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    variables = {**os.environ, "PYTHONPATH": paths, "DRILL_EPOCH_SECONDS": "0.01", **more}
    variables.pop(without, None)
    command = [sys.executable, "-m", "drill_sweep", "drill.yaml"]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


@pytest.mark.slow
def test_folder_with_an_odd_name_and_no_home(short, tmp_path):
    done = run(tmp_path / "a?b#c%20d", without="HOME", RAY_TMPDIR=str(short))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "a?b#c%20d" / "mlruns" / "sweeps" / "drill" / "best.yaml").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["a?b#c%20d"]


def test_no_room_for_ray_is_one_line_and_nothing_starts(tmp_path):
    wrongs, note = drills.no_room_for_ray(tmp_path / "d")
    assert wrongs == []
    assert note in ("refused", drills.NO_DISK)


@pytest.mark.parametrize("below", ["", "/below"])
def test_no_folder_for_ray_is_one_line_and_nothing_starts(below, short, tmp_path):
    (short / "file").touch()
    folder = tmp_path / "driver"
    done = run(folder, RAY_TMPDIR=f"{short}/file{below}")
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if text]
    assert line.startswith("error: ")
    assert "cannot be used (Not a directory); set RAY_TMPDIR to a folder" in line
    assert [path.name for path in folder.iterdir()] == ["drill.yaml"]


def test_the_disk_that_is_full_is_named(tmp_path, monkeypatch):
    reason = full_disk(tmp_path)  # has room
    assert (reason.exit_code, reason.text[:27]) == (1, "the disk of Ray's files is ")
    disk = namedtuple("disk", "f_bavail f_frsize f_files f_favail")
    monkeypatch.setattr(os, "statvfs", lambda _: disk(1, 4096, 0, 0))
    reason = full_disk(tmp_path)
    assert (reason.exit_code, reason.text) == (
        5,
        f"{tmp_path}: the disk is full; make room, then resume",
    )
