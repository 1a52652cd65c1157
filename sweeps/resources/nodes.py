"""The nodes of a Ray cluster, each checked before anything starts.

A trial gets the code through Ray and its files through the storage. The dataset and the libraries must be on
its node: this is checked at the start, not discovered hours later.
"""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.config import Resources, SweepSpec
from sweeps.config.sections import is_url
from sweeps.errors import SweepError
from sweeps.resources.machine import Cluster, Node
from sweeps.resources.ray_runtime import QUIET, connected, environment, redirect_ray_output
from sweeps.secrets import without_password
from sweeps.storage.lookup import sweeps_root
from sweeps.storage.portable_files import shared_folders
from sweeps.storage.remote import RemoteFolder

log = logging.getLogger(__name__)

CHECK_SECONDS = 180
"""Time for a node to receive the code and to answer."""
LIBRARIES = ("torch", "torchvision", "timm", "ultralytics", "pydantic", "optuna")
"""Packages that a trial imports; Ray itself compares the versions of Ray and Python."""


def list_nodes() -> tuple[Node, ...]:
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
    """The cluster, with every node checked on which a trial fits.

    Args:
        address: of its head.
        resources: of a trial.
        storage: folder or URL of the sweeps, as the trials get it.
        needed: files and folders that trials read in place.

    Raises:
        SweepError: it cannot be reached, or a requirement is missing on a node; one line for each.
    """
    with connected(address, {}):
        warn_if_open(address)
        nodes = list_nodes()
        largest = max(nodes, key=lambda n: (n.capacity(resources) > 0, n.gpus, n.cpus))
        cluster = Cluster(largest.cpus, largest.gpus, address, nodes)
        found = check_nodes(
            [node for node in nodes if node.capacity(resources)], storage, tuple(needed)
        )
    if found:
        raise SweepError("\n".join(found))
    return cluster


def warn_if_open(address: str) -> None:
    """Warn that this driver uses no token, so that the cluster at `address` asks for none."""
    mode = os.environ.get(
        "RAY_AUTH_MODE", "disabled"
    )  # set by Ray where it finds a token for `auto`
    if mode.lower() != "token" and os.environ.get("RAY_USE_TLS", "0") == "0":
        log.warning(
            "cluster %s: RAY_AUTH_MODE is %s: whoever reaches its ports runs code as you; set it to token on every "
            "node and here, see docs/cluster.md",
            address,
            mode,
        )


def check_nodes(nodes: list[Node], storage: str, needed: tuple[str, ...]) -> list[str]:
    """The missing requirements of all nodes, one line each."""
    token, found = f"probe-{uuid.uuid4().hex}", []
    touch_file(storage, token)
    try:
        answers = {node: _on(node).remote(storage, token, needed) for node in nodes}
        for node, answer in answers.items():
            try:
                found += [
                    f"node {node.address}: {line}"
                    for line in ray.get(answer, timeout=CHECK_SECONDS)
                ]
            except Exception as error:
                reason = without_password(
                    (str(error).strip() or type(error).__name__).splitlines()[-1]
                )
                found.append(
                    f"node {node.address}: cannot run a trial ({reason}); repair or stop it"
                )
    finally:
        delete_file(storage, token)
    return found


def _on(node: Node) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(missing_requirements).options(
        scheduling_strategy=strategy
    )


def missing_requirements(storage: str, token: str, needed: tuple[str, ...]) -> list[str]:
    """The missing requirements of this node; runs on it."""
    found = []
    if not shares_storage(storage, token):
        found.append(
            f"storage.path: {storage} is not the same folder as the driver's; name one that all "
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


def shares_storage(storage: str, token: str) -> bool:
    """Whether this process can read the driver's file `token` in the storage, and can write there."""
    own = f"{token}-{uuid.uuid4().hex[:8]}"
    if is_url(storage):
        remote = RemoteFolder(storage)
        if not remote.exists(token):
            return False
        touch_file(storage, own)
        remote.remove([own])
        return True
    try:
        if not (Path(storage) / token).is_file():
            return False
        (Path(storage) / own).touch()
        (Path(storage) / own).unlink()
    except OSError:
        return False
    return True


def touch_file(storage: str, name: str) -> None:
    """Create an empty file in the storage.

    Raises:
        SweepError: it cannot be written.
    """
    try:
        if is_url(storage):
            with tempfile.NamedTemporaryFile() as empty:
                RemoteFolder(storage).upload(Path(empty.name), name)
        else:
            Path(storage).mkdir(parents=True, exist_ok=True)
            (Path(storage) / name).touch()
    except OSError as error:
        raise SweepError(f"storage.path: {storage}: cannot be written ({error.strerror})") from None


def delete_file(storage: str, name: str) -> None:
    """Delete a file in the storage."""
    if is_url(storage):
        RemoteFolder(storage).remove([name])
    else:
        (Path(storage) / name).unlink(missing_ok=True)


def check_cluster(address: str, spec: SweepSpec) -> Cluster:
    """The cluster at `address`, checked for `spec`. Ray's output is discarded.

    Raises:
        SweepError: see `cluster_at`.
    """
    path = spec.storage.path
    storage = path if path is not None and is_url(path) else str(sweeps_root(path))
    with environment(QUIET), redirect_ray_output(Path(os.devnull)):
        return cluster_at(address, spec.resources, storage, shared_folders(spec))
