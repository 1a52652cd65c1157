"""Starts Ray on this machine, or connects to a cluster, and shuts it down afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import ray

from fsdet.errors import first_line
from sweeps.config import Resources
from sweeps.config.paths import ROOT
from sweeps.errors import SweepError
from sweeps.resources.internals import loopback_only
from sweeps.resources.machine import Cluster, Machine
from sweeps.resources.mps import mps_server
from sweeps.resources.ray_access import ray_folder, token_file
from sweeps.secrets import FOR_THE_DRIVER, without_password
from sweeps.storage.portable_files import PACKAGES

log = logging.getLogger(__name__)

Starting: TypeAlias = Callable[[], contextlib.AbstractContextManager[None]]

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
        reason = without_password(first_line(error))
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
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables within the context, or remove those that are None; restore them afterwards."""
    before = {key: os.environ.get(key) for key in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for key, value in values.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@contextlib.contextmanager
def running_ray(
    machine: Machine,
    resources: Resources,
    ray_log: Path,
    starting: Starting = contextlib.nullcontext,
) -> Iterator[None]:
    """Start Ray on this machine, or connect to a cluster, with workers set up for one trial each.

    A trial uses its own cores only, and waiting threads do not spin on those of other trials. Workers of this
    machine inherit the environment that Ray is started in; those of a cluster get theirs through Ray. Each
    node has its own cache of decoded images.

    Args:
        machine: to run on.
        resources: of a trial.
        ray_log: what Ray logs and prints goes there.
        starting: context in which a Ray of this machine is started; the environment lacks passwords meanwhile.

    Raises:
        SweepError: Ray cannot be started, or no cluster answers.
    """
    threads = str(max(1, int(resources.cpus)))
    workers = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    with environment(QUIET), redirect_ray_output(ray_log):
        if isinstance(machine, Cluster):
            tune = {key: value for key, value in QUIET.items() if key.startswith("TUNE_")}
            with connected(machine.address, tune | workers):
                yield
        else:
            with mps_if(resources.mps) as served, local_ray(machine, workers | served, starting):
                yield


@contextlib.contextmanager
def mps_if(wanted: bool) -> Iterator[dict[str, str]]:
    """Run an MPS server if `wanted`; the environment of the processes that it serves."""
    if not wanted:
        yield {}
        return
    with mps_server() as server:
        yield server.environment


@contextlib.contextmanager
def local_ray(
    machine: Machine, variables: dict[str, str], starting: Starting = contextlib.nullcontext
) -> Iterator[None]:
    """Run Ray on this machine alone; its workers get `variables`, and find our packages.

    Its servers listen on 127.0.0.1 only, ask for a token of this process, and have no passwords.

    Raises:
        SweepError: it cannot be started.
    """
    workers = {
        **variables,
        # from any working directory, installed or not
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    if "FSDET_CACHE" in os.environ:  # Ray gives every trial a working directory of its own
        workers["FSDET_CACHE"] = str(Path(os.environ["FSDET_CACHE"]).absolute())
    folder = ray_folder()
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        log.warning("RAY_AUTH_MODE is ignored: the Ray of a sweep on this machine asks for a token")
    with token_file(folder.parent) as token:
        access = {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": str(token)}
        with environment({**workers, **access}):
            try:
                with starting(), environment(dict.fromkeys(FOR_THE_DRIVER)), loopback_only():
                    start_ray(machine, folder)
                yield
            finally:
                ray.shutdown()


def start_ray(machine: Machine, folder: Path) -> None:
    """Start Ray on this machine.

    Raises:
        SweepError: it cannot be started.
    """
    try:
        ray.init(
            address="local",
            num_cpus=machine.cpus,
            num_gpus=machine.gpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=True,  # False would remove the handlers
            _temp_dir=str(folder),
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SweepError(
            f"{folder}: Ray cannot be started there ({reason}); make room, or set RAY_TMPDIR to another folder"
        ) from None


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
