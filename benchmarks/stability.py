"""Measures false alarms and delays of the explosion rules: `python benchmarks/stability.py [--coco DIR]`

Four groups of real runs, with one line per case: how many were called exploded, and by which rule.

- frozen: the learning rate is close to 0, so that nothing can explode: every verdict is a false alarm. Data sets,
  sizes of image, ways, batch shapes, accumulation, and the corners of all loss weights; 213 runs with `--coco`.
- healthy: real training at the rate of the shipped sweep, over data sets and loss weights.
- faulty: runs that really diverge, each for another reason, with the delay between fault and verdict in steps.
- outcomes: runs that were called exploded, trained to their end next to one that was not: their final AP50.

Ratio and window of the rules were chosen on the seeds 0 to 9; the seeds here are others. `--coco DIR` adds photos (a
dataset in the YOLO layout). Everything takes about half an hour on one core; `--group` and `--only` select cases.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fsdet.config import TrainConfig
from fsdet.data.sources import load_image_set
from fsdet.evaluation.metrics import evaluate_run
from fsdet.report import Explosion
from fsdet.training.build import build_state
from fsdet.training.state import TrainState
from fsdet.training.step import measure_reference
from fsdet.training.trainer import training_step

FIRST_SEED = 100
STAGE_2: dict[str, Any] = {
    "resume": "fsdet/checkpoints/stage1_openmoji.pt",
    "n_way": 8, "n_query": 1, "batch_size": 1, "gradient_accumulation": 1, "n_episodes": 180,
    "epochs": 1, "lr": 3e-3, "warmup_fraction": 0.05, "train_scenes": 12288, "threads": 1,
    "device": "cpu", "share_interval": None,
}  # fmt: skip
"""Stage 2 as the shipped sweep runs it."""
ONE_RATE = {
    "backbone_lr_mult": 1.0, "support_encoder_lr_mult": 1.0, "fusion_lr_mult": 1.0, "head_lr_mult": 1.0,
}  # fmt: skip
BEFORE = STAGE_2 | ONE_RATE | {"gradient_clip_norm": 1.0, "dfl_weight": 1.5}
"""The settings made by hand that came first."""
STAGE_1 = STAGE_2 | ONE_RATE | {"stage": 1, "resume": None, "batch_size": 8, "lr": 2e-3}
"""Base training from random weights."""
FROZEN = STAGE_2 | {"lr": 1e-12}


def nothing(_: TrainState) -> None:
    """No fault."""


@dataclass(frozen=True)
class Case:
    """One way to train."""

    name: str
    rule: str | None
    """The rule that is to fire; None for a run that is healthy."""
    settings: dict[str, Any]
    sabotage: Callable[[TrainState], None] = nothing
    """A fault, put into the run before step `at`."""
    at: int = 0
    """Steps before the fault acts."""
    steps: int = 60
    seeds: int = 3


def poison(run: TrainState) -> None:
    """One weight becomes inf, as an overflow leaves it."""
    with torch.no_grad():
        run.detector.scs_fusion.smooth[0].conv.weight[0, 0, 0, 0] = math.inf


def turn_loss(run: TrainState) -> None:
    """The loss has the wrong sign."""
    run.criterion.weights = {term: -weight for term, weight in run.criterion.weights.items()}


def turn_update(run: TrainState) -> None:
    """The optimiser climbs."""
    for group in run.optimizer.param_groups:
        group["maximize"] = True


def lose_targets(run: TrainState) -> None:
    """The labels are gone, as after a broken export."""
    source = run.batches.source
    deal = source.batch

    def without(first: int, count: int) -> Any:
        batch = deal(first, count)
        batch.targets.mask.zero_()
        batch.targets.boxes.zero_()
        return batch

    source.batch = without  # type: ignore[method-assign]


NO_RATIOS = {"explosion_ratio": 1e9, "explosion_loss_ratio": 1e9}
ONLY_CEILING = NO_RATIOS | {"explosion_norm": 1e3}
SHORT = STAGE_2 | {"n_episodes": 60}
"""The whole schedule in 60 steps."""
FAULTY = (
    Case("fusion x 200", "norm_ratio", STAGE_2 | {"fusion_lr_mult": 200.0, "warmup_fraction": 0.0}),
    Case("fusion x 100", "norm_ratio", STAGE_2 | {"fusion_lr_mult": 100.0}),
    Case("fusion x 60", "norm_ratio", STAGE_2 | {"fusion_lr_mult": 60.0}),
    Case("it climbs, lr 3e-3, only a ceiling looks", "norm_ceiling",
         SHORT | ONLY_CEILING, turn_update, at=20, steps=90),
    Case("it climbs, lr 3e-3", "norm_ratio", SHORT, turn_update, at=20),
    Case("it climbs, lr 3e-3, only the loss looks", "loss_divergence",
         SHORT | {"explosion_ratio": 1e9}, turn_update, at=20, steps=90),
    Case("a weight becomes inf", "non_finite", STAGE_2, poison, at=20),
    Case("the loss has the wrong sign", "loss_collapse", STAGE_2, turn_loss, at=20),
    Case("the labels are gone", "silent_death", STAGE_2 | NO_RATIOS, lose_targets, at=20),
)  # fmt: skip
"""Each rule with a run that it is there for."""
HEALTHY = (
    Case("stage 2, lr 3e-3", None, STAGE_2),
    Case("stage 2, lr 1e-3, clip 1", None, STAGE_2 | {"lr": 1e-3, "gradient_clip_norm": 1.0}),
    Case("stage 2, no clipping", None, STAGE_2 | {"gradient_clip_mode": "none", "lr": 1e-3}),
    Case("stage 1 from random weights", None, STAGE_1),
)
"""On the embedded data, with the weights of losses that the shipped sweep begins with."""
WEIGHTS = {
    "bbox_weight": (0.0, 15.0),
    "cls_weight": (0.1, 5.0),
    "dfl_weight": (0.0, 3.0),
    "supcon_weight": (0.0, 5.0),
}
"""Low and high ends of the weights of all terms of stage 2."""


def photographs(coco: Path | None) -> dict[str, dict[str, Any]]:
    """Name -> data settings of what the runs learn from."""
    found: dict[str, dict[str, Any]] = {"embedded": {}}
    if coco is not None:
        found["coco128"] = {"dataset": "yolo", "data_root": coco, "n_way": 2}
    return found


def frozen(coco: Path | None) -> Iterator[Case]:
    """Runs in which nothing can explode."""
    for data, where in photographs(coco).items():
        base, ways = FROZEN | where, (2, 4) if where else (2, 4, 8)
        for size, way in itertools.product((64, 128, 256 if not where else 320), ways):
            settings = base | {"image_size": size, "n_way": way}
            yield Case(f"frozen, {data}, {size} px, {way} ways", None, settings, steps=25)
        large = base | {"image_size": 640 if where else 512}
        yield Case(f"frozen, {data}, {large['image_size']} px", None, large, steps=12, seeds=1)
        for queries, batch, accumulation in itertools.product((1, 4), repeat=3):
            shape = {"n_query": queries, "batch_size": batch, "gradient_accumulation": accumulation}
            name = f"frozen, {data}, 64 px, {queries} queries, batch {batch}, {accumulation} passes"
            yield Case(name, None, base | shape | {"image_size": 64, "n_way": 2}, steps=15, seeds=1)
        for corner in itertools.product(*WEIGHTS.values()):
            weights = dict(zip(WEIGHTS, corner, strict=True))
            name = f"frozen, {data}, weights {'/'.join(f'{value:g}' for value in corner)}"
            yield Case(name, None, base | weights | {"image_size": 64}, steps=25)
        for name, ends in WEIGHTS.items():
            for value in (*ends, 2.0):
                one = base | {name: value}
                yield Case(f"frozen, {data}, {name} {value:g}", None, one, steps=25, seeds=2)
        first = STAGE_1 | where | {"lr": 1e-12, "n_way": 2}
        yield Case(f"frozen, {data}, stage 1", None, first | {"image_size": 64}, steps=25)


def healthy(coco: Path | None) -> Iterator[Case]:
    """Runs that learn."""
    yield from HEALTHY
    for data, where in photographs(coco).items():
        for name, base in (("after", STAGE_2), ("before", BEFORE)):
            yield Case(f"{name}, {data}", None, base | where)
            for weight, value in (
                ("cls_weight", 5.0),
                ("bbox_weight", 15.0),
                ("supcon_weight", 5.0),
            ):
                settings = base | where | {weight: value}
                yield Case(f"{name}, {data}, {weight} {value:g}", None, settings, seeds=2)
        if where:
            large = STAGE_2 | where | {"image_size": 320}
            yield Case(f"after, {data}, 320 px", None, large, steps=40, seeds=2)


def start(case: Case, seed: int, **settings: Any) -> TrainState:
    """A run of the case at its beginning, with its reference measured."""
    config = TrainConfig(**{**case.settings, "seed": seed, **settings})
    torch.set_num_threads(config.threads or 1)
    run = build_state(config, load_image_set(config, "train"), None)
    if run.stability.reference is None:
        measure_reference(run)
    return run


def run_case(
    case: Case, seed: int, steps: int | None = None, **settings: Any
) -> tuple[Explosion | None, list[float]]:
    """Train until the verdict or the end; also the gradient norms."""
    run = start(case, seed, **settings)
    norms = []
    for step in range(steps or case.steps):
        if step == case.at:
            case.sabotage(run)
        values, explosion = training_step(run)
        norms.append(values["grad/norm"])
        if explosion is not None:
            return explosion, norms
    return None, norms


def outcome(case: Case, seed: int) -> tuple[Explosion | None, float]:
    """Train to the end whatever the rules say: the first verdict, and the AP50 that came of it."""
    run, first = start(case, seed), None
    for _ in range(run.config.total_steps):
        _, explosion = training_step(run)
        first = first or explosion
    metrics = evaluate_run(run.detector, run.config, run.device, final=False)
    return first, metrics["val/nAP50"]


def show(case: Case) -> tuple[int, int]:
    """Run one case with all its seeds and print its line; returns how many were called exploded, and of how many."""
    found = [run_case(case, FIRST_SEED + number) for number in range(case.seeds)]
    reasons = [explosion.reason for explosion, _ in found if explosion]
    delays = [explosion.step - case.at for explosion, _ in found if explosion]
    peak = max((n for _, norms in found for n in norms if math.isfinite(n)), default=math.nan)
    delay = f"delay {statistics.median(delays):g} (most {max(delays)})" if delays else ""
    rules = ", ".join(f"{rule} {reasons.count(rule)}" for rule in dict.fromkeys(reasons))
    print(
        f"{case.name:58} {len(reasons)} of {len(found)}  peak norm {peak:9.3g}  {rules:20} {delay}",
        flush=True,
    )
    return len(reasons), len(found)


def show_outcomes(only: str, seeds: int = 2) -> None:
    """Print what runs that were called exploded end at, beside one that was not."""
    for case in (HEALTHY[0], *(case for case in FAULTY if case.name.startswith("fusion"))):
        if only not in case.name:
            continue
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            explosion, ap50 = outcome(case, seed)
            verdict = (
                "no verdict"
                if explosion is None
                else f"{explosion.reason} at step {explosion.step}"
            )
            print(
                f"{case.name:30} seed {seed}  {verdict:24} AP50 at the end {ap50:.3f}", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coco", type=Path, help="photographs, in the YOLO layout")
    parser.add_argument("--group", choices=("frozen", "healthy", "faulty", "outcomes"))
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    logging.getLogger("fsdet").setLevel(logging.ERROR)
    groups = {
        "frozen": frozen(options.coco),
        "healthy": healthy(options.coco),
        "faulty": iter(FAULTY),
    }
    for group, cases in groups.items():
        if options.group not in (None, group):
            continue
        totals = [show(case) for case in cases if options.only in case.name]
        called, of = (sum(column) for column in zip(*totals, strict=True)) if totals else (0, 0)
        print(f"{group}: {called} of {of} called exploded\n")
    if options.group in (None, "outcomes"):
        show_outcomes(options.only)


if __name__ == "__main__":
    main()
