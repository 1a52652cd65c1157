"""What a sweep will do, as it is printed before anything starts."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sweeps.machine.auto import AUTO
from sweeps.machine.machine import Machine
from sweeps.spec import SweepSpec
from sweeps.spec.space import describe


def show(spec: SweepSpec, machine: Machine, console: Console) -> None:
    """Print the sweep as understood: space, baselines, resources."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("searched", "values", *spec.baselines):
        table.add_column(name)
    baselines = spec.baseline_parameters()
    for key, parameter in spec.space.items():
        table.add_row(key, describe(parameter), *(str(b.get(key, "-")) for b in baselines.values()))
    console.print(f"sweep {spec.name} ({spec.source})", markup=False, highlight=False)
    console.print(table)
    for key, value in spec.settings.items():
        console.print(f"  {key}: {value}", markup=False, highlight=False, soft_wrap=True)
    used = spec.resources
    auto = used.gpus == AUTO
    gpus, bound = (AUTO, "at most ") if auto else (f"{used.gpu_share:g}", "")
    console.print(
        f"{spec.trials} trials ({len(spec.baselines)} baselines first), "
        f"sampler {spec.sampler.name} (seed {spec.sampler.seed}), scheduler {spec.scheduler.name}, "
        f"objective {spec.objective.metric} ({spec.objective.mode})\n"
        f"{used.cpus:g} CPUs and {gpus} GPUs a trial, {bound}{machine.capacity(used)} at once "
        f"({machine.words}: {machine.cpus} CPUs, {machine.gpus} GPUs)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
