"""Does another signal rise before the norm rules of an explosion fire? `python benchmarks/early_warning.py`

Runs of the corpus of `benchmarks/stability.py` are recorded to FILE, one JSON line each; runs that are there already
are not repeated. Signals, each a number per step that is comparable between runs:

- `rms`: `grad/rms`, the largest root mean square of g²/v of any tensor (Wortsman et al. 2023);
- `norm`, `loss`: by how many standard deviations of the steps before a value lies above their mean, which is what the
  spike scores count;
- `ratio`: the gradient norm over the reference of the run, which the rule `norm_ratio` compares with 4.

A signal gives an alarm if it is above its threshold at k of the last 10 steps, for k of 1 and of 3 as the rules have
it. The threshold is the lowest one that gives no alarm on the healthy runs of the seeds 0 and 1; false alarms and the
steps between alarm and verdict are those of the seeds 100 to 102. The last line is for the spike scores as they are,
with their 7 standard deviations and at least 20 steps. Takes about a quarter of an hour on one core.

`--sweep NAME` applies the same thresholds to all runs of a sweep, those of its confirmation included: trials that
exploded of themselves, and others that would have been ended. That needs only the healthy runs of the seeds 0 and 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from stability import BEFORE, FAULTY, FROZEN, HEALTHY, Case, start

from fsdet.health.spikes import SpikeScores
from fsdet.run_files import iterate_steps
from fsdet.training.trainer import training_step
from sweeps.confirmation.results import CONFIRM_FOLDER
from sweeps.states import State
from sweeps.storage.lookup import find_folder
from sweeps.study.location import store_of
from sweeps.study.study import read_trials

CHOOSING, HELD_OUT = (0, 1), (100, 101, 102)
STEPS = 60
PATIENCE, WINDOW = (1, 3), 10
MEASURED = ("grad/norm", "train/loss/total", "grad/rms")


@dataclass(frozen=True)
class Run:
    """What one run measured, step by step, up to its verdict."""

    case: str
    seed: int
    faulty: bool
    at: int
    """Steps before the fault acts."""
    reference: float
    verdict: int | None
    """Step of the first explosion; None if no rule fired."""
    reason: str
    norm: list[float]
    loss: list[float]
    rms: list[float]


SMALL = FROZEN | {"image_size": 64, "n_way": 2}
CALM = (
    *HEALTHY,
    Case("before", None, BEFORE),
    Case("frozen, 8 ways", None, FROZEN),
    Case("frozen, 64 px, 2 ways", None, SMALL),
    Case("frozen, 64 px, boxes alone", None, SMALL | {"bbox_weight": 15.0, "supcon_weight": 0.0}),
)
"""Healthy runs: those that learn have norms that fall at first, frozen ones show the noise of the batches alone."""
CASES = (*(case for case in FAULTY if "only" not in case.name), *CALM)


def record(case: Case, seed: int) -> Run:
    """Train until the verdict, or for `STEPS` steps."""
    run = start(case, seed)
    rows: list[dict[str, float]] = []
    verdict = None
    for step in range(STEPS):
        if step == case.at:
            case.sabotage(run)
        values, verdict = training_step(run)
        rows.append(values)
        if verdict is not None:
            break
    norm, loss, rms = ([row[key] for row in rows] for key in MEASURED)
    return Run(
        *(case.name, seed, case.rule is not None, case.at, run.stability.reference or math.nan),
        *(None if verdict is None else verdict.step, verdict.reason if verdict else ""),
        *(norm, loss, rms),
    )


def recorded(path: Path, seeds: Sequence[int], cases: Sequence[Case]) -> list[Run]:
    """Runs of the corpus, those that `path` lacks now added to it."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    runs = [Run(**json.loads(line)) for line in lines]
    there = {(run.case, run.seed) for run in runs}
    for seed in seeds:
        for case in cases:
            if (case.name, seed) not in there:
                runs.append(record(case, seed))
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(runs[-1])) + "\n")
    return runs


def runs_of_sweep(name: str) -> Iterator[Run]:
    """Trials and runs of the confirmation that completed or exploded; `at` 0, since nothing was done to them.

    Raises:
        SweepError: there is no such sweep.
    """
    folder = find_folder(name, None)
    store, confirm = store_of(folder), folder.path / CONFIRM_FOLDER
    found = [(t, folder.trials_dir / f"{t.number:04d}") for t in read_trials(store)]
    if confirm.is_dir():
        runs = read_trials(store.beside(CONFIRM_FOLDER))
        found += [(run, confirm / run.preset.key) for run in runs if run.preset]
    for record, place in found:
        if record.state not in (State.COMPLETED, State.INFEASIBLE):
            continue
        rows = list(iterate_steps(place))
        exploded = record.state is State.INFEASIBLE
        yield Run(
            *(place.name, 0, exploded, 0, math.nan, len(rows) if exploded else None),
            record.reason,
            *([row.get(key, math.nan) for row in rows] for key in MEASURED),
        )


def sweep_lines(calm: Sequence[Run], name: str) -> Iterator[str]:
    """What the thresholds of the corpus say to the runs of a sweep."""
    runs = [run for run in runs_of_sweep(name) if len(run.norm) > 0]
    exploded = [run for run in runs if run.faulty]
    others = [run for run in runs if not run.faulty]
    for signal_name in ("rms", "norm", "loss"):
        signal = SIGNALS[signal_name]
        for k in PATIENCE:
            threshold = lowest([signal(run) for run in calm], k)
            alarms = [alarm(signal(run), threshold, k) for run in exploded]
            ended = sum(alarm(signal(run), threshold, k) is not None for run in others)
            yield (
                f"{name}: {signal_name:6} k {k}  above {threshold:6.3g}  exploded: "
                f"{gained(exploded, alarms)}  others: alarm in {ended} of {len(others)}"
            )


def deviations(values: Sequence[float], least: int = 10) -> list[float]:
    """Of each value from the mean of those before, in their standard deviations; 0 while these are few."""
    found = []
    for number, value in enumerate(values):
        before = np.array(values[:number])
        before = before[np.isfinite(before)]
        if len(before) < least:
            found.append(0.0)
        else:
            found.append(float((value - before.mean()) / max(before.std(), 1e-12)))
    return found


SIGNALS: dict[str, Callable[[Run], list[float]]] = {
    "rms": lambda run: run.rms,
    "norm": lambda run: deviations(run.norm),
    "loss": lambda run: deviations(run.loss),
    "ratio": lambda run: [norm / run.reference for norm in run.norm],
}


def alarm(signal: Sequence[float], threshold: float, k: int) -> int | None:
    """First step (from 1) at which the signal is above the threshold at `k` of the last 10 steps."""
    above = [value > threshold or math.isnan(value) for value in signal]
    for step in range(1, len(above) + 1):
        if above[step - 1] and sum(above[max(0, step - WINDOW) : step]) >= k:
            return step
    return None


def lowest(signals: Sequence[Sequence[float]], k: int) -> float:
    """The lowest threshold at which none of `signals` gives an alarm."""
    candidates = sorted({value for signal in signals for value in signal})
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high) // 2
        if any(alarm(signal, candidates[middle], k) for signal in signals):
            low = middle + 1
        else:
            high = middle
    return candidates[low]


def lines(runs: Sequence[Run]) -> Iterator[str]:
    """The table: one line per signal and patience."""
    held = [run for run in runs if run.seed in HELD_OUT]
    groups = {
        "norm rules": [run for run in held if run.faulty and run.reason.startswith("norm")],
        "other rules": [run for run in held if run.faulty and not run.reason.startswith("norm")],
    }
    for name, signal in SIGNALS.items():
        for k in PATIENCE:
            calm = [signal(r) for r in runs if not r.faulty and r.seed in CHOOSING]
            threshold = lowest(calm, k)
            healthy = [run for run in held if not run.faulty]
            false = sum(alarm(signal(run), threshold, k) is not None for run in healthy)
            text = f"{name:6} k {k}  above {threshold:6.3g}  false alarms {false} of {len(healthy)}"
            for group, some in groups.items():
                text += f"  {group}: {gained(some, [alarm(signal(r), threshold, k) for r in some])}"
            yield text
    first = [spike(run) for run in held]
    healthy = [at for run, at in zip(held, first, strict=True) if not run.faulty]
    text = (
        f"first spike of the spike scores: false alarms {sum(map(bool, healthy))} of {len(healthy)}"
    )
    for group, some in groups.items():
        text += f"  {group}: {gained(some, [spike(run) for run in some])}"
    yield text


def spike(run: Run) -> int | None:
    """First step (from 1) at which a spike score counts one, of the norm or of the loss."""
    scores = SpikeScores()
    for step, (norm, loss) in enumerate(zip(run.norm, run.loss, strict=True), 1):
        if any(scores.update({"grad/norm": norm, "train/loss/total": loss}).values()):
            return step
    return None


def gained(runs: Sequence[Run], alarms: Sequence[int | None]) -> str:
    """In how many runs the alarm came before the verdict and after the fault, and by how many steps."""
    found = [
        run.verdict - step
        for run, step in zip(runs, alarms, strict=True)
        if run.verdict is not None and step is not None and run.at < step < run.verdict
    ]
    steps = f", by {statistics.median(found):g} ({min(found)} to {max(found)})" if found else ""
    return f"earlier in {len(found)} of {len(runs)}{steps}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("early_warning.jsonl"))
    parser.add_argument("--sweep", action="append", help="name of a sweep; may be given again")
    options = parser.parse_args()
    logging.getLogger("fsdet").setLevel(logging.ERROR)
    if options.sweep:
        calm = recorded(options.file, CHOOSING, CALM)
        calm = [run for run in calm if not run.faulty and run.seed in CHOOSING]
        for name in options.sweep:
            print("\n".join(sweep_lines(calm, name)))
        return
    for line in lines(recorded(options.file, (*CHOOSING, *HELD_OUT), CASES)):
        print(line)


if __name__ == "__main__":
    main()
