"""The files of docs/cluster, as far as they can be tried without a cloud, Kubernetes and Slurm."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from servers import free_port
from test_main_job import SWEEP
from two_nodes import HEAD, SECOND

from sweeps.run import load, parse
from sweeps.states import State
from sweeps.storage.lookup import find_folder
from sweeps.study.study import read_trials

REPOSITORY = Path(__file__).resolve().parents[3]
FILES = REPOSITORY / "docs" / "cluster"
SCRIPTS = sorted([*FILES.glob("*.sh"), *FILES.glob("*.sbatch")])


def commands(text: str) -> list[list[str]]:
    """The words behind `-m sweeps.run` of each command in a file, continued lines joined."""
    found = re.findall(r"-m sweeps\.run (.*)", text.replace("\\\n", " "))
    quoted = [line.count('"') % 2 == 1 for line in found]  # the whole command stood in quotes
    return [shlex.split(line[:-1] if q else line) for line, q in zip(found, quoted, strict=True)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_sound(script):
    subprocess.run(["bash", "-n", script], check=True)
    checker = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([checker, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["on_the_head.sh", "rayjob.yaml", "sweep.sbatch"])
def test_command_says_what_the_command_line_understands(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    (words,) = commands((FILES / name).read_text(encoding="utf-8"))
    words = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", word) for word in words if word not in ("$@", "&")]
    spec = load(parse(words))
    assert spec.storage.path is not None
    assert spec.name != "stage2_clip_dfl"


def test_cluster_yaml_is_one_by_ray_s_own_rules():
    config = yaml.safe_load((FILES / "ray-cluster.yaml").read_text(encoding="utf-8"))
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text(encoding="utf-8")))
    assert config["provider"]["type"] == "local"
    whole = prepare_config(config)
    validate_config(whole)
    nodes = whole["available_node_types"]["local.cluster.node"]
    assert nodes["max_workers"] == len(config["provider"]["worker_ips"])


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"]["containers"][0] for group in groups]


def test_rayjob_has_what_kuberay_requires():
    job = yaml.safe_load((FILES / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9-]+", job["metadata"]["name"])
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["groupName"]
    for container in containers(job):
        assert container["image"].startswith("registry.example/")
        assert container["resources"]["requests"] == container["resources"]["limits"]
    driver, worker = containers(job)
    assert driver["envFrom"] == [{"secretRef": {"name": "sweep"}}]
    known = {variable["name"] for variable in worker["env"]}
    assert not known & {"OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"}


def test_image_has_the_ray_of_the_lock_file():
    pinned = re.search(r"^ray==(.*)$", (REPOSITORY / "requirements.lock").read_text(), re.M)
    assert pinned is not None
    assert f'"ray[default]=={pinned[1]}"' in (FILES / "Dockerfile").read_text()


STUBS = {
    "scontrol": f"echo {HEAD}\necho {SECOND}\n",
    "hostname": 'echo "$NODE "\n',
    "srun": 'while [[ $1 == --* ]]; do case $1 in --nodelist=*) export NODE=${1#*=};; esac; shift; done\nexec "$@"\n',
}
"""What stands in for Slurm: two machines that are this one."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_slurm_script_runs_the_real_trainer_on_both_nodes(in_own_folder):
    """Slurm's commands are stubs; Ray, the trainer and the shipped checkpoint are real."""
    stubs = in_own_folder / "bin"
    stubs.mkdir()
    for name, text in STUBS.items():
        (stubs / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (stubs / name).chmod(0o755)
    text = SWEEP.replace("  far_corner: {fusion_lr_mult: 200.0}\n", "")
    (in_own_folder / "tiny.yaml").write_text(text)
    number = free_port() % 20000
    port = 20000 + number
    shared = in_own_folder / "shared"
    done = subprocess.run(
        ["bash", FILES / "sweep.sbatch"],
        cwd=in_own_folder,
        env={
            **os.environ,
            "PATH": f"{stubs}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "RAY": str(Path(sys.executable).with_name("ray")),
            "PYTHON": sys.executable,
            "SLURM_JOB_ID": str(number),
            "SLURM_JOB_NODELIST": "both",
            "SLURM_CPUS_PER_TASK": "1",
            "SWEEP": "tiny.yaml",
            "STORAGE": str(shared),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 at once" in done.stdout
    trials = read_trials(find_folder("slurm", str(shared)).study_file)
    assert [t.state for t in trials] == [State.COMPLETED] * 2
    left = [
        p for p in psutil.process_iter(["cmdline"]) if f"--port={port}" in (p.info["cmdline"] or [])
    ]
    assert left == []
    logs = [(in_own_folder / f"ray-{number}-{node}.log").read_text() for node in (HEAD, SECOND)]
    assert all("Ray runtime started" in log for log in logs)
