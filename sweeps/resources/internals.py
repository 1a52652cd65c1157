"""The only module of this package that uses private members of Ray; `RELIED_ON` lists each with its purpose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants

RELIED_ON = {
    ("ray._private.ray_constants", ""): {"ENABLE_RAY_CLUSTER": "loopback_only"},
}
"""(Module, class) -> member -> what needs it."""


@contextmanager
def loopback_only() -> Iterator[None]:
    """Let a Ray that is started within have the address 127.0.0.1, as on macOS; its servers then listen there only.

    `ray.init(_node_ip_address="127.0.0.1")` is replaced by an address that others can reach.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
