"""What a sweep will do, as it is printed before anything starts."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sweeps.confirmation.words import power_words
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
    if spec.confirm is not None:
        say(console, plan_of_confirmation(spec))


def plan_of_confirmation(spec: SweepSpec) -> str:
    """What is run after the search and, with a baseline to compare with, what that can show."""
    assert spec.confirm is not None
    top, seeds, bases = spec.confirm.top_k, spec.confirm.seeds, len(spec.baselines)
    ablation = "; then the winner with each setting set back" if spec.ablate else ""
    runs = (
        f"confirmation: the {top} best and {bases} baselines over {seeds} fresh seeds on the test split, "
        f"at most {(top + bases) * seeds} runs{ablation}"
    )
    return f"{runs}\n  {power_words(seeds, top * bases)}" if bases else runs


def say(console: Console, text: str) -> None:
    """One line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
