"""A real Ray cluster of two nodes on this machine, for tests and drills.

Both listen on addresses of the loopback device. Some folders can be hidden from the second node, as on another
machine, by a mount namespace of its own, where the system allows it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HEAD, SECOND = "127.0.0.2", "127.0.0.3"
QUIET = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass
class TwoNodes:
    """The cluster, with one CPU a node."""

    port: int
    folder: Path
    """Of Ray's files; short, for the paths of its sockets."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """For --address."""
        return f"{HEAD}:{self.port}"

    def start(self, ip: str, hidden: Sequence[Path] = ()) -> None:
        """Start a node; returns when it has joined."""
        place = [f"--address={self.address}"]
        if ip == HEAD:
            place = ["--head", f"--port={self.port}", "--include-dashboard=false"]
            place += [f"--temp-dir={self.folder}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *place]
        command += [f"--node-ip-address={ip}", "--num-cpus=1", "--object-store-memory=100000000"]
        if hidden:
            mounts = " && ".join(f"mount -t tmpfs none '{path}'" for path in hidden)
            command = ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]
        left_out = ("PYTHONPATH", "RAY_ADDRESS")
        environment = {k: v for k, v in os.environ.items() if k not in left_out} | QUIET
        with (self.folder / f"{ip}.log").open("wb") as log:
            self.processes[ip] = subprocess.Popen(
                command, env=environment, cwd="/", stdout=log, stderr=log, start_new_session=True
            )
        self._wait_for(ip)

    def _wait_for(self, ip: str, seconds: float = 120) -> None:
        log, end = self.folder / f"{ip}.log", time.monotonic() + seconds
        while "Ray runtime started" not in log.read_text(errors="replace"):
            if time.monotonic() > end or self.processes[ip].poll() is not None:
                raise TimeoutError(f"node {ip} did not start: {log.read_text(errors='replace')}")
            time.sleep(0.2)

    def processes_of(self, ip: str) -> list[psutil.Process]:
        """All that runs on a node, workers included."""
        first = psutil.Process(self.processes[ip].pid)
        return [first, *first.children(recursive=True)]

    def kill(self, ip: str) -> None:
        """The node is gone from one moment to the next, with all that runs on it."""
        found = self.processes_of(ip)
        self.processes.pop(ip).poll()
        for one in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)


def can_hide() -> bool:
    """Whether this process may make a mount namespace."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@contextlib.contextmanager
def two_nodes(hidden: Sequence[Path] = ()) -> Iterator[TwoNodes]:
    """Both nodes; the second one without the folders `hidden`."""
    with socket.socket() as found:
        found.bind((HEAD, 0))
        port = found.getsockname()[1]
    cluster = TwoNodes(port, Path(tempfile.mkdtemp(prefix="ray-")))
    try:
        cluster.start(HEAD)
        cluster.start(SECOND, hidden)
        yield cluster
    finally:
        for ip in list(cluster.processes):
            cluster.kill(ip)
        shutil.rmtree(cluster.folder, ignore_errors=True)
