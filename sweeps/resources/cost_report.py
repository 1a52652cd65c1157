"""Prints the cost of a sweep: the measurements of the probe and the estimates from them."""

from __future__ import annotations

import os
from collections.abc import Callable

from fsdet.durations import duration
from sweeps.config import SweepSpec
from sweeps.config.sections import AUTO
from sweeps.resources.cost import (
    COSTLY_HIGH,
    COSTLY_LOW,
    SweepCost,
    TrialCost,
    costliest,
    estimate,
    most_runs,
)
from sweeps.resources.machine import Machine
from sweeps.resources.probe import measure, with_gpus, with_shared_card
from sweeps.trial.worker import free_memory


def print_cost(spec: SweepSpec, machine: Machine, print_line: Callable[[str], None]) -> TrialCost:
    """Measure one trial and print the cost of the sweep; returns the measurement.

    Raises:
        SweepError: the probe failed.
    """
    free, auto = free_memory(), spec.resources.gpus == AUTO
    print_line("measuring a trial: some steps and two evaluations")
    if (load := os.getloadavg()[0]) > machine.cpus / 2:
        print_line(
            f"warning: other work runs here (load {load:.1f} on {machine.cpus} CPUs) and slows it"
        )
    measured = measure(costliest(with_gpus(spec, 1) if auto else spec))
    if auto:
        spec = with_shared_card(spec, machine, measured, print_line)
    cost = estimate(spec, measured, machine.capacity(spec.resources), free)
    for line in cost_lines(spec, cost):
        print_line(line)
    return measured


def cost_lines(spec: SweepSpec, cost: SweepCost) -> list[str]:
    """All lines of the report."""
    return [*measured_lines(spec, cost), *estimated_lines(spec, cost), *memory_lines(cost)]


def measured_lines(spec: SweepSpec, cost: SweepCost) -> list[str]:
    """The measurements of the probe."""
    m = cost.measured
    keys = [key for key in (*COSTLY_HIGH, *COSTLY_LOW) if key in spec.space]
    sizes = [f"{key} {getattr(cost.config, key)}" for key in keys]
    of = f" ({', '.join(sizes)})" if sizes else ""
    line = (
        f"measured on one trial, alone{of}: {m.step_seconds:.3g} s a step, "
        f"{m.evaluation_seconds:.3g} s an evaluation, {m.final_seconds:.3g} s the last one, "
        f"{m.save_seconds:.2g} s a checkpoint, {m.startup_seconds:.2g} s to start and end; "
        f"{m.import_seconds:.2g} s a new process"
    )
    return [line]


def estimated_lines(spec: SweepSpec, cost: SweepCost) -> list[str]:
    """The estimates for the sweep."""
    config = cost.config
    trial = f"a complete trial: about {duration(cost.trial)}, {config.total_steps} steps in {config.epochs} epochs"
    sweep = (
        f"the sweep: about {duration(cost.sweep)} if all {spec.trials} trials ran to their end, {cost.at_once} "
        f"at once{early_ends(spec)}; how trials side by side slow one another was not measured"
    )
    lines = [trial, sweep]
    if any(key in spec.space for key in ("batch_size", "gradient_accumulation")):
        lines.append("smaller batches take more steps, and were not measured")
    if cost.confirmation is not None:
        lines.append(
            f"the confirmation: about {duration(cost.confirmation)} more for at most {most_runs(spec)} runs"
        )
    return lines


def early_ends(spec: SweepSpec) -> str:
    """Why the sweep may be shorter, in parentheses."""
    reasons = (
        []
        if spec.scheduler.name == "none"
        else [f"{spec.scheduler.name} prunes most of them earlier"]
    )
    if spec.budget.hours is not None:
        reasons.append(f"budget.hours ends it after {duration(3600 * spec.budget.hours)}")
    return f" ({', '.join(reasons)})" if reasons else ""


def memory_lines(cost: SweepCost) -> list[str]:
    """Memory of the trials that run at once, and whether it suffices."""
    m = cost.measured
    host = (
        f"memory: about {size(cost.trial_bytes)} a trial with its worker, {size(cost.host_bytes)} for "
        f"{cost.at_once} at once; {size(cost.host_free)} are free"
    )
    lines = [host]
    if m.card_bytes:
        lines.append(f"GPU memory: {size(m.card_bytes)} a trial, of {size(m.card_total)} a card")
    if not cost.fits:
        lines.append(
            "warning: so many trials may not fit into memory; lower resources.max_concurrent, or raise "
            "resources.cpus"
        )
    return lines


def size(count: int) -> str:
    """Bytes in GB."""
    return f"{count / 1e9:.1f} GB"
