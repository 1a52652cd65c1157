"""CUDA's Multi-Process Service for the trials of one sweep: a control daemon of our own, with folders of its own.

Processes that share a card take turns on it; as clients of one MPS server their kernels run side by side. No setting of
the card is touched, and no other daemon on the machine is spoken to: clients find theirs by the folder of its pipe.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweeps.errors import SweepError

CONTROL = "nvidia-cuda-mps-control"
"""NVIDIA's control program; it comes with the driver."""
PIPE, LOG = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
"""Variables by which daemon and clients find each other."""
PR_SET_PDEATHSIG = 1
"""Of the system's header `sys/prctl.h`."""
SECONDS = 20.0
"""Time for the daemon to start, to answer and to end."""


def mps_is_there() -> bool:
    """Whether this machine has the control program."""
    return shutil.which(CONTROL) is not None


@contextmanager
def mps_server() -> Iterator[MpsServer]:
    """Run a control daemon; it is ended with its servers in every case, with this process at the latest.

    Raises:
        SweepError: it cannot be started.
    """
    # not in TMPDIR: a socket's path has at most 107 characters
    server = MpsServer(Path("/tmp") / f"mps-{os.getpid()}-{secrets.token_hex(4)}")  # noqa: S108
    try:
        try:
            server.start()
        except (OSError, SweepError) as error:
            raise SweepError(f"{CONTROL} cannot be started: {error}") from None
        yield server
    finally:
        server.end()


def end_with_parent() -> None:
    """Called in a child before its program starts: the system ends it when the thread that started it does.

    A process that is killed, or leaves by a second Ctrl-C, cannot end it by itself. `prctl` exists on Linux only, as
    MPS does.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class MpsServer:
    """A control daemon.

    Args:
        folder: for its pipe and its log; made here, and removed at the end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes that it is to serve."""
        return {PIPE: str(self._folder / "pipe"), LOG: str(self._folder / "log")}

    def start(self) -> None:
        """Start it, and wait until its pipe is there.

        Raises:
            OSError: its folders cannot be made, or there is no such program.
            SweepError: it ended, or did not answer.
        """
        self._folder.mkdir(mode=0o700)
        for place in self.environment.values():
            Path(place).mkdir()
        self._daemon = subprocess.Popen(
            [CONTROL, "-f"],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the sweep, which ends it afterwards
            preexec_fn=end_with_parent,
        )
        deadline = time.monotonic() + SECONDS
        while not any((self._folder / "pipe").iterdir()):
            if self._daemon.poll() is not None:
                raise SweepError(f"it ended with code {self._daemon.returncode}")
            if time.monotonic() > deadline:
                raise SweepError(f"it did not answer within {SECONDS:g} s")
            time.sleep(0.05)

    def clients(self) -> list[int]:
        """Numbers of the processes that are connected."""
        found: list[int] = []
        for server in self._ask("get_server_list").split():
            found += map(int, self._ask(f"get_client_list {server}").split())
        return found

    def end(self) -> None:
        """End it with its servers, and remove its folders."""
        if self._daemon is not None and self._daemon.poll() is None:
            try:
                self._ask("quit")
                self._daemon.wait(SECONDS)
            except (OSError, SweepError, subprocess.TimeoutExpired):
                self._daemon.kill()
                self._daemon.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, command: str) -> str:
        """The daemon's answer; empty if there is none.

        Raises:
            SweepError: it takes too long.
        """
        try:
            done = subprocess.run(
                [CONTROL],
                input=f"{command}\n",
                env={**os.environ, **self.environment},
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SweepError(f"{CONTROL} did not answer within {SECONDS:g} s") from None
        return done.stdout if done.returncode == 0 else ""
