"""The control daemon of MPS is started and ended; a stand-in speaks its protocol where no driver is installed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import small_spec
from waiting import wait_until

from sweeps.errors import SweepError
from sweeps.resources import mps
from sweeps.resources.machine import Cluster, Machine, check_machine
from sweeps.resources.mps import CONTROL, LOG, PIPE, mps_is_there, mps_server
from sweeps.resources.ray_runtime import mps_if

STAND_IN = f"""#!{sys.executable}
import os, pathlib, sys, time
pipe = pathlib.Path(os.environ["{PIPE}"])
if sys.argv[1:] == ["-f"]:
    (pipe / "control").write_text(str(os.getpid()))
    while not (pipe / "quit").exists():
        time.sleep(0.02)
    sys.exit(0)
for line in sys.stdin:
    if line == "quit\\n":
        (pipe / "quit").touch()
    elif line == "get_server_list\\n":
        print(77)
    elif line == "get_client_list 77\\n":
        print(101); print(102)
"""


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in, first in the path."""
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(STAND_IN, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.mark.usefixtures("control")
def test_the_daemon_has_folders_of_its_own_and_is_gone_afterwards():
    assert mps_is_there()
    with mps_server() as server:
        places = [Path(server.environment[name]) for name in (PIPE, LOG)]
        assert all(place.is_dir() for place in places)
        assert stat.S_IMODE(places[0].parent.stat().st_mode) == 0o700
        daemon = psutil.Process(int((places[0] / "control").read_text()))
        assert daemon.is_running()
        assert server.clients() == [101, 102]
    wait_until(lambda: not daemon.is_running())
    assert not places[0].parent.exists()


@pytest.mark.usefixtures("control")
def test_it_ends_with_an_error_of_what_it_serves():
    daemons = []

    def serve() -> None:
        with mps_if(True) as environment:
            daemons.append(psutil.Process(int((Path(environment[PIPE]) / "control").read_text())))
            raise RuntimeError("any")

    with pytest.raises(RuntimeError, match="any"):
        serve()
    wait_until(lambda: not daemons[0].is_running())


def test_a_daemon_that_does_not_start_is_one_line(control):
    control.write_text("#!/bin/sh\nexit 3\n", encoding="ascii")
    said = f"{CONTROL} cannot be started: it ended with code 3"
    with pytest.raises(SweepError, match=said), mps_server():
        pass


def test_without_the_program_mps_is_refused_at_the_door():
    assert mps_is_there() == (shutil.which(CONTROL) is not None)
    spec = small_spec(resources={"cpus": 1, "gpus": 0.5, "mps": True})
    if not mps_is_there():
        with pytest.raises(
            SweepError, match=r"resources\.mps: true is impossible \(this machine has"
        ):
            check_machine(spec, Machine(4, 1))
    with pytest.raises(SweepError, match=r"resources\.mps: .*nodes of a cluster start their own"):
        check_machine(spec, Cluster(4, 1, "127.0.0.1:1", ()))


def test_nothing_is_started_where_it_is_not_wanted():
    with mps_if(False) as environment:
        assert environment == {}


@pytest.mark.gpu
def test_on_a_gpu_the_real_daemon_answers():
    if not mps_is_there():
        pytest.skip(f"this machine has no {CONTROL}")
    with mps_server() as server:
        assert server.clients() == []


LEAVES = """
import os, pathlib, sys, time
from sweeps.resources.mps import PIPE, mps_server
with mps_server() as server:
    control = pathlib.Path(server.environment[PIPE]) / "control"
    while not control.exists():
        time.sleep(0.02)
    print(control.read_text(), flush=True)
    os._exit(0)
"""


@pytest.mark.usefixtures("control")
def test_it_ends_with_a_process_that_leaves_at_once():
    done = subprocess.run(
        [sys.executable, "-c", LEAVES], capture_output=True, text=True, check=True
    )
    daemon = int(done.stdout)
    wait_until(lambda: not psutil.pid_exists(daemon))


@pytest.mark.usefixtures("control")
def test_a_daemon_that_does_not_answer_is_one_line(control, monkeypatch):
    with mps_server() as server:
        monkeypatch.setattr(mps, "SECONDS", 0.5)
        control.write_text("#!/bin/sh\nsleep 60\n", encoding="ascii")
        with pytest.raises(SweepError, match=r"did not answer within 0\.5 s"):
            server.clients()
