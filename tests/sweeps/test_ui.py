"""The command behind `make ui`: the real server, started and stopped as a user does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests
from mlflow import MlflowClient
from servers import free_port
from waiting import PATIENCE, wait_until

from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import sweeps_root
from sweeps.ui import links, main

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def ui(port: int, store: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m sweeps.ui` in a group of processes of its own, as a terminal starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeps.ui", "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": store},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def answers(address: str, port: int) -> bool:
    """Whether anything listens there."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def other_addresses() -> list[str]:
    """All addresses of this machine but 127.0.0.1; one that listens everywhere answers at 127.0.0.2 too."""
    found = [a for some in psutil.net_if_addrs().values() for a in some]
    own = [a.address for a in found if a.family == socket.AF_INET and a.address != "127.0.0.1"]
    return ["127.0.0.2", *own]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_listens_here_only_tells_nobody_the_store_and_ends_with_a_signal(tmp_path, number):
    store, port = f"sqlite:///{tmp_path}/of-mine-0815.db", free_port()
    MlflowClient(tracking_uri=store).create_experiment("seen")
    with ui(port, store) as process:
        wait_until(lambda: process.poll() is not None or answers("127.0.0.1", port))
        found = requests.post(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search",
            json={"max_results": 9},
            timeout=PATIENCE,
        ).json()
        assert "seen" in [experiment["name"] for experiment in found["experiments"]]
        assert not [a for a in other_addresses() if answers(a, port)]
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
        assert len(family) > 1
        assert "of-mine-0815" not in " ".join(word for p in family for word in p.cmdline())
        assert len(family) <= 4
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        psutil.wait_procs(family, timeout=PATIENCE)
        assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert not answers("127.0.0.1", port)


def test_runs_on_a_server_are_seen_there():
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.ui"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0
    assert "the runs are on a server" in done.stdout


def test_taken_port_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/a.db")
    (tmp_path / "a.db").touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    printed = capsys.readouterr()
    assert f"--port {port}: cannot be used (Address already in use)" in printed.err
    assert f"--port {port + 1}" in printed.err


def test_folder_without_runs_is_said_and_left_empty(in_own_folder, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main([]) == 2
    assert "nothing was logged there yet" in capsys.readouterr().err
    assert not list(in_own_folder.rglob("*.db"))


def test_links_lead_to_the_latest_sweeps(in_own_folder):
    for number, name in enumerate(("old", "new", "unfinished")):
        folder = SweepFolder(sweeps_root() / name)
        folder.path.mkdir(parents=True)
        folder.save_record({"view": f"/#/{name}"} if name != "unfinished" else {})
        os.utime(folder.record_file, (number, number))
    assert links(5000) == [
        "  new: http://127.0.0.1:5000/#/new",
        "  old: http://127.0.0.1:5000/#/old",
    ]
