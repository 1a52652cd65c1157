"""Real servers for tests, each on a free port of 127.0.0.1 and gone with the test."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

import fsspec
import psycopg
import pytest
from waiting import PATIENCE

from sweeps.ui import command, variables

PASSWORD = "open-sesame-4711"
"""Of every server; no file and no output of a sweep may hold it."""


_PORTS = itertools.count(15000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))
"""Of this process alone, and below those that the system hands out: Ray would take one before the server does."""


def free_port() -> int:
    for port in _PORTS:
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def wait_for(
    answers: Callable[[], object],
    seconds: float = PATIENCE,
    server: subprocess.Popen[bytes] | None = None,
) -> None:
    """Until `answers` no longer raises; `server` must be alive meanwhile."""
    end = time.monotonic() + seconds
    while True:
        try:
            answers()
        except Exception:
            if time.monotonic() > end or (server is not None and server.poll() is not None):
                raise
            time.sleep(0.2)
        else:
            return


@contextmanager
def mlflow_ui(port: int, store: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real MLflow server over `store`, as `python -m sweeps.ui` starts it."""
    process = subprocess.Popen(
        command(port), env=variables(store), start_new_session=True, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        health = f"http://127.0.0.1:{port}/health"
        wait_for(lambda: urllib.request.urlopen(health, timeout=5), server=process)
        yield process
    finally:
        with suppress(ProcessLookupError):  # a test may have killed it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def program(name: str) -> str:
    """A program of PostgreSQL; skips the test where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = shutil.which(name) or (str(found[-1]) if found else None)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install postgresql)")
    return path


@dataclass
class Postgres:
    """A PostgreSQL server in a folder of its own."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of a database for studies."""
        return f"postgresql://tester:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    @property
    def runs_url(self) -> str:
        """Of one for MLflow: the two cannot share."""
        return self.url.removesuffix("postgres") + "runs"

    def start(self) -> None:
        command = [program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-k", str(self.folder), "-F"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, **as_nobody())
        wait_for(self.connect)

    def connect(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()

    def stop(self) -> None:
        """At once: open connections are cut off."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(PATIENCE)
            self.process = None


def as_nobody() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server with the user `tester`, who owns it."""
    initdb = program("initdb")
    # not under pytest's folders, which nobody may enter
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if os.getuid() == 0:
        shutil.chown(folder, "nobody")
        shutil.chown(secret, "nobody")
    server = Postgres(folder, free_port())
    try:
        command = [initdb, "-D", str(folder / "data"), "-U", "tester", "--pwfile", str(secret)]
        command += ["--auth=scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, **as_nobody())
        server.start()
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("create database runs")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(folder: Path, database: str) -> Iterator[str]:
    """`mlflow server` over `database`; its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1"]
    command += ["--artifacts-destination", (folder / "artifacts").as_uri()]
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "MLFLOW_BACKEND_STORE_URI": database},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: urllib.request.urlopen(f"{address}/health").close())
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # asked to end, it waits for its jobs
        process.wait(PATIENCE)


@contextmanager
def s3_server() -> Iterator[str]:
    """A server that speaks S3, with credentials in the environment; the URL of a bucket."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    named = {
        "AWS_ENDPOINT_URL_S3": address,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        wait_for(lambda: urllib.request.urlopen(f"{address}/moto-api/").close())
        with pytest.MonkeyPatch.context() as patch:
            for key, value in named.items():
                patch.setenv(key, value)
            # fsspec remembers the client of an earlier server
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            fsspec.filesystem("s3").mkdir("sweeps-of-a-test")
            yield "s3://sweeps-of-a-test"
    finally:
        process.terminate()
        process.wait(PATIENCE)
