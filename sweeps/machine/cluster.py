"""Ray, started quietly on this machine or joined elsewhere, and left as it was found."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.tune.execution import class_cache

from sweeps.machine.machine import Machine
from sweeps.machine.nodes import Cluster, cluster_at, connected
from sweeps.secrets import SECRETS
from sweeps.spec import Resources, SweepSpec
from sweeps.spec.paths import ROOT
from sweeps.spec.places import is_url
from sweeps.storage.folder import sweeps_root
from sweeps.storage.shipping import read_in_place

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # else Ray prints a box at verbosity 0 too
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files nobody reads
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an exploded trial reports no objective
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours tells Ctrl-C from an end
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # a snapshot nobody reads
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "30",  # for a stopped trial to close its files
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about CUDA_VISIBLE_DEVICES
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment of the driver while a sweep runs."""


# what Tune sends to its workers so, Ray writes into its logs; every node has credentials of its own
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and set them back."""
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
    """Run Ray on this machine alone, or be a driver of a cluster, with workers set up for one trial each.

    A trial computes on its own cores, and threads that wait do not spin on those of its neighbours.
    Workers of this machine inherit the environment that Ray is started in; those of a cluster are
    told theirs. Where a node keeps its decoded images is the node's own matter.
    """
    threads = str(max(1, int(resources.cpus)))
    workers = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    with environment(QUIET), words_of_ray_to(ray_log):
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
                configure_logging=True,  # False would take the handlers away
            )
            yield
        finally:
            ray.shutdown()


def quiet_cluster_at(address: str, spec: SweepSpec) -> Cluster:
    """The cluster at `address`, looked at for `spec`. What Ray says meanwhile is not kept.

    Raises:
        SweepError: see `cluster_at`.
    """
    path = spec.storage.path
    storage = path if path is not None and is_url(path) else str(sweeps_root(path))
    with environment(QUIET), words_of_ray_to(Path(os.devnull)):
        return cluster_at(address, spec.resources, storage, read_in_place(spec))


@contextlib.contextmanager
def words_of_ray_to(path: Path) -> Iterator[None]:
    """Send what Ray logs and prints to `path`.

    It prints from threads of its own and into the middle of a table. Who means to be seen keeps the
    stream that was there before, as the sweep's console does.
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
