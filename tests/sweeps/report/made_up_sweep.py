"""A made-up sweep of any size for the report, in memory: no trial of it was trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from sweeps.config import SweepSpec
from sweeps.confirmation.candidates import Candidate
from sweeps.confirmation.results import CandidateResult, Confirmation
from sweeps.report.run_series import RunSeries, to_series
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.states import State
from sweeps.study.records import TrialRecord

STEPS, EPOCHS, RUNGS = 128, 16, (1, 4)
SPACE: dict[str, Any] = {
    "gradient_clip_norm": {"low": 0.1, "high": 100, "log": True},
    "dfl_weight": {"low": 0.1, "high": 3, "log": True},
    "fusion_lr_mult": {"low": 0.1, "high": 200, "log": True},
    "head_lr_mult": {"low": 0.1, "high": 200, "log": True},
}
BASELINES = {
    "before": {
        "gradient_clip_norm": 1.0,
        "dfl_weight": 1.5,
        "fusion_lr_mult": 1.0,
        "head_lr_mult": 1.0,
    },
    "after": {
        "gradient_clip_norm": 10.0,
        "dfl_weight": 0.5,
        "fusion_lr_mult": 2.0,
        "head_lr_mult": 2.0,
    },
}
BEGIN = 1_790_000_000.0


def made_up_spec(**changes: Any) -> SweepSpec:
    """A sweep with rungs, two baselines and four settings."""
    values: dict[str, Any] = {
        "name": "made_up",
        "space": SPACE,
        "fixed": {"epochs": EPOCHS},
        "baselines": BASELINES,
        "scheduler": {"name": "asha", "grace": RUNGS[0], "reduction": 4.0},
    }
    return SweepSpec(**{**values, **changes})


def made_up_data(trials: int, steps: int = STEPS, **changes: Any) -> SweepData:
    """A sweep of `trials` on two workers: a high rate of the fusion explodes, one of the head about 30 is best."""
    spec, chance = made_up_spec(), np.random.default_rng(0)
    free = [BEGIN, BEGIN]
    shown = []
    for number, parameters in enumerate(drawn(spec, trials, chance)):
        record, curve = ended(spec, number, parameters, chance)
        worker = int(np.argmin(free))
        record = replace(record, legs=((free[worker], free[worker] + record.seconds),))
        free[worker] += record.seconds + 0.4
        series = made_up_series(record, steps, chance)
        shown.append(ShownTrial(record, curve, spec.config(parameters), series))
    values: dict[str, Any] = {"name": "made_up", "spec": spec, "trials": tuple(shown)}
    return SweepData(**{**values, **changes})


def drawn(spec: SweepSpec, trials: int, chance: np.random.Generator) -> list[dict[str, float]]:
    """The baselines, then settings drawn evenly."""
    found = list(spec.baseline_parameters().values())
    found += [
        {
            key: float(math.exp(chance.uniform(math.log(p["low"]), math.log(p["high"]))))
            for key, p in SPACE.items()
        }
        for _ in range(trials - len(found))
    ]
    return found[:trials]


def ended(
    spec: SweepSpec, number: int, parameters: dict[str, float], chance: np.random.Generator
) -> tuple[TrialRecord, dict[int, float]]:
    """How a trial ended, and its values by epoch."""
    baseline = next((n for n, v in spec.baseline_parameters().items() if v == parameters), None)
    fusion = math.log10(parameters["fusion_lr_mult"])
    exploded = baseline is None and chance.random() < 1 / (1 + math.exp(-9 * (fusion - 1.7)))
    quality = 0.3 - 0.1 * (math.log10(parameters["head_lr_mult"]) - 1.5) ** 2
    quality += chance.normal(0, 0.015)
    if exploded:
        step = int(chance.integers(6, 50))
        module = "scs_fusion" if chance.random() < 0.7 else "backbone"
        reason = f"step {step}, norm_ratio in {module}: gradient norm 487.6 > 4 x reference 27.15"
        record = TrialRecord(
            number, State.INFEASIBLE, parameters, reason=reason, seconds=0.2 * step
        )
        return record, {}
    last = EPOCHS if quality > 0.24 or baseline else RUNGS[int(chance.random() < 0.4)]
    curve = {e: quality * (0.4 + 0.6 * e / EPOCHS) for e in (*RUNGS, EPOCHS) if e <= last}
    state = State.COMPLETED if last == EPOCHS else State.PRUNED
    record = TrialRecord(
        number,
        state,
        parameters,
        value=curve[last],
        standard_error=0.01,
        best_epoch=last,
        baseline=baseline,
        reason="" if state is State.COMPLETED else f"rank 9 of 40 at epoch {last}",
        metrics={"val/swap_gap": 0.8 * curve[last], "val/swap_gap_se": 0.01},
        seconds=1.6 * last + float(chance.random()),
    )
    return record, curve


def made_up_series(record: TrialRecord, steps: int, chance: np.random.Generator) -> RunSeries:
    """The steps of a trial, as far as it went."""
    ends_at = steps * (record.best_epoch or 1) // EPOCHS
    if record.state is State.INFEASIBLE:
        ends_at = int(record.reason.split()[1].strip(","))
    step = np.arange(1, ends_at + 1)
    norms = 8 + 25 * np.exp(-step / 15) + chance.gamma(2, 1.5, len(step))
    if record.state is State.INFEASIBLE:
        norms[-4:] = 10.0 ** chance.uniform(2.5, 5, len(norms[-4:]))
    clip = record.parameters["gradient_clip_norm"]
    rows = [
        {
            "step": float(s),
            "grad/norm": float(norm),
            "grad/clipped": float(norm > clip),
            "grad/rms": 1.5 if s % 10 else 3.25,
            "grad/spike_score": 0.25 if record.state is State.INFEASIBLE else 0.01,
            "train/spike_score": 0.0,
            "train/loss/dfl": 1.2,
            "train/share/cls": 0.4,
            "train/share/dfl": 0.1,
            "train/share/bbox": 0.5,
            "grad/share/cls": 0.55,
            "grad/share/dfl": 0.25,
            "grad/share/bbox": 0.2,
            "update_ratio/scs_fusion": 1e-4 * record.parameters["fusion_lr_mult"],
            "update_ratio/detection_head": 1e-4 * record.parameters["head_lr_mult"] ** 0.5,
        }
        for s, norm in zip(step, norms, strict=True)
    ]
    series = to_series(rows)
    assert series is not None
    return series


def confirmed(data: SweepData, gain: float, seeds: int = 5) -> SweepData:
    """The sweep with a confirmation in which its best is better than both baselines by `gain`."""
    assert data.best is not None
    chance = np.random.default_rng(1)
    numbers = tuple(range(1000, 1000 + seeds))
    best = data.best.record
    wanted = [(f"trial {best.number}", best, gain)]
    wanted += [(t.record.baseline or "", t.record, 0.0) for t in data.baselines]
    results = []
    for label, record, offset in wanted:
        candidate = Candidate(
            label, label, record.parameters, record.number, record.value, record.baseline
        )
        runs = {
            seed: TrialRecord(
                place,
                State.COMPLETED,
                record.parameters,
                metrics={"test/nAP50": 0.2 + offset + float(chance.normal(0, 0.01))},
            )
            for place, seed in enumerate(numbers)
        }
        results.append(CandidateResult(candidate, runs))
    return replace(data, confirmation=Confirmation("test/nAP50", "max", numbers, tuple(results)))
