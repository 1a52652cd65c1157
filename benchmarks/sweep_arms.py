"""Three ways to search one small space with the real trainer; every report of a trial is recorded.

- `ours`: `run_sweep` as a user would write it: TPE, ASHA, exploding trials end;
- `random`: random search, every trial to its end, exploded or not;
- `ray`: Ray Tune with its own OptunaSearch and an ASHAScheduler of the same rungs; its trainer
  does not detect explosions, so a trial continues after one until ASHA stops it.

No arm has baselines: settings found by hand would hide what a search finds. One trial runs at a time,
so that an arm depends on its seed alone, not on the machine's load. An interrupted arm starts
again; what its trials reported before is read from the file instead of being trained again.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fsdet.config import TrainConfig
from fsdet.report import Best, Explosion, Report, Result
from sweeps.config import Resources, SweepSpec
from sweeps.config.file import load_spec
from sweeps.resources.machine import Machine

ROOT = Path(__file__).resolve().parent.parent
METRIC = "val/nAP50"
EPOCHS = 4
CHEAP = {
    "resume": str(ROOT / "fsdet/checkpoints/stage1_openmoji.pt"),
    "image_size": 64,
    "n_way": 4,
    "n_episodes": 30,
    "epochs": EPOCHS,
    "eval_episodes": 24,
    "eval_draws": 1,
    "train_scenes": 1024,
    "num_workers": 0,
}
"""What makes a trial of stage2_clip_dfl.yaml cheap: some 11 s of one core, 120 steps, 4 evaluations."""
FULL_TRIALS, PRUNED_TRIALS = 12, 24
"""Trials without and with pruning; the latter are stopped half-way on average."""

Train = Callable[..., Result]


def cheap_spec(seed: int, trials: int, **changes: Any) -> SweepSpec:
    """The space of stage2_clip_dfl.yaml, with its exploding corner, over cheap trials."""
    spec, _ = load_spec(str(ROOT / "search_spaces/stage2_clip_dfl.yaml"), [])
    values = spec.model_dump(mode="json") | {
        "name": f"compute-{seed}",
        "baselines": {},
        "fixed": spec.fixed | CHEAP,
        "trials": trials,
        "sampler": {"name": "tpe", "seed": seed},
        "resources": {"cpus": 1, "max_concurrent": 1},
    }
    return SweepSpec(**(values | changes))


def key_of(parameters: dict[str, Any]) -> str:
    """Names a configuration."""
    return hashlib.sha1(
        json.dumps(parameters, sort_keys=True).encode(), usedforsecurity=False
    ).hexdigest()[:12]


def append(file: Path, line: dict[str, Any]) -> None:
    """One line in one write, so that two processes may append."""
    with file.open("a", encoding="utf-8", buffering=1) as out:
        out.write(json.dumps(line) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    """All lines; one that was cut off is left out."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


@dataclass(frozen=True)
class Recorded:
    """The trainer, which appends every report to `file` and takes what stands there as done."""

    file: Path
    arm: str
    seed: int
    searched: tuple[str, ...]

    def __call__(
        self,
        config: TrainConfig,
        on_report: Callable[[Report], None] | None = None,
        resume: Path | None = None,
    ) -> Result:
        assert on_report is not None
        parameters = {key: getattr(config, key) for key in self.searched}
        tags = {"arm": self.arm, "seed": self.seed, "key": key_of(parameters)}
        known = [line for line in read(self.file) if tags.items() <= line.items()]
        for line in known:
            on_report(report_of(line))
        last = known[-1] if known else {"epoch": 0, "step": 0, "phase": "running"}
        if last["phase"] != "running":
            return Result({}, last["step"], None, None, config.checkpoint_dir)

        def listen(report: Report) -> None:
            if report.epoch <= last["epoch"] and report.phase == "running":
                return
            append(self.file, {**tags, **line_of(report), "parameters": parameters})
            on_report(report)

        from fsdet.train import train

        return train(config, listen, None if known else resume)


def line_of(report: Report) -> dict[str, Any]:
    """What is kept of a report."""
    found = report.explosion
    return {
        "epoch": report.epoch,
        "step": report.step,
        "phase": report.phase,
        "value": report.metrics.get(METRIC),
        "best": None if report.best is None else asdict(report.best),
        "final": report.final,
        "exploded": None if found is None else [found.reason, found.step, found.module],
        "peak_norm": report.peak_norm,
        "violation": report.violation,
    }


def report_of(line: dict[str, Any]) -> Report:
    """The report again, without its history."""
    found = line["exploded"]
    return Report(
        phase=line["phase"],
        step=line["step"],
        epoch=line["epoch"],
        metrics={} if line["value"] is None else {METRIC: line["value"]},
        best=None if line["best"] is None else Best(**line["best"]),
        final=line["final"],
        history={"step": np.array([float(line["step"])])},
        explosion=None if found is None else Explosion(*found, detail=""),
        peak_norm=line["peak_norm"],
        violation=line["violation"],
    )


def ours(file: Path, seed: int, arm: str = "ours", **changes: Any) -> None:
    """A sweep of ours, MLflow included."""
    from rich.console import Console

    from sweeps.session.display import Display
    from sweeps.session.session import Session
    from sweeps.session.sweep import run_sweep
    from sweeps.storage.folder import new_folder
    from sweeps.tracking import Tracker, tracking_uri

    spec = cheap_spec(seed, PRUNED_TRIALS, **changes)
    tracker = Tracker(tracking_uri(spec.tracking), "compute")
    display = Display(spec, Console(file=io.StringIO()))
    train = Recorded(file, arm, seed, tuple(spec.space))
    try:
        folder = new_folder(f"{arm}-{seed}", numbered=True)
        done = run_sweep(spec, Session(folder, Machine(1, 0), tracker, train), display)
    finally:
        tracker.close()
    if done.stop is not None:
        raise SystemExit(f"{arm} at seed {seed} was cut off: {done.stop.text}")


def unstopped(spec: SweepSpec, parameters: dict[str, Any], folder: str, **more: Any) -> TrainConfig:
    """The configuration of a plain trainer, which goes on after an explosion."""
    values = spec.config(parameters, Path(folder)).model_dump()
    return TrainConfig(**{**values, "stop_on_explosion": False, **more})


def plain_random(file: Path, seed: int) -> None:
    """Random search, one trial after another."""
    spec = cheap_spec(seed, FULL_TRIALS)
    train = Recorded(file, "random", seed, tuple(spec.space))
    chance = random.Random(seed)
    for _ in range(FULL_TRIALS):
        parameters = {
            key: float(np.exp(chance.uniform(np.log(p.low or 0), np.log(p.high or 0))))
            for key, p in spec.space.items()
        }
        with tempfile.TemporaryDirectory() as folder:
            train(unstopped(spec, parameters, folder), lambda _: None)


def rays_own(file: Path, seed: int) -> None:
    """Ray Tune with the parts that it ships."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    from sweeps.resources.ray_runtime import running_ray

    spec = cheap_spec(seed, PRUNED_TRIALS)
    space = {key: tune.loguniform(p.low, p.high) for key, p in spec.space.items()}
    train = Recorded(file, "ray", seed, tuple(spec.space))
    with tempfile.TemporaryDirectory() as folder:
        trial = tune.with_resources(partial(rays_trial, spec, train), {"cpu": 1})
        with running_ray(Machine(1, 0), Resources(), Path(folder) / "ray.log"):
            tune.Tuner(
                trial,
                param_space=space,
                tune_config=tune.TuneConfig(
                    metric=METRIC,
                    mode="max",
                    search_alg=OptunaSearch(seed=seed),
                    scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=2),
                    num_samples=PRUNED_TRIALS,
                    max_concurrent_trials=1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            ).fit()


def rays_trial(spec: SweepSpec, train: Recorded, parameters: dict[str, Any]) -> None:
    """A trainable that reports once an epoch and never raises."""
    from ray import tune

    def report(found: Report) -> None:
        tune.report({METRIC: found.metrics.get(METRIC, 0.0)})

    with tempfile.TemporaryDirectory() as folder:
        train(unstopped(spec, parameters, folder), report)


ARMS: dict[str, Callable[[Path, int], None]] = {
    "ours": ours,
    "random": plain_random,
    "ray": rays_own,
}
