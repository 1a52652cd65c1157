"""Compares search methods on recorded learning curves, in simulated time.

    python benchmarks/search_methods.py                          # the tables of the detector
    python benchmarks/search_methods.py --taskset FOLDER         # TaskSet's curves too
    python benchmarks/search_methods.py --real FILE --seeds 5    # real trainings; FILE collects them, it can go on
    python benchmarks/search_methods.py --gate                   # what early epochs say about the end

Each method sees one problem at many seeds. `reference` is Ray Tune's OptunaSearch with its ASHAScheduler, `null` the
same with other seeds: its ratio must be 1 within its interval. Targets are fixed beforehand: the quality that the best
5, 2 and 1 % of a table reach. `--fitted` searches Gaussian processes fitted to the tables instead of the nearest rows.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
import zlib
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402
import optuna  # noqa: E402

from benchmarks.simulation.arms import ARMS  # noqa: E402
from benchmarks.simulation.clock import Run, simulate  # noqa: E402
from benchmarks.simulation.figures import (  # noqa: E402
    exploded,
    mean_interval,
    ratio,
    reached,
    regret,
    to_target,
)
from benchmarks.simulation.tables import (  # noqa: E402
    EPOCHS,
    Known,
    Nearest,
    Surrogate,
    load_recorded,
    load_taskset,
    quality_of,
)

TABLES = ROOT / "benchmarks" / "table"
SHARES = (0.05, 0.02, 0.01)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tables", nargs="*", default=["main", "report"])
    parser.add_argument("--taskset", type=Path, metavar="FOLDER", help="with .npz files")
    parser.add_argument("--arms", nargs="+", default=["null", "random", "tpe", "stopping", "ours"])
    parser.add_argument("--budgets", nargs="+", type=float, default=[8, 14, 24])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", nargs="+", type=int, default=[1])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--fitted", action="store_true")
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--real", type=Path, metavar="FILE")
    options = parser.parse_args()
    tables = load(options.tables, options.taskset)
    if options.gate:
        for table in tables:
            print_gate(table)
        return
    if options.real is not None:
        for budget in options.budgets:
            real(options.real, tables[0], options.arms, budget, options.seeds, options.processes)
        return
    problems: list[Known] = [Surrogate(t) for t in tables] if options.fitted else list(tables)
    for budget in options.budgets:
        for workers in options.workers:
            compare(problems, options.arms, budget, workers, options.seeds, options.processes)


def load(names: list[str], taskset: Path | None) -> list[Nearest]:
    """The recorded tables that exist, and TaskSet's."""
    paths = [TABLES / f"{name}.jsonl" for name in names]
    found = [load_recorded(path) for path in paths if path.is_file()]
    return (
        found + [load_taskset(path) for path in sorted(taskset.glob("*.npz"))] if taskset else found
    )


def sweep(job: tuple[str, Known, int, float, int]) -> Run:
    """One simulated sweep, in a process of the pool."""
    arm, problem, seed, budget, workers = job
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return simulate(ARMS[arm](problem, seed, budget), problem, budget, workers)


def compare(
    problems: list[Known],
    arms: list[str],
    budget: float,
    workers: int,
    seeds: int,
    processes: int,
) -> None:
    """Run all methods and print a line for each."""
    names = list(dict.fromkeys(["reference", *arms]))
    runs: dict[str, list[list[Run]]] = {}
    with get_context("spawn").Pool(processes) as pool:
        for name in names:
            jobs = [
                (name, p, seed_of(p, seed), budget, workers)
                for p in problems
                for seed in range(seeds)
            ]
            found = pool.map(sweep, jobs, chunksize=4)
            runs[name] = [found[i * seeds : (i + 1) * seeds] for i in range(len(problems))]
    print(
        f"\nbudget {budget:g} trainings, {workers} workers, {seeds} seeds, {len(problems)} problems: "
        "compute relative to reference, share of sweeps that reach the target"
    )
    for name in names:
        print(line(name, runs, problems, budget), flush=True)


def real(
    file: Path, table: Nearest, arms: list[str], budget: float, seeds: int, processes: int
) -> None:
    """Run what `file` does not hold of real sweeps, and compare them at the targets of `table`."""
    names = list(dict.fromkeys(["reference", *arms]))
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    known = {(x["arm"], x["seed"], x["budget"]): x["run"] for x in map(json.loads, lines)}
    jobs = [(arm, seed, budget) for seed in range(seeds) for arm in names]
    left = [job for job in jobs if job not in known]
    with get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        for job, run in pool.imap_unordered(real_sweep, left):
            known[job] = run
            arm, seed, _ = job
            entry = {"arm": arm, "seed": seed, "budget": budget, "run": run}
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(entry) + "\n")
            print(f"{arm}, seed {seed}: {run['quality']} after {run['compute']}", flush=True)
    runs = {arm: [[Run(**known[arm, s, budget]) for s in range(seeds)]] for arm in names}
    print(f"real trainings, budget {budget:g}, {seeds} seeds; targets of {table.name}")
    for arm in names:
        print(line(arm, runs, [table], budget), flush=True)


def real_sweep(job: tuple[str, int, float]) -> tuple[tuple[str, int, float], dict[str, Any]]:
    """One sweep of real trainings."""
    from benchmarks.simulation.live import Live

    arm, seed, budget = job
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    problem = Live()
    run = simulate(ARMS[arm](problem, seed, budget), problem, budget)
    found = {key: getattr(run, key) for key in ("compute", "time", "quality", "total", "exploded")}
    return job, json.loads(json.dumps(found, default=float))


def line(name: str, runs: dict[str, list[list[Run]]], problems: list[Known], budget: float) -> str:
    """The figures of one method."""
    cells = [f"{name:12}"]
    for share in SHARES:
        targets = [quality_of(problem, share) for problem in problems]
        mine, other = (
            [to_target(r, t) for r, t in zip(runs[arm], targets, strict=True)]
            for arm in (name, "reference")
        )
        cells.append(f"{100 * share:g} %: {ratio(mine, other)}, {100 * reached(mine):.0f} %")
    left = np.concatenate([regret(r, p, budget) for r, p in zip(runs[name], problems, strict=True)])
    lost = np.mean([exploded(r) for r in runs[name]])
    cells.append(f"better than the incumbent {mean_interval(left)}, exploded {100 * lost:.1f} %")
    return " | ".join(cells)


def seed_of(problem: Known, seed: int) -> int:
    """Other seeds for each problem: with the same ones, methods would be lucky on all at once."""
    return zlib.crc32(problem.name.encode()) % 1000 * 1000 + seed


def print_gate(table: Nearest) -> None:
    """Rank correlation of each epoch with the last, and where the best tenth is then."""
    from scipy.stats import spearmanr

    end, healthy = table.every[:, -1], ~np.isfinite(table.explodes)
    best = np.argsort(-end)[: len(end) // 10]
    print(f"{table.name}: {len(end)} rows, {(~healthy).sum()} exploded")
    for episodes, values in (("all", table.every), ("few", table.few)):
        for epoch in (e for e in (1, 2, 4, 8, EPOCHS) if np.isfinite(values[healthy, e - 1]).all()):
            at = values[:, epoch - 1]
            seen = np.argsort(-np.where(healthy, at, -np.inf))[: len(end) // 3]
            rank = spearmanr(at[healthy], end[healthy]).statistic
            print(
                f"  epoch {epoch:2} of {EPOCHS}, {episodes} episodes: Spearman {rank:.2f}, "
                f"{np.isin(best, seen).sum()} of the best {len(best)} are in the best third"
            )


if __name__ == "__main__":
    main()
