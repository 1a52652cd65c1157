"""`python -m sweeps.ui`: the MLflow UI over what was logged, on 127.0.0.1 only, with a link to each sweep's trials."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from fsdet.command import ExitCode, FlagParser, run_command
from sweeps.config.sections import TrackingSpec
from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import sweeps_root
from sweeps.tracking import sqlite_file, tracking_uri

HOST = "127.0.0.1"
LINKS = 5
"""Sweeps whose links are printed."""
PATIENCE = 60.0
"""Seconds in which the server answers or ends."""


def command(port: int) -> list[str]:
    """The `mlflow ui` that shows the store of MLFLOW_BACKEND_STORE_URI.

    The store is not an argument: everyone on the machine can read a command line, and it may hold a password.
    """
    options = ["--host", HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "ui", *options]


def variables(uri: str) -> dict[str, str]:
    """The environment of the server: without the processes that run jobs for language models."""
    own = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**os.environ, **own}


def check(uri: str, port: int) -> None:
    """Check that there is something to show, and a port to show it at.

    Raises:
        SweepError: nothing was logged, or another program listens at the port.
    """
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        raise SweepError(
            f"{database}: nothing was logged there yet; run a sweep first (make sweep), go to the folder "
            "whose mlruns holds one, or set MLFLOW_TRACKING_URI"
        )
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((HOST, port))
        except OSError as error:
            raise SweepError(
                f"--port {port}: cannot be used ({error.strerror}); if a UI runs there, open "
                f"http://{HOST}:{port}, or choose another one, such as --port {port + 1}"
            ) from None


def links(port: int) -> list[str]:
    """One line for each of the latest sweeps of this folder: its name and the address of its trials, ranked."""
    files = sweeps_root().glob("*/tracking.json")
    latest = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
    records = [(file.parent.name, SweepFolder(file.parent).load_record()) for file in latest]
    shown = [(name, record["view"]) for name, record in records if "view" in record][:LINKS]
    return [f"  {name}: http://{HOST}:{port}{view}" for name, view in shown]


def serve(uri: str, port: int) -> ExitCode:
    """Run the server until it ends or a signal ends it.

    Raises:
        SweepError: see `check`.
    """
    check(uri, port)
    server = subprocess.Popen(command(port), env=variables(uri), start_new_session=True)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        os.killpg(server.pid, signal.SIGTERM)  # its workers are other processes

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    if wait_for(server, port):
        print(
            f"\nMLflow: http://{HOST}:{port} (Ctrl-C stops it); the trials of each sweep, ranked:"
        )
        print("\n".join(links(port)) or "  no sweep in this folder", flush=True)
    code = server.wait()
    return ExitCode.OK if code in (0, -signal.SIGTERM) else ExitCode.NOTHING_FOUND


def wait_for(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server answers; False if it ended."""
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        with socket.socket() as found:
            if found.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.1)
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns when the server ends."""
    return run_command(lambda: run(arguments), mistakes=(SweepError,), redact=without_password)


def run(arguments: Sequence[str] | None) -> int:
    """Serve, or say where a server does so already."""
    parser = FlagParser("python -m sweeps.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args(arguments)
    uri = tracking_uri(TrackingSpec())
    if uri.startswith("http"):
        sys.stdout.write(f"the runs are on a server; open {without_password(uri)} in a browser\n")
        return ExitCode.OK
    return serve(uri, options.port)


if __name__ == "__main__":
    sys.exit(main())
