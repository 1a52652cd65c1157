"""Compute that a search needs to reach the same AP, confirmed with fresh seeds on the test split.

See `benchmarks.sweep_arms` for the three arms. Compute is counted in optimiser steps, with an evaluation
converted to steps by its duration, so that other work on the machine does not matter. After every trial the
arm's incumbent is confirmed: trained again at fresh seeds and scored on classes that neither trained nor
selected. Two arms are compared at the AP that *both* have reached or that the other arm ended with.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sweep_arms import ARMS, CHEAP, EPOCHS, append, cheap_spec, read, unstopped

EVALUATION, LAST_EVALUATION = 9, 18
"""Steps that an evaluation takes as long as; the last one of a run scores base classes too. Measured."""
CONFIRM_SEEDS = (1001, 1002)
CONFIRM_EPISODES = 40


@dataclass
class Ran:
    """One trial of an arm."""

    key: str
    parameters: dict[str, Any]
    best: float = -1.0
    last: float = -1.0
    steps: int = 0
    compute: float = 0.0
    finished: bool = False
    exploded: bool = False


@dataclass(frozen=True)
class Curve:
    """An arm at one seed: behind every trial, what was spent and how good the incumbent is."""

    spent: list[float]
    incumbents: list[Ran]
    trials: list[Ran]

    @property
    def wasted(self) -> float:
        """Part of all steps that exploded trials took."""
        return sum(t.steps for t in self.trials if t.exploded) / sum(t.steps for t in self.trials)


def trials_of(lines: Sequence[dict[str, Any]], arm: str, seed: int) -> list[Ran]:
    """The trials of an arm in their order."""
    found: dict[str, Ran] = {}
    for line in lines:
        if line.get("arm") != arm or line.get("seed") != seed or "epoch" not in line:
            continue
        trial = found.setdefault(line["key"], Ran(line["key"], line["parameters"]))
        trial.compute += line["step"] - trial.steps
        trial.steps = line["step"]
        trial.exploded = trial.exploded or line["exploded"] is not None
        trial.finished = line["phase"] == "final"
        if line["phase"] != "exploded":
            trial.compute += LAST_EVALUATION if trial.finished else EVALUATION
            trial.last = line["value"] or 0.0
            trial.best = max(trial.best, trial.last)
    return list(found.values())


def curve_of(lines: Sequence[dict[str, Any]], arm: str, seed: int) -> Curve:
    """Incumbents as each arm's own software names them: ours the best value of a completed trial, Ray
    and a plain loop the best last value."""
    own = arm not in ("random", "ray")
    spent, incumbents, total = [], [], 0.0
    best: Ran | None = None
    trials = trials_of(lines, arm, seed)
    for trial in trials:
        total += trial.compute
        value = (trial.best if trial.finished else -1.0) if own else trial.last
        if value > (-1.0 if best is None else best.best if own else best.last):
            best = trial
        if best is not None:
            spent.append(total)
            incumbents.append(best)
    return Curve(spent, incumbents, trials)


def confirm(file: Path, trial: Ran, number: int) -> None:
    """Train a configuration at fresh seeds and score it on the test split; once for each."""
    from fsdet.train import train

    spec = cheap_spec(0, 1)
    for seed in CONFIRM_SEEDS:
        if any(x.get("confirm") == trial.key and x["at"] == seed for x in read(file)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = train(
                unstopped(spec, trial.parameters, folder, seed=seed, novel_split="test",
                          eval_interval=EPOCHS, save_interval=EPOCHS, eval_episodes=CONFIRM_EPISODES)
            )  # fmt: skip
        value = result.metrics.get("test/nAP50", 0.0)
        append(file, {"confirm": trial.key, "at": seed, "value": value})
        print(f"  incumbent {number} ({trial.key}) at seed {seed}: {value:.4f}", flush=True)


def run(file: Path, arms: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what is left of the arms, and confirm."""
    folder = file.parent.resolve()
    os.chdir(folder)  # sweeps of ours keep their files here
    os.environ |= {"RAY_worker_niceness": "0"}  # all arms with the same right to the processor
    for seed in seeds:
        for arm in arms:
            done = {"done": [arm, seed]}
            if done not in read(file):
                ARMS[arm](file, seed)
                append(file, done)
            curve = curve_of(read(file), arm, seed)
            print(
                f"{arm} seed {seed}: {len(curve.trials)} trials, compute {curve.spent[-1]:.0f} steps, "
                f"{100 * curve.wasted:.1f} % of the steps in exploded trials",
                flush=True,
            )
            for number, trial in enumerate({t.key: t for t in curve.incumbents}.values()):
                confirm(file, trial, number)


def confirmed(lines: Sequence[dict[str, Any]], curve: Curve) -> list[float]:
    """Mean AP50 on the test split of the incumbent behind each trial."""
    values: dict[str, dict[int, float]] = {}
    for line in lines:
        if "confirm" in line:
            values.setdefault(line["confirm"], {})[line["at"]] = line["value"]
    return [statistics.fmean(values[t.key].values()) for t in curve.incumbents]


def spent_until(curve: Curve, values: Sequence[float], target: float) -> float:
    """Compute at which the confirmed AP first is `target`; infinite if it never is."""
    return next((c for c, v in zip(curve.spent, values, strict=True) if v >= target), math.inf)


def median_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95 % bootstrap interval over seeds."""
    chance = np.random.default_rng(0)
    drawn = chance.choice(np.array(ratios), (10_000, len(ratios)))
    medians = np.sort(np.sort(drawn, axis=1)[:, len(ratios) // 2])  # exact with infinities
    return statistics.median(ratios), float(medians[250]), float(medians[9750])


def compare(lines: Sequence[dict[str, Any]], mine: str, other: str, seeds: Sequence[int]) -> None:
    """Print, seed by seed, what `mine` spent to reach what `other` ended with, and the ratio."""
    ratios = []
    for seed in seeds:
        a, b = curve_of(lines, mine, seed), curve_of(lines, other, seed)
        at_a, at_b = confirmed(lines, a), confirmed(lines, b)
        target = at_b[-1]
        mine_spent, other_spent = spent_until(a, at_a, target), spent_until(b, at_b, target)
        ratios.append(mine_spent / other_spent)
        print(
            f"  seed {seed}: AP50 {target:.4f} after {other_spent:6.0f} steps of {other} (of {b.spent[-1]:.0f}), "
            f"{mine_spent:6.0f} of {mine} (of {a.spent[-1]:.0f}, which ended at {at_a[-1]:.4f}): "
            f"{ratios[-1]:.2f}"
        )
    low_high = "median {:.2f}, 95 % interval {:.2f} to {:.2f}".format(*median_interval(ratios))
    missed = sum(math.isinf(r) for r in ratios)
    print(f"  {mine} / {other}: {low_high}; not reached at {missed} of {len(ratios)} seeds")


def seeds_of(lines: Sequence[dict[str, Any]], arm: str) -> set[int]:
    """Seeds that an arm has done, every incumbent confirmed."""
    seeds = {x["done"][1] for x in lines if x.get("done", [None])[0] == arm}
    there = {(x["confirm"], x["at"]) for x in lines if "confirm" in x}
    wanted = {
        seed: {(t.key, at) for t in curve_of(lines, arm, seed).incumbents for at in CONFIRM_SEEDS}
        for seed in seeds
    }
    return {seed for seed in seeds if wanted[seed] <= there}


def report(file: Path, mine: str = "ours") -> None:
    """Print each arm's seeds, and the comparison over those that two arms have done."""
    lines = read(file)
    arms = (mine, "random", "ray")
    done = {arm: seeds_of(lines, arm) for arm in arms}
    print(f"a trial: {CHEAP}")
    for arm in arms:
        trials = [t for seed in done[arm] for t in curve_of(lines, arm, seed).trials]
        steps = sum(t.steps for t in trials)
        bad = [t for t in trials if t.exploded]
        wasted = 100 * sum(t.steps for t in bad) / max(1, steps)
        print(
            f"  {arm}, seeds {sorted(done[arm])}: {len(trials)} trials, {len(bad)} exploded, with "
            f"{wasted:.1f} % of {steps} steps"
        )
    for other in arms[1:]:
        if seeds := sorted(done[mine] & done[other]):
            compare(lines, mine, other, seeds)
