"""What the Ray of a local sweep listens at, and what its processes know."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.secrets import FOR_THE_DRIVER

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
OLD_TOKEN = "of-all-my-clusters"
SCRIPT = """
import json, os, stat, sys
from pathlib import Path
import psutil, ray
from sweeps.config import Resources
from sweeps.resources.machine import Machine
from sweeps.resources.ray_runtime import running_ray

def family():
    own = psutil.Process()
    return [own, *own.children(recursive=True)]

def listening(process):
    found = process.net_connections("inet")
    return [c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN]

seen = {}
with running_ray(Machine(1, 0), Resources(), Path("ray.log")):
    worker = ray.get(ray.remote(lambda: dict(os.environ)).remote())
    seen["worker"] = worker
    seen["listens"] = {f"{p.name()} {p.pid}": listening(p) for p in family()}
    seen["environments"] = {f"{p.name()} {p.pid}": p.environ() for p in family()[1:]}
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    seen["token_mode"] = stat.S_IMODE(token.stat().st_mode)
    seen["token"] = token.read_text()
    seen["address"] = ray.get_runtime_context().gcs_address
    other = "from ray._raylet import GcsClient; GcsClient(address=%r).internal_kv_keys(b'', None, 10)" % seen["address"]
    import subprocess
    tokens = {"without": ("disabled", ""), "wrong": ("token", "x" * 64), "right": ("token", seen["token"])}
    for name, (mode, text) in tokens.items():
        env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
        env |= {"RAY_AUTH_MODE": mode} | ({"RAY_AUTH_TOKEN": text} if text else {})
        try:
            done = subprocess.run([sys.executable, "-c", other], env=env, capture_output=True, text=True, timeout=60)
            seen[name] = done.returncode
        except subprocess.TimeoutExpired:
            seen[name] = "timeout"
seen["after"] = {k: v for k, v in os.environ.items() if k.startswith("RAY_AUTH") or k in sys.argv[1:]}
with running_ray(Machine(1, 0), Resources(), Path("ray.log")):  # as a confirmation does
    seen["again"] = ray.get(ray.remote(lambda: 7).remote())
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with the token that Ray shares among all clusters of a user, open to all as Ray leaves it."""
    path = Path(tempfile.mkdtemp(prefix="h-"))
    (path / ".ray").mkdir()
    (path / ".ray" / "auth_token").write_text(OLD_TOKEN)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def seen(home: Path) -> dict[str, Any]:
    """What a process saw that ran two sessions of Ray."""
    passwords = {name: f"secret-{name}" for name in FOR_THE_DRIVER}
    variables = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "RAY_TMPDIR": str(home),
        "RAY_AUTH_MODE": "disabled",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *passwords],
        cwd=home,
        env={**os.environ, **variables, **passwords},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"stderr": done.stderr}


def test_nothing_listens_beyond_this_machine(seen):
    beyond = {
        name: addresses
        for name, addresses in seen["listens"].items()
        if not {*addresses} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    }
    assert beyond == {}
    assert sum(map(len, seen["listens"].values())) >= 4
    assert seen["address"].startswith("127.0.0.1:")


def test_passwords_stay_in_the_driver_and_come_back_there(seen):
    assert set(FOR_THE_DRIVER) <= set(seen["after"])
    assert not set(FOR_THE_DRIVER) & set(seen["worker"])
    for name, variables in seen["environments"].items():
        assert not set(FOR_THE_DRIVER) & set(variables), name


def test_ray_asks_for_the_token_of_this_process_alone(seen, home):
    assert seen["token_mode"] == 0o600
    assert seen["token"] != OLD_TOKEN
    assert seen["right"] == 0
    assert seen["without"] != 0
    assert seen["wrong"] != 0
    assert (home / ".ray" / "auth_token").read_text() == OLD_TOKEN
    assert "RAY_AUTH_TOKEN_PATH" not in seen["after"]
    assert seen["after"]["RAY_AUTH_MODE"] == "disabled"
    assert seen["again"] == 7
    assert "RAY_AUTH_MODE is ignored" in seen["stderr"]
    assert list(home.glob("**/token-*")) == []


def test_folder_of_its_sessions_is_closed_to_others(seen, home):
    (folder,) = home.glob("fsdet-sweeps-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.glob("ray/session_*"))
    assert {path.name for path in home.iterdir()} <= {
        folder.name,
        ".ray",
        "ray.log",
        ".config",
        ".cache",
    }
