"""The machine or the cluster nodes that trials run on, and how many trials fit at once."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from sweeps.config import Resources, SweepSpec
from sweeps.errors import SweepError
from sweeps.resources.mps import mps_is_there
from sweeps.resources.ray_access import ray_folder


@dataclass(frozen=True)
class Machine:
    """CPU cores and GPUs that this process may use."""

    cpus: int
    gpus: int

    @property
    def here(self) -> bool:
        """Whether all trials run on the machine of this process."""
        return True

    @property
    def description(self) -> str:
        """For messages."""
        return "this machine"

    def capacity(self, resources: Resources) -> int:
        """Trials at once, at most `resources.max_concurrent`; 0 if not even one fits."""
        room = math.floor(self.cpus / resources.cpus + 1e-9)
        if resources.gpu_share:
            room = min(room, math.floor(self.gpus / resources.gpu_share + 1e-9))
        return min(room, resources.max_concurrent or room)


@dataclass(frozen=True)
class Node(Machine):
    """A node of a cluster."""

    node_id: str
    address: str


@dataclass(frozen=True)
class Cluster(Machine):
    """Ray nodes; `cpus` and `gpus` are those of the largest node, preferably one on which a trial fits."""

    address: str
    nodes: tuple[Node, ...]

    @property
    def here(self) -> bool:
        """Whether all trials run on the machine of this process."""
        return False

    @property
    def description(self) -> str:
        """For messages."""
        return f"the largest of {len(self.nodes)} nodes"

    def capacity(self, resources: Resources) -> int:
        """Trials at once, at most `resources.max_concurrent`; 0 if none fits on any node."""
        room = sum(node.capacity(resources) for node in self.nodes)
        return min(room, resources.max_concurrent or room)


def check_machine(spec: SweepSpec, machine: Machine) -> None:
    """Check that one trial fits on the machine, and that Ray can be started there.

    Raises:
        SweepError: it has too few CPUs or GPUs, or no room for Ray's files.
    """
    if machine.here:
        ray_folder()
    if spec.resources.mps and not (machine.here and mps_is_there()):
        why = (
            "this machine has no control program for it"
            if machine.here
            else "nodes of a cluster start their own"
        )
        raise SweepError(
            f"{spec.source}: resources.mps: true is impossible ({why}); remove it, or set it to false"
        )
    for name, wanted, there in (
        ("cpus", spec.resources.cpus, machine.cpus),
        ("gpus", spec.resources.gpu_share, machine.gpus),
    ):
        if wanted > there:
            raise SweepError(
                f"{spec.source}: resources.{name}: a trial asks for {wanted:g}, but {machine.description} "
                f"has {there}; set resources.{name} to at most {there}"
            )


def this_machine(look_for_gpus: bool) -> Machine:
    """Measure this machine. Looking for GPUs loads torch, which takes seconds."""
    gpus = 0
    if look_for_gpus:
        import torch

        gpus = torch.cuda.device_count()
    return Machine(available_cpus(), gpus)


def available_cpus() -> int:
    """Cores this process may run on, by affinity and by the quota of its container."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cores
