"""Measures the spread of the values that tests compare with thresholds: `python benchmarks/spread.py`.

Trains everything that a test compares with a threshold, over several seeds and in several variants of the
arithmetic: vector instructions of oneDNN and ATen (SSE4.1, AVX2, all of the processor's), one thread and two, double
precision. Prints the limit of each value, and its minimum and maximum in each variant. A limit should be in the middle
of the gap; if rounding alone moves a value across it, the rule is wrong.

    python benchmarks/spread.py --only clamped --seeds 5 --ways sse41 native

Everything takes about an hour on one core; `--seeds 1 --ways sse41 avx2 native` a quarter of it. Each variant runs in
a process of its own, since the libraries choose their instructions when they are loaded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WAYS: dict[str, dict[str, str]] = {
    "sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "native": {},
    "threads2": {},
    "float64": {},
}
"""Name -> environment of a way of adding."""
Figures = dict[str, float]
"""Name with its limit -> value; inf for a verdict that did not come."""


def trainings(threads: int) -> Iterator[tuple[str, Callable[[int, Path], Figures]]]:
    """Name -> what trains with a seed, into a folder, and measures."""
    import stability
    import trainings as t

    for case in t.DFL_CASES:
        yield f"dfl: {case.name}", lambda seed, folder, case=case: dfl(case, seed, folder, threads)
    for case in (*stability.HEALTHY, *stability.FAULTY):
        yield f"explosion: {case.name}", lambda seed, _, case=case: explosion(case, seed, threads)
    yield "overfit", lambda seed, _: overfit(seed, threads)
    yield "main job", lambda seed, folder: main_job(seed, folder, threads)


def dfl(case: Any, seed: int, folder: Path, threads: int) -> Figures:
    from trainings import train_dfl

    from fsdet.health.checklist import load_evaluations, load_steps
    from fsdet.health.dfl import equal_share, headroom

    report = train_dfl(case, folder, seed=seed, threads=threads)
    values = np.array([row["train/loss/dfl"] for row in load_steps(folder)])
    return {
        "share held": equal_share(later := values[len(values) // 2 :]),
        "headroom": headroom(later),
        "DFL / uniform": float(np.median(values[-len(values) // 5 :])) / math.log(16),
        "AP50 of objects": max(row.get("val/object_AP50", 0) for row in load_evaluations(folder)),
        "fails (0 or 1)": float(report.check("dfl_falls").status == "fail"),
    }


def explosion(case: Any, seed: int, threads: int) -> Figures:
    import stability

    settings = {"train_scenes": 256, "threads": threads}
    found, norms = stability.run_case(case, stability.FIRST_SEED + seed, **settings)
    if case.rule is None:
        pairs = zip(norms, norms[1:], norms[2:], strict=False)
        sustained = max(min(three) for three in pairs) / statistics.median(norms)
        return {
            "3 norms in a row / median": sustained,
            "explodes (0 or 1)": float(found is not None),
        }
    right = found is not None and found.reason == case.rule
    return {
        f"steps to the verdict (of {case.steps - case.at})": found.step - case.at
        if right
        else math.inf
    }


def overfit(seed: int, threads: int) -> Figures:
    import trainings as t

    before, after = t.overfit(seed, threads=threads)
    return {"AP50 after": after, "AP50 gained": after - before}


def main_job(seed: int, folder: Path, threads: int) -> Figures:
    import trainings as t

    from fsdet.config import TrainConfig
    from fsdet.train import train

    settings = t.MAIN_JOB | {"resume": t.SHIPPED, "fusion_lr_mult": 2.0, "device": "cpu"}
    result = train(
        TrainConfig(**{**settings, "seed": seed, "threads": threads, "checkpoint_dir": folder})
    )
    return {name: result.metrics[f"val/{name}"] for name in ("swap_gap", "nAP50")}


def use_double() -> None:
    """Everything that the trainer has in single precision becomes double."""
    import torch

    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.float32 = torch.float64  # type: ignore[misc]


def work(options: argparse.Namespace) -> None:
    """One way: a line of JSON for every training."""
    import torch

    from fsdet.data import openmoji

    torch.set_num_threads(threads := 2 if options.work == "threads2" else 1)
    openmoji.EVAL_SCENES, openmoji.SUPPORT_VARIANTS = 32, 3  # as the tests have it
    if options.work == "float64":
        use_double()
    for name, measure in trainings(threads):
        wanted = any(part in name for part in options.only)
        for seed in range(options.first, options.first + options.seeds) if wanted else ():
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(seed, Path(folder) / "run")
            print(json.dumps([name, seed, figures]), file=sys.__stdout__, flush=True)


def measured(way: str, options: argparse.Namespace) -> Iterator[tuple[str, int, Figures]]:
    """What a process that adds in this way measures, one training after another."""
    command = [
        sys.executable,
        __file__,
        "--work",
        way,
        "--seeds",
        str(options.seeds),
        "--first",
        str(options.first),
        "--only",
        *options.only,
    ]
    threads = "2" if way == "threads2" else "1"
    environment = {**os.environ, "OMP_NUM_THREADS": threads, **WAYS[way]}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('["'):
                yield tuple(json.loads(line))
    if process.returncode:
        print(f"{way}: ended with {process.returncode}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="trainings whose name contains one of these"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--work", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="spread-") as cache:
        os.environ["FSDET_CACHE"] = cache
        for way in options.ways:
            for name, seed, figures in measured(way, options):
                print(f"{way:9} seed {seed}  {name:45} {figures}", file=sys.stderr, flush=True)
                for figure, value in figures.items():
                    values[name, figure][way].append(value)
    print(f"{'training':45} {'figure':34}" + "".join(f"{way:>17}" for way in options.ways))
    for (name, figure), of_ways in values.items():
        shown = (
            f"{min(v):.3g} … {max(v):.3g}" if (v := of_ways[way]) else "" for way in options.ways
        )
        print(f"{name:45} {figure:34}" + "".join(f"{text:>17}" for text in shown))


if __name__ == "__main__":
    main()
