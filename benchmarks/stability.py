"""Do the explosion rules see what they should, and nothing else? `python benchmarks/stability.py`

A corpus of real runs on the embedded data: healthy ones of many seeds, and ones that really diverge, each for another
reason. Printed for every case: how many were called exploded and by which rule, and the delay: steps between the first
step at which the fault acts and the verdict. The seeds are not those on which the thresholds were chosen (0 to 9).
Takes about 15 minutes of one core; `--seeds 1` a third of it.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fsdet.config import TrainConfig
from fsdet.data.sources import load_image_set
from fsdet.engine.report import Explosion
from fsdet.engine.run import Run, build_run
from fsdet.engine.trainer import training_step

FIRST_SEED = 100
STAGE_2: dict[str, Any] = {
    "resume": "fsdet/checkpoints/stage1_openmoji.pt",
    "n_way": 8, "n_query": 1, "batch_size": 1, "gradient_accumulation": 1, "n_episodes": 60,
    "epochs": 1, "lr": 3e-3, "warmup_fraction": 0.05, "train_scenes": 12288, "threads": 1,
    "device": "cpu", "share_interval": None,
}  # fmt: skip
"""Stage 2 as the shipped sweep runs it, for 60 steps."""
STAGE_1 = STAGE_2 | {"stage": 1, "resume": None, "batch_size": 8, "lr": 2e-3}
"""Base training from random weights."""


def nothing(_: Run) -> None:
    """No fault."""


@dataclass(frozen=True)
class Case:
    """One way to train."""

    name: str
    rule: str | None
    """The rule that is to fire; None for a healthy run."""
    settings: dict[str, Any]
    sabotage: Callable[[Run], None] = nothing
    """A fault, put into the run before step `at`."""
    at: int = 0
    """Steps before the fault acts."""
    steps: int = 60


def poison(run: Run) -> None:
    """One weight becomes inf, as an overflow leaves it."""
    with torch.no_grad():
        run.detector.scs_fusion.smooth[0].conv.weight[0, 0, 0, 0] = math.inf


def turn_loss(run: Run) -> None:
    """The loss has the wrong sign."""
    run.criterion.weights = {term: -weight for term, weight in run.criterion.weights.items()}


def turn_update(run: Run) -> None:
    """The optimiser climbs."""
    for group in run.optimizer.param_groups:
        group["maximize"] = True


def lose_targets(run: Run) -> None:
    """The labels are gone, as after a broken export."""
    source = run.batches.source
    deal = source.batch

    def without(first: int, count: int) -> Any:
        batch = deal(first, count)
        batch.targets.mask.zero_()
        batch.targets.boxes.zero_()
        return batch

    source.batch = without  # type: ignore[method-assign]


HEALTHY = (
    Case("stage 2, lr 3e-3", None, STAGE_2),
    Case("stage 2, lr 1e-3, clip 1", None, STAGE_2 | {"lr": 1e-3, "gradient_clip_norm": 1.0}),
    Case("stage 2, no clipping", None, STAGE_2 | {"gradient_clip_mode": "none", "lr": 1e-3}),
    Case("stage 1 from random weights", None, STAGE_1),
)
NO_RATIOS = {"explosion_ratio": 1e9, "explosion_loss_ratio": 1e9}
ONLY_CEILING = NO_RATIOS | {"explosion_norm": 1e3}
FAULTY = (
    Case("fusion x 200", "norm_ratio", STAGE_2 | {"fusion_lr_mult": 200.0, "warmup_fraction": 0.0}),
    Case("it climbs, lr 3e-3, only a ceiling looks", "norm_ceiling",
         STAGE_2 | ONLY_CEILING, turn_update, at=20, steps=90),
    Case("it climbs, lr 3e-3", "norm_ratio", STAGE_2, turn_update, at=20),
    Case("it climbs, lr 3e-3, only the loss looks", "loss_divergence",
         STAGE_2 | {"explosion_ratio": 1e9}, turn_update, at=20, steps=90),
    Case("a weight becomes inf", "non_finite", STAGE_2, poison, at=20),
    Case("the loss has the wrong sign", "loss_collapse", STAGE_2, turn_loss, at=20),
    Case("the labels are gone", "silent_death", STAGE_2 | NO_RATIOS, lose_targets, at=20),
)  # fmt: skip
"""Each rule with a run that it is there for."""


def run_case(
    case: Case, seed: int, steps: int | None = None, **settings: Any
) -> tuple[Explosion | None, list[float]]:
    """Train until the verdict or the end; also the gradient norms."""
    config = TrainConfig(**{**case.settings, "seed": seed, **settings})
    torch.set_num_threads(config.threads or 1)
    run = build_run(config, load_image_set(config, "train"), None)
    norms = []
    for step in range(steps or case.steps):
        if step == case.at:
            case.sabotage(run)
        values, explosion = training_step(run)
        norms.append(values["grad/norm"])
        if explosion is not None:
            return explosion, norms
    return None, norms


def show(case: Case, seeds: range) -> None:
    """Run one case with every seed and print its line."""
    found = [run_case(case, seed) for seed in seeds]
    reasons = [explosion.reason for explosion, _ in found if explosion]
    delays = [explosion.step - case.at for explosion, _ in found if explosion]
    peak = max((n for _, norms in found for n in norms if math.isfinite(n)), default=math.nan)
    delay = f"delay {statistics.median(delays):g} (most {max(delays)})" if delays else ""
    rules = ", ".join(f"{rule} {reasons.count(rule)}" for rule in dict.fromkeys(reasons))
    print(
        f"{case.name:40} {len(reasons)} of {len(found)}  peak norm {peak:9.3g}  {rules:28} {delay}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=3, help="per case; healthy ones get four times"
    )
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    for title, cases, count in (
        ("healthy: called exploded", HEALTHY, 4 * options.seeds),
        ("faulty: called exploded", FAULTY, options.seeds),
    ):
        print(title)
        for case in cases:
            if options.only in case.name:
                show(case, range(FIRST_SEED, FIRST_SEED + count))


if __name__ == "__main__":
    main()
