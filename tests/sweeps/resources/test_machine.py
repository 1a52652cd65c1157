"""How many trials a machine or a cluster has room for."""

from __future__ import annotations

from sweeps.config import Resources
from sweeps.resources.machine import Cluster, Machine, Node


def test_capacity_is_what_fits_each_node():
    nodes = tuple(Node(cpus, gpus, str(i), f"n{i}") for i, (cpus, gpus) in enumerate(SIZES))
    cluster = Cluster(8, 2, "a:1", nodes)
    assert cluster.capacity(Resources(cpus=3)) == 0 + 1 + 2
    assert cluster.capacity(Resources(cpus=3, gpus=1)) == 2
    assert cluster.capacity(Resources(cpus=1, max_concurrent=5)) == 5
    assert cluster.capacity(Resources(cpus=9)) == 0
    assert cluster.description == "the largest of 3 nodes"
    assert Machine(8, 2).description == "this machine"


SIZES = ((2, 0), (4, 0), (8, 2))
"""CPUs and GPUs of made-up nodes."""
