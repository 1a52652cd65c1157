"""Records learning curves of the real trainer for a table on which search methods are compared.

    python benchmarks/record_table.py main --processes 2      # can be stopped and started again
    python benchmarks/record_table.py main --check 5          # run five rows again, compare to the last digit

The configurations are scrambled Sobol points of the space of `benchmarks/table/space.yaml`, drawn beforehand, and its
baselines. Every run is a short one (64 px, 128 steps) and goes to its end, past an explosion too. Each row of
`benchmarks/table/NAME.jsonl` holds one run: AP50 on the validation classes at 1/16, 1/8, 1/4, 1/2 and 1 of its steps,
over few and over all episodes, the validation loss at fixed weights, AP50 on the test classes at the end, the verdict,
and the CPU seconds of steps and evaluations. The first line says how the table was made.
`--check` holds at the commit that it names: since then the rounding of the loss has changed, which 128 steps amplify.

Table `main` is for developing methods. Table `report` has other seeds, and test classes in the place of validation
classes: figures are reported on it alone.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).parent / "table"
SPACE = FOLDER / "space.yaml"
STEPS = 128
RUNGS = (8, 16, 32, 64, 128)
FEW, ALL = 8, 40
"""Episodes of a cheap and of a full evaluation; the few are the first of all."""
SHORT = {
    "image_size": 64,
    "support_size": 32,
    "n_episodes": STEPS,
    "epochs": 1,
    "stop_on_explosion": False,
    "threads": 1,
    "num_workers": 0,
    "device": "cpu",
}


@dataclass(frozen=True)
class Plan:
    """Which runs a table holds."""

    configurations: int
    """Sobol points, besides the baselines."""
    sobol_seed: int
    first_seed: int
    """Seed of every configuration's first run; further runs count up from it."""
    repeated: int
    """Configurations, from the first on, that are run at three seeds."""
    best: int
    """Best configurations that are run at ten seeds, as are the baselines."""
    split: str
    """Classes that the search would see."""
    other_split: str
    """Classes that are measured at the end only."""


PLANS = {
    "main": Plan(640, 0, 0, 60, 10, "val", "test"),
    "report": Plan(256, 1, 100, 20, 10, "test", "val"),
}


@cache
def configurations(plan: Plan) -> list[dict[str, float]]:
    """Parameters of every configuration: the baselines first, then the Sobol points."""
    import numpy as np
    from scipy.stats import qmc

    from sweeps.config.file import load_spec

    spec, _ = load_spec(str(SPACE))
    keys = list(spec.space)
    low, high = (np.log([getattr(spec.space[key], end) for key in keys]) for end in ("low", "high"))
    points = qmc.Sobol(len(keys), seed=plan.sobol_seed).random_base2(10)[: plan.configurations]
    values = np.exp(low + points * (high - low))
    sobol = [dict(zip(keys, (float(f"{v:.5g}") for v in row), strict=True)) for row in values]
    return [*spec.baseline_parameters().values(), *sobol]


def runs(plan: Plan, rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """(configuration, seed) of every run that is known to belong to the table, in the order of recording."""
    baselines, count = 2, 2 + plan.configurations
    first = [(number, plan.first_seed) for number in range(count)]
    repeated = [
        (number, plan.first_seed + more)
        for more in (1, 2)
        for number in range(baselines + plan.repeated)
    ]
    done = {(row["configuration"], row["seed"]) for row in rows}
    if not done >= set(first):
        return first
    ends = {r["configuration"]: r["curve"][-1]["all"] for r in rows if r["seed"] == plan.first_seed}
    ranked = sorted(ends, key=lambda number: (-ends[number], number))
    best = [number for number in ranked if number >= baselines][: plan.best]
    often = [
        (n, plan.first_seed + more) for more in range(1, 10) for n in (*range(baselines), *best)
    ]
    return list(dict.fromkeys([*first, *repeated, *often]))


def run(plan: Plan, number: int, seed: int) -> dict[str, Any]:
    """Train one configuration to its end; returns its row."""
    from fsdet.training.trainer import training_step

    state = begin(plan, configurations(plan)[number], seed)
    curve, explosion = [], None
    seconds = {"steps": 0.0, "evaluations": 0.0}
    for step in range(1, STEPS + 1):
        began = time.process_time()
        _, found = training_step(state)
        explosion = explosion or found
        seconds["steps"] += time.process_time() - began
        if step in RUNGS:
            began = time.process_time()
            few, every = average_precision(state, plan.split)
            curve.append(
                {"step": step, "few": few, "all": every, "loss": validation_loss(state, plan.split)}
            )
            seconds["evaluations"] += time.process_time() - began
    return {
        "configuration": number,
        "seed": seed,
        "curve": curve,
        "other": average_precision(state, plan.other_split)[1],
        "explosion": None
        if explosion is None
        else {"reason": explosion.reason, "step": explosion.step, "module": explosion.module},
        "violation": rounded(state.stability.violation),
        "seconds": {key: round(value, 2) for key, value in seconds.items()},
    }


def begin(plan: Plan, parameters: dict[str, float], seed: int) -> Any:
    """The state of a run before its first step."""
    import torch

    from fsdet.data.sources import load_image_set
    from fsdet.training.build import build_state
    from fsdet.training.step import measure_reference
    from sweeps.config.file import load_spec

    torch.set_num_threads(1)
    spec, _ = load_spec(str(SPACE))
    config = spec.config(parameters).model_copy(
        update={**SHORT, "seed": seed, "novel_split": plan.split}
    )
    state = build_state(config, load_image_set(config, "train"), None)
    measure_reference(state)
    return state


def average_precision(state: Any, split: str, episodes: int = ALL) -> tuple[float, float]:
    """AP50 over the first `FEW` and over all `episodes`; without the swap control, which costs as much again."""
    import numpy as np
    import torch

    from fsdet.data.episodes import EVAL_SEED, EpisodeSource
    from fsdet.data.sources import load_image_set
    from fsdet.evaluation.average_precision import collect, score_episode
    from fsdet.evaluation.metrics import evaluation_mode
    from fsdet.models.postprocess import detect
    from fsdet.models.support_features import SupportFeatures

    detector, scores = state.eval_detector, []
    image_set = load_image_set(state.config, split)
    source = EpisodeSource(image_set, state.config, EVAL_SEED, augment=False)
    with torch.no_grad(), evaluation_mode(detector):
        features = SupportFeatures(detector, image_set, state.device)
        for number in range(episodes):
            episode = source.batch(number, 1)
            encoded = detector.encode(episode.images)
            found = detect(detector.search(encoded, features.embed(episode.support_ids)))
            scores.append(score_episode(episode.targets, found, episode.classes[0].tolist()))
    values = collect(scores).episodes["AP50"]
    return rounded(float(np.mean(values[:FEW]))), rounded(float(np.mean(values)))


def validation_loss(state: Any, split: str) -> float | None:
    """Mean loss of the first `FEW` episodes, with every term at the trainer's default weight; None if not finite."""
    import torch

    from fsdet.config import TrainConfig
    from fsdet.data.episodes import EVAL_SEED, EpisodeSource
    from fsdet.data.sources import load_image_set
    from fsdet.evaluation.metrics import evaluation_mode

    weights = TrainConfig()
    image_set = load_image_set(state.config, split)
    source = EpisodeSource(image_set, state.config, EVAL_SEED, augment=False)
    totals = []
    with torch.no_grad(), evaluation_mode(state.detector):
        for episode in range(FEW):
            batch = source.batch(episode, 1)
            output = state.detector.search(
                state.detector.encode(batch.images), state.detector.embed_supports(batch.supports)
            )
            raw = state.criterion.episode(output, batch).raw
            terms = [
                getattr(weights, f"{term}_weight") * value.item() for term, value in raw.items()
            ]
            totals.append(sum(terms))
    mean = sum(totals) / len(totals)
    return rounded(mean) if math.isfinite(mean) else None


def rounded(value: float) -> float:
    """Six significant digits: the table stays small."""
    return float(f"{value:.6g}")


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and rows; a line that was cut off is left out."""
    if not path.is_file():
        return {}, []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return (lines[0], lines[1:]) if lines else ({}, [])


def header(name: str) -> dict[str, Any]:
    """How the table is made."""
    from importlib.metadata import version

    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    packages = ("torch", "numpy", "ultralytics", "timm", "faster-coco-eval")
    return {
        "table": name,
        "plan": vars(PLANS[name]),
        "settings": SHORT,
        "episodes": [FEW, ALL],
        "commit": commit,
        "versions": {package: version(package) for package in packages},
        "threads": 1,
        "configurations": configurations(PLANS[name]),
    }


def work(job: tuple[str, int, int]) -> dict[str, Any]:
    """One run, in a process of the pool."""
    name, number, seed = job
    return run(PLANS[name], number, seed)


def record(name: str, processes: int) -> None:
    """Append every run that is missing."""
    from fsdet.files import write_text_atomic

    path = FOLDER / f"{name}.jsonl"
    FOLDER.mkdir(exist_ok=True)
    known, rows = read(path)
    text = [known or header(name), *rows]
    write_text_atomic(path, "".join(json.dumps(line) + "\n" for line in text))
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        while left := list(missing(name, rows)):
            for row in pool.imap_unordered(work, left):
                rows.append(row)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{len(rows)} runs, {len(left)} in this pass: {row}"[:150], flush=True)


def missing(name: str, rows: list[dict[str, Any]]) -> Iterator[tuple[str, int, int]]:
    """The runs that are not recorded."""
    done = {(row["configuration"], row["seed"]) for row in rows}
    yield from ((name, *pair) for pair in runs(PLANS[name], rows) if pair not in done)


def check(name: str, count: int) -> bool:
    """Run `count` rows again, spread over the table; whether all but their seconds are equal."""
    _, rows = read(FOLDER / f"{name}.jsonl")
    equal = []
    for row in rows[:: max(1, len(rows) // count)][:count]:
        again = run(PLANS[name], row["configuration"], row["seed"])
        same = {**again, "seconds": None} == {**row, "seconds": None}
        print(
            f"configuration {row['configuration']}, seed {row['seed']}: {'equal' if same else 'DIFFERS'}"
        )
        equal.append(same)
    return all(equal)


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("table", choices=PLANS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--check", type=int, metavar="ROWS")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.check is not None:
        return 0 if check(options.table, options.check) else 1
    record(options.table, options.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
