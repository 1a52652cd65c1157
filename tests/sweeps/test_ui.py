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
def test_it_listens_here_only_and_tells_nobody_the_store(tmp_path):
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
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
        assert process.wait(PATIENCE) == 0
        psutil.wait_procs(family, timeout=PATIENCE)
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
