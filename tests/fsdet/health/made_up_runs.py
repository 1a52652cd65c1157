"""Made-up steps and evaluations of a healthy run, and the health report on them."""

import math
from collections.abc import Callable
from typing import Any

from fsdet.config import MODULES, TrainConfig
from fsdet.health.checklist import (
    HealthReport,
    health_report,
)
from fsdet.health.run_record import RunRecord
from fsdet.report import Explosion

EXPLOSION = Explosion("norm_ceiling", 7, "scs_fusion", "gradient norm 2e+04 > 10000")


PEAKS = {f"{module}.weight": 1.0 for module in MODULES}


Row = dict[str, float]


def wobble(number: int) -> float:
    """What keeps a made-up loss from standing still."""
    return 0.01 * math.sin(number)


def step(number: int, **values: float) -> Row:
    """A healthy step; `values` replace some, with `__` for a slash."""
    row: Row = {
        "step": number,
        "grad/norm": 9.0,
        "grad/clipped": 0.0,
        "grad/rms": 1.3,
        "grad/spike_score": 0.0,
        "train/spike_score": 0.0,
        "train/loss/total": 7.0 - number / 200,
        "train/loss/bbox": 0.4,
        "train/loss/cls": 0.4,
        "train/loss/dfl": 2.5 - 1.5 * min(1, number / 100) + wobble(number),
        "train/loss/supcon": 0.5,
        "train/positives": 40.0,
    }
    row |= {f"grad/norm/{module}": 4.0 for module in MODULES}
    row |= {f"update_ratio/{module}": 1e-3 if number % 10 == 1 else math.nan for module in MODULES}
    return row | {key.replace("__", "/"): value for key, value in values.items()}


def steps(count: int = 200, **values: float) -> list[Row]:
    return [step(number, **values) for number in range(1, count + 1)]


def evaluation(number: int, ap50: float, **values: float) -> Row:
    row = {"step": number, "epoch": 1, "val/nAP50": ap50, "val/nAP50_se": 0.02, "memory": 1e9}
    return row | {key.replace("__", "/"): value for key, value in values.items()}


GOOD_EVALUATIONS = [
    *(evaluation(50 * n, 0.1 * n) for n in (1, 2, 3)),
    evaluation(200, 0.4, val__nAP50_swapped=0.05, val__swap_gap=0.35),
]


def report(
    rows: list[Row] | None = None,
    evaluations: list[Row] | None = None,
    peaks: dict[str, float] | None = None,
    explosion: Explosion | None = None,
    **settings: Any,
) -> HealthReport:
    run = RunRecord(
        TrainConfig(**settings),
        steps() if rows is None else rows,
        GOOD_EVALUATIONS if evaluations is None else evaluations,
        PEAKS if peaks is None else peaks,
        explosion,
    )
    return health_report(run)


def status(name: str, *given_: Any, **named: Any) -> str:
    return report(*given_, **named).check(name).status


def changed(count: int, **values: Callable[[int], float]) -> list[Row]:
    """Healthy steps in which some values are functions of the step."""
    return [
        step(n, **{key: value(n) for key, value in values.items()}) for n in range(1, count + 1)
    ]
