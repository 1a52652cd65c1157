"""Starts Ray on this machine, or connects to a cluster, and shuts it down afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import ray

from sweeps.config import Resources
from sweeps.config.paths import ROOT
from sweeps.errors import SweepError
from sweeps.resources.machine import Cluster, Machine
from sweeps.secrets import without_password
from sweeps.storage.portable_files import PACKAGES

REACH_SECONDS = 10
"""Seconds to wait for the head of a cluster to answer."""
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""What a gRPC client sends first: the preface of HTTP/2 and an empty SETTINGS frame."""
HTTP2_SETTINGS = b"\x04"
"""Type of the frame that a gRPC server answers with."""
STDERR = 2
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # without it, Ray prints a box even at verbosity 0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an exploded trial reports no objective
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `sweeps.session.signals` handles Ctrl-C
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # Tune's snapshots are not used
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",  # for a stopped trial to close its files
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about CUDA_VISIBLE_DEVICES
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment of the driver while a sweep runs."""


@contextlib.contextmanager
def connected(address: str, variables: dict[str, str]) -> Iterator[None]:
    """Connect to the cluster at `address` as a driver.

    Args:
        address: `host:port` of its head, or `auto`.
        variables: environment of the workers; anyone on the cluster may read them.

    Raises:
        SweepError: no cluster answers there, or it refuses this driver.
    """
    if address.startswith("ray://"):
        raise SweepError(
            f"--address {address}: a sweep's driver runs on a node of the cluster, not behind Ray "
            "Client; run this command there, or by `ray job submit`, with --address HOST:PORT"
        )
    try:
        check_reachable(address)
        with silent_native_errors():
            ray.init(
                address=address,
                runtime_env={"py_modules": [str(path) for path in PACKAGES], "env_vars": variables},
                log_to_driver=False,
                configure_logging=True,
            )
    except Exception as error:  # Ray has an exception for each reason, and some have none
        ray.shutdown()
        reason = without_password(str(error).strip().splitlines()[0])
        token = (
            ""
            if "RAY_AUTH_MODE" in os.environ
            else " if it asks for a token, set RAY_AUTH_MODE=token;"
        )
        raise SweepError(
            f"--address {address}: cannot connect to a Ray cluster ({reason});{token} omit --address and "
            "RAY_ADDRESS to use this machine alone; see docs/cluster.md"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Check that a gRPC server answers at `host:port`: Ray itself would retry for minutes, with a warning each.

    Raises:
        OSError: it cannot be reached, or is another kind of server.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    with socket.create_connection((host, int(port)), timeout=REACH_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":  # it answers only after a handshake
            return
        connection.sendall(HTTP2_HELLO)
        answer = connection.recv(9)
    if answer[3:4] != HTTP2_SETTINGS:
        raise OSError("the server there is not the head of a Ray cluster")


@contextlib.contextmanager
def silent_native_errors() -> Iterator[None]:
    """Discard what Ray's C++ code writes to the error stream of this process; its exceptions say the same."""
    before, nothing = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, STDERR)
    try:
        yield
    finally:
        os.dup2(before, STDERR)
        os.close(before)
        os.close(nothing)


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables within the context, and restore them afterwards."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def running_ray(machine: Machine, resources: Resources, ray_log: Path) -> Iterator[None]:
    """Start Ray on this machine, or connect to a cluster, with workers set up for one trial each.

    A trial uses its own cores only, and waiting threads do not spin on those of other trials. Workers of this
    machine inherit the environment that Ray is started in; those of a cluster get theirs through Ray. Each
    node has its own cache of decoded images.
    """
    threads = str(max(1, int(resources.cpus)))
    workers = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    with environment(QUIET), redirect_ray_output(ray_log):
        if isinstance(machine, Cluster):
            tune = {key: value for key, value in QUIET.items() if key.startswith("TUNE_")}
            with connected(machine.address, tune | workers):
                yield
        else:
            with local_ray(machine, workers):
                yield


@contextlib.contextmanager
def local_ray(machine: Machine, variables: dict[str, str]) -> Iterator[None]:
    """Run Ray on this machine alone; its workers get `variables`, and find our packages."""
    workers = {
        **variables,
        # from any working directory, installed or not
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    if "FSDET_CACHE" in os.environ:  # Ray gives every trial a working directory of its own
        workers["FSDET_CACHE"] = str(Path(os.environ["FSDET_CACHE"]).absolute())
    with environment(workers):
        try:
            ray.init(
                address="local",
                num_cpus=machine.cpus,
                num_gpus=machine.gpus,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=True,  # False would remove the handlers
            )
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def redirect_ray_output(path: Path) -> Iterator[None]:
    """Send what Ray logs and prints to `path`.

    Ray prints from its own threads, which would garble a live table. The sweep's console holds the original
    stream and stays visible.
    """
    logger = logging.getLogger("ray")
    with path.open("a", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        before = logger.handlers, logger.propagate
        logger.handlers, logger.propagate = [handler], False
        try:
            with contextlib.redirect_stdout(file):
                yield
        finally:
            logger.handlers, logger.propagate = before
