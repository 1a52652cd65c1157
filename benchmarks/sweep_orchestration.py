"""CPU time of the driver of a sweep for a trial that costs nothing.

Three drivers run the same trivial trials alternately, each in a fresh process:

- `raw`: Ray Tune, random search, every logger off;
- `ours`: `run_sweep` with its study on disk and MLflow in SQLite;
- `mlflow`: Ray Tune with OptunaSearch and MLflowLoggerCallback, in SQLite.

Measured is the CPU time of the driver process, all its threads, from the end of the first trials (Ray
starts its workers until then) to the last write of the tracker; beside it the wall time. Workers and
Ray's servers are other processes: `python -m benchmarks.sweep_orchestration FOLDER` runs one driver, whose job lies in
the folder, and writes its measurements there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fsdet.config import TrainConfig
from fsdet.report import Best, Report, Result

FIRST = 4
"""Trials that do not count."""
CPUS = 2
"""Of the machine that Ray is told of."""
Mark = tuple[float, float, float]
"""Driver's CPU seconds, wall seconds, resident bytes."""


@dataclass(frozen=True)
class Job:
    """What one driver runs."""

    kind: str
    """`raw`, `ours` or `mlflow`."""
    trials: int
    reports: int
    """Of a trial."""
    sampler: str = "random"
    at_once: int = CPUS
    """Trials that run at once, each with its share of the CPUs."""


def mark() -> Mark:
    return time.process_time(), time.monotonic(), float(psutil.Process().memory_info().rss)


def trivial(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,  # noqa: ARG001
    until: int | None = None,  # noqa: ARG001
) -> Result:
    """The trainer's entry point: one step an epoch, as good as `lr`."""
    assert on_report is not None
    for epoch in range(1, config.epochs + 1):
        metrics, last = {"val/nAP50": config.lr * epoch}, epoch == config.epochs
        on_report(
            Report(
                phase="final" if last else "running",
                step=epoch,
                epoch=epoch,
                metrics=metrics,
                best=Best(epoch, epoch, metrics),
                final=metrics if last else {},
                history={"step": np.array([float(epoch)]), "grad/norm": np.array([8.0])},
                peak_norm=8.0,
            )
        )
    return Result({}, config.epochs, None, None, config.checkpoint_dir)


def rays_trivial(reports: int, parameters: dict[str, Any]) -> None:
    """The same for a plain trainable."""
    from ray import tune

    for epoch in range(1, reports + 1):
        tune.report({"val/nAP50": parameters["lr"] * epoch, "epoch": epoch, "grad/norm": 8.0})


def run_ours(job: Job) -> list[Mark]:
    """A sweep; a mark behind every trial, the last one when all is written."""
    from rich.console import Console

    from sweeps.config import SweepSpec
    from sweeps.resources.machine import Machine
    from sweeps.session.display import PlainDisplay
    from sweeps.session.session import Session
    from sweeps.session.sweep import run_sweep
    from sweeps.storage.lookup import new_folder
    from sweeps.tracking import Tracker, tracking_uri
    from sweeps.trial.messages import TrialEnd

    spec = SweepSpec(
        name="trivial",
        space={"lr": {"low": 0.001, "high": 1, "log": True}, "dfl_weight": {"low": 0, "high": 1}},
        fixed={"epochs": job.reports, "n_episodes": 1},
        trials=job.trials,
        sampler={"name": job.sampler},
        scheduler={"name": "none"},
        resources={"cpus": CPUS / job.at_once, "max_concurrent": job.at_once},
    )
    marks = []

    class Marking(PlainDisplay):
        def on_end(self, end: TrialEnd) -> None:
            super().on_end(end)
            if len(marks) == job.trials - 1:
                tracker.flush(600)
            marks.append(mark())

    tracker = Tracker(tracking_uri(spec.tracking), "trivial")
    session = Session(new_folder("trivial"), Machine(CPUS, 0), tracker, trivial)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        run_sweep(spec, session, Marking(spec, Console(file=nowhere)))
    tracker.close()
    return marks


def run_ray(job: Job) -> list[Mark]:
    """Ray Tune as it is."""
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    from sweeps.config import Resources
    from sweeps.resources.machine import Machine
    from sweeps.resources.ray_runtime import running_ray

    marks = []

    class Marking(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, **_: Any) -> None:
            marks.append(mark())

        def __getstate__(self) -> dict[str, Any]:
            return {}

    log = job.kind == "mlflow"
    uri = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    logger = [MLflowLoggerCallback(tracking_uri=uri, experiment_name="trivial")] if log else []
    trial = tune.with_resources(partial(rays_trivial, job.reports), {"cpu": CPUS / job.at_once})
    with running_ray(Machine(CPUS, 0), Resources(), Path("ray.log").resolve()):
        tune.Tuner(
            trial,
            param_space={"lr": tune.loguniform(0.001, 1), "dfl_weight": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                metric="val/nAP50",
                mode="max",
                search_alg=OptunaSearch() if log else None,
                num_samples=job.trials,
                max_concurrent_trials=job.at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=str(Path.cwd()), verbose=0, callbacks=[*logger, Marking()]
            ),
        ).fit()
    return marks


def drive(folder: Path) -> None:
    """Be one driver; writes its marks."""
    os.chdir(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ |= {"RAY_worker_niceness": "0"}  # else other work on the machine stops the workers
    job = Job(**json.loads(Path("job.json").read_text(encoding="ascii")))
    marks = run_ours(job) if job.kind == "ours" else run_ray(job)
    Path("marks.json").write_text(json.dumps(marks), encoding="ascii")


def measure(job: Job) -> np.ndarray:
    """The marks of a driver in a process of its own, (trials, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.json").write_text(json.dumps(asdict(job)), encoding="ascii")
        command = [sys.executable, "-m", __name__, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{job.kind}: {done.stderr[-2000:]}")
        return np.array(json.loads((Path(folder) / "marks.json").read_text(encoding="ascii")))


def compare(rounds: int, trials: int, reports: int) -> None:
    """Print cost per trial of each kind, and its ratio to the raw one; kinds take turns."""
    kinds = ("raw", "ours", "mlflow")
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    wall: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            marks = measure(Job(kind, trials, reports, "tpe"))
            used = (marks[-1] - marks[FIRST - 1]) / (trials - FIRST)
            cpu[kind].append(used[0])
            wall[kind].append(used[1])
            print(
                f"  {kind:<7} CPU {1e3 * used[0]:7.1f} ms, wall {1e3 * used[1]:7.1f} ms", flush=True
            )
    print(f" medians of {rounds} rounds, {trials} trials of {reports} reports, {CPUS} at once")
    raw = statistics.median(cpu["raw"]), statistics.median(wall["raw"])
    for kind in kinds:
        used = statistics.median(cpu[kind]), statistics.median(wall[kind])
        print(
            f"  {kind:<7} CPU {1e3 * used[0]:7.1f} ms ({used[0] / raw[0]:.2f} x raw), "
            f"wall {1e3 * used[1]:7.1f} ms ({used[1] / raw[1]:.2f} x raw)"
        )


def flat(trials: int, reports: int, sampler: str) -> None:
    """Print cost per trial and memory at the beginning and at the end of one long sweep."""
    marks = measure(Job("ours", trials, reports, sampler))
    width = min(100, trials // 4)
    print(f" {sampler}, {trials} trials of {reports} reports")
    costs, memory = [], []
    for first in range(FIRST, trials - width + 1, max(width, (trials - width - FIRST) // 4)):
        used = (marks[first + width - 1] - marks[first - 1]) / width
        costs.append(used[0])
        memory.append((first + width, marks[first + width - 1][2]))
        print(
            f"  trials {first:5d}-{first + width:5d}: CPU {1e3 * used[0]:7.1f} ms, wall {1e3 * used[1]:7.1f} ms, "
            f"driver holds {memory[-1][1] / 1e6:6.0f} MB"
        )
    (begin, before), (end, after) = memory[0], memory[-1]
    print(
        f"  last / first: {costs[-1] / costs[0]:.2f}, {(after - before) / (end - begin) / 1e3:.1f} kB a trial"
    )


def saturate(at_once: int, reports: int) -> None:
    """Print how many reports a second one driver takes when trials that do nothing else report all the time.

    Measured is the time from the end of the trials that began first to that of the last that had company; for
    comparison with machines on which the trials do not share the driver's cores, the driver's CPU time a report, too.
    """
    print(f" {at_once} trials of {reports} reports at once")
    for kind in ("raw", "ours"):
        trials = 3 * at_once
        marks = measure(Job(kind, trials, reports, "random", at_once))
        used = (marks[-at_once] - marks[at_once - 1]) / (trials - 2 * at_once + 1) / reports
        print(
            f"  {kind:<7} {1 / used[1]:7.0f} reports/s, driver's CPU {1e3 * used[0]:5.2f} ms a report: at most "
            f"{1 / used[0]:5.0f} reports/s",
            flush=True,
        )


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
