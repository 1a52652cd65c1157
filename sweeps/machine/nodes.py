"""The nodes of a Ray cluster: reached, measured, and looked at before anything starts.

A trial gets the code through Ray and its files through the storage. What it needs besides, the
dataset and the libraries, must be on its node: that is looked for now, not found out hours later.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.errors import SweepError
from sweeps.machine.machine import Machine
from sweeps.secrets import without_password
from sweeps.spec import Resources
from sweeps.spec.places import is_url
from sweeps.storage.found import PACKAGES
from sweeps.storage.mirror import Mirror

SECONDS = 180
"""Given to a node to receive the code and to answer."""
KNOCK_SECONDS = 10
"""Given to the head to answer at all."""
LIBRARIES = ("torch", "torchvision", "timm", "ultralytics", "pydantic", "optuna")
"""What a trial imports; Ray itself compares its own version and Python's."""


@dataclass(frozen=True)
class Node(Machine):
    """One of a cluster."""

    node_id: str
    address: str


@dataclass(frozen=True)
class Cluster(Machine):
    """Ray nodes; `cpus` and `gpus` are those of one that carries a trial, or of the largest."""

    address: str
    nodes: tuple[Node, ...]

    @property
    def here(self) -> bool:
        """Whether it is the one that this process runs on."""
        return False

    @property
    def words(self) -> str:
        """What it is, for messages."""
        return f"the largest of {len(self.nodes)} nodes"

    def capacity(self, resources: Resources) -> int:
        """Trials at once, at most `resources.max_concurrent`; 0 if no node carries one."""
        carried = sum(node.capacity(resources) for node in self.nodes)
        return min(carried, resources.max_concurrent or carried)


@contextlib.contextmanager
def connected(address: str, variables: dict[str, str]) -> Iterator[None]:
    """Be a driver of the cluster at `address`.

    Args:
        address: `host:port` of its head, or `auto`.
        variables: environment of the workers; anyone on the cluster may read them.

    Raises:
        SweepError: there is none, or it does not take this driver.
    """
    if address.startswith("ray://"):
        raise SweepError(
            f"--address {address}: a sweep's driver runs on a node of the cluster, not behind Ray "
            "Client; run this command there, or by `ray job submit`, with --address HOST:PORT"
        )
    try:
        knock(address)
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
            f"--address {address}: no Ray cluster to be had there ({reason});{token} leave --address and "
            "RAY_ADDRESS out to use this machine alone; docs/cluster.md tells more"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """Return if something listens at `host:port`: Ray itself would try for more than ten minutes.

    Raises:
        OSError: nothing does, or it does not answer.
    """
    host, colon, port = address.rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def alive() -> tuple[Node, ...]:
    """The nodes of the cluster that this process is a driver of."""
    found = [
        Node(
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
            node["NodeID"],
            node["NodeManagerAddress"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return tuple(sorted(found, key=lambda node: node.address))


def cluster_at(address: str, resources: Resources, storage: str, needed: list[str]) -> Cluster:
    """The cluster, with every node that can carry a trial looked at.

    Args:
        address: of its head.
        resources: of a trial.
        storage: folder or URL of the sweeps, as the trials are told it.
        needed: files and folders that trials read in place.

    Raises:
        SweepError: it cannot be reached, or a node lacks something; one line for each.
    """
    with connected(address, {}):
        nodes = alive()
        largest = max(nodes, key=lambda n: (n.capacity(resources) > 0, n.gpus, n.cpus))
        cluster = Cluster(largest.cpus, largest.gpus, address, nodes)
        found = look_at(
            [node for node in nodes if node.capacity(resources)], storage, tuple(needed)
        )
    if found:
        raise SweepError("\n".join(found))
    return cluster


def look_at(nodes: list[Node], storage: str, needed: tuple[str, ...]) -> list[str]:
    """What is wrong, a line each."""
    token, found = f"probe-{uuid.uuid4().hex}", []
    write(storage, token)
    try:
        answers = {node: _on(node).remote(storage, token, needed) for node in nodes}
        for node, answer in answers.items():
            try:
                found += [
                    f"node {node.address}: {line}" for line in ray.get(answer, timeout=SECONDS)
                ]
            except Exception as error:
                reason = without_password(str(error).strip().splitlines()[-1])
                found.append(f"node {node.address}: cannot run a trial ({reason}); mend or stop it")
    finally:
        erase(storage, token)
    return found


def _on(node: Node) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(lacking).options(scheduling_strategy=strategy)


def lacking(storage: str, token: str, needed: tuple[str, ...]) -> list[str]:
    """What this node lacks: runs on it."""
    found = []
    if not sees(storage, token):
        found.append(
            f"storage.path: {storage} is not the folder that the driver sees; name one that all "
            "nodes share under one path, or a URL (s3://…, gs://…)"
        )
    found += [
        f"no such file or folder: {path}; put it there under this path, as on the other nodes"
        for path in needed
        if not Path(path).exists()
    ]
    absent = [name for name in LIBRARIES if find_spec(name) is None]
    if absent:
        found.append(f"{', '.join(absent)}: not installed; install requirements.lock there")
    return found


def sees(storage: str, token: str) -> bool:
    """Whether this process reads what another one wrote, and can write itself."""
    own = f"{token}-{uuid.uuid4().hex[:8]}"
    if is_url(storage):
        mirror = Mirror(storage)
        if not mirror.has(token):
            return False
        write(storage, own)
        mirror.remove([own])
        return True
    try:
        if not (Path(storage) / token).is_file():
            return False
        (Path(storage) / own).touch()
        (Path(storage) / own).unlink()
    except OSError:
        return False
    return True


def write(storage: str, name: str) -> None:
    """An empty file in the storage.

    Raises:
        SweepError: it cannot be written.
    """
    try:
        if is_url(storage):
            with tempfile.NamedTemporaryFile() as empty:
                Mirror(storage).push(Path(empty.name), name)
        else:
            Path(storage).mkdir(parents=True, exist_ok=True)
            (Path(storage) / name).touch()
    except OSError as error:
        raise SweepError(f"storage.path: {storage}: cannot be written ({error.strerror})") from None


def erase(storage: str, name: str) -> None:
    """Take it away."""
    if is_url(storage):
        Mirror(storage).remove([name])
    else:
        (Path(storage) / name).unlink(missing_ok=True)
