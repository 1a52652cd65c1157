"""Whether a cluster can be reached is known soon and in silence; real ones are in `test_cluster.py`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from sweeps.resources import ray_runtime
from sweeps.resources.nodes import warn_if_open
from sweeps.resources.ray_runtime import check_reachable, environment, silent_native_errors

GRPC = b"\x00\x00\x0c\x04\x00\x00\x00\x00\x00" + bytes(12)
"""The SETTINGS frame that a gRPC server sends first."""


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """A server on this machine that sends `answer` to the first client, or nothing; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.recv(100)
                connection.sendall(answer)
                connection.recv(1)  # until the client leaves

        threading.Thread(target=serve, daemon=True).start()
        yield "{}:{}".format(*listening.getsockname())


def test_a_grpc_server_can_be_reached_and_others_cannot(monkeypatch):
    monkeypatch.setattr(ray_runtime, "REACH_SECONDS", 0.5)
    with server(GRPC) as address:
        check_reachable(address)
    with (
        server(b"HTTP/1.1 400 Bad Request\r\n") as address,
        pytest.raises(OSError, match="not the head"),
    ):
        check_reachable(address)
    with server(b"") as address, pytest.raises(OSError, match="timed out"):
        check_reachable(address)
    with pytest.raises(OSError, match="refused"):
        check_reachable(address)  # it has ended


def test_an_address_without_a_port_is_left_to_ray():
    check_reachable("auto")


def test_native_errors_are_discarded_only_meanwhile(capfd):
    with silent_native_errors():
        os.write(2, b"a warning of gRPC\n")
    os.write(2, b"an error of ours\n")
    assert capfd.readouterr().err == "an error of ours\n"


def test_cluster_without_a_token_is_told(monkeypatch, caplog):
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    for mode in (None, "disabled", "Token"):
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        warn_if_open("10.0.0.1:6379")
    assert len(caplog.records) == 2
    assert "RAY_AUTH_MODE is disabled: whoever reaches its ports" in caplog.text


def test_variables_are_set_and_removed_within_a_context_and_restored(monkeypatch):
    monkeypatch.setenv("A_SECRET", "x")
    monkeypatch.delenv("A_SETTING", raising=False)
    with environment({"A_SECRET": None, "A_SETTING": "1"}):
        assert "A_SECRET" not in os.environ
        assert os.environ["A_SETTING"] == "1"
    assert os.environ["A_SECRET"] == "x"
    assert "A_SETTING" not in os.environ
