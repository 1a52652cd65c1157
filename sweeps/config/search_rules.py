"""Rules for the combination of sampler, scheduler, objectives, budget and space."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from sweeps.config import COSTS, SweepSpec
from sweeps.config.distribution import count_of, to_distribution

Mistake = tuple[str, str]
"""Dotted key and message."""

ALL_APPLY = ("gp", "qmc", "cmaes", "nsgaii")
"""Samplers that draw all settings together, so that none can be left out of a configuration."""
LEARNING = ("tpe", "gp")
"""Samplers that learn from trials that they did not suggest."""
GRID_LIMIT = 100_000
"""Configurations of a grid are counted up to this number."""


def search_mistakes(spec: SweepSpec) -> Iterator[Mistake]:
    """Every mistake in how the space is searched; mistakes in the space itself are skipped."""
    yield from _objectives(spec)
    yield from _sampler(spec)
    yield from _budget(spec)
    yield from _ablation(spec)


def _objectives(spec: SweepSpec) -> Iterator[Mistake]:
    name, second = spec.sampler.name, spec.second_objective
    if spec.objective.metric in COSTS:
        rule = f"{spec.objective.metric} is known only at the end of a trial"
        yield "objective.metric", f"{rule}; make it the second_objective, with the sampler nsgaii"
    if second is not None and second.metric == spec.objective.metric:
        yield "second_objective.metric", "must differ from objective.metric; choose another one"
    if second is not None and name != "nsgaii":
        yield "second_objective", f"needs sampler.name nsgaii, but got {name}; change one of them"
    if second is None and name == "nsgaii":
        cure = "add second_objective: {metric: trial/step_seconds}, or use tpe"
        yield "sampler.name", f"nsgaii needs two objectives; {cure}"
    if name == "nsgaii" and spec.scheduler.name != "none":
        rule = f"nsgaii compares complete trials, but got {spec.scheduler.name}"
        yield "scheduler.name", f"{rule}; set it to none"


def _sampler(spec: SweepSpec) -> Iterator[Mistake]:
    name = spec.sampler.name
    conditional = [key for key, parameter in spec.space.items() if parameter.when]
    if name in ALL_APPLY and conditional:
        rule = f"{name} draws all settings together, but when limits {', '.join(conditional)}"
        yield "sampler.name", f"{rule}; use tpe, random or grid, or remove when"
    if name == "cmaes":
        yield from _cmaes(spec)
    if name == "grid":
        yield from _grid(spec)
    if name == "bisection":
        yield from _bisection(spec, conditional)
    elif spec.sampler.worst is not None:
        yield "sampler.worst", f"belongs to bisection, but got {name}; remove it"
    if name == "nsgaii" and spec.sampler.startup_trials < 2:
        yield "sampler.startup_trials", "a generation of nsgaii has at least 2 trials; raise it"
    if spec.warm_start is not None and name not in LEARNING:
        rule = f"{name} learns nothing from trials that it did not suggest"
        yield "warm_start", f"{rule}; use tpe or gp, or remove the line"


def _cmaes(spec: SweepSpec) -> Iterator[Mistake]:
    searched = spec.search_space.searched
    for key, parameter in searched.items():
        if parameter.choices is not None:
            yield f"space.{key}", "cmaes searches numbers only; give a range, or use tpe"
    if len(searched) < 2:
        yield "sampler.name", "cmaes needs at least two searched settings; use tpe"
    if importlib.util.find_spec("cmaes") is None:
        yield "sampler.name", "cmaes needs the package of that name: pip install cmaes"


def _bisection(spec: SweepSpec, conditional: list[str]) -> Iterator[Mistake]:
    if len(spec.baselines) != 1:
        rule = f"bisection starts at the one baseline, but got {len(spec.baselines)}"
        yield "baselines", f"{rule}; give it the values of all ranges that do not explode"
    if all(parameter.choices is not None for parameter in spec.space.values()):
        yield "space", "bisection needs a range; give one of the settings low and high"
    for key in conditional:
        rule = "bisection varies one setting at a time, so all must always apply"
        yield f"space.{key}.when", f"{rule}; remove it, or set {key} under fixed"
    for key, parameter in spec.space.items():
        if parameter.tie is not None or parameter.step is not None:
            word = "tie" if parameter.tie is not None else "step"
            yield f"space.{key}.{word}", "bisection needs ranges without it; remove it"
    if spec.scheduler.name != "none":
        rule = "bisection must know whether a trial explodes before its end"
        yield "scheduler.name", f"{rule}, but got {spec.scheduler.name}; set it to none"


def _grid(spec: SweepSpec) -> Iterator[Mistake]:
    try:
        found = {k: to_distribution(k, p) for k, p in spec.search_space.searched.items()}
    except (KeyError, ValueError):  # reported by another rule
        return
    endless = [key for key, distribution in found.items() if count_of(distribution) is None]
    for key in endless:
        yield f"space.{key}", "grid cannot try every real number of a range; give choices or a step"


def size_of_grid(spec: SweepSpec) -> int:
    """Trials of a grid: every configuration, and the baselines that are not on the grid; at most about `GRID_LIMIT`."""
    space = spec.search_space
    if any((count_of(d) or 0) >= GRID_LIMIT for d in spec.distributions().values()):
        return GRID_LIMIT  # every parameter applies somewhere: there are as many configurations
    baselines = [space.complete(values) for values in spec.baseline_parameters().values()]
    points = space.grid(GRID_LIMIT)
    return len(points) + sum(baseline not in points for baseline in baselines)


def grid_mistakes(spec: SweepSpec) -> Iterator[Mistake]:
    """More trials than the grid has configurations; for a space without mistakes."""
    if spec.sampler.name != "grid":
        return
    size = size_of_grid(spec)
    if size >= GRID_LIMIT:
        yield "sampler.name", f"the grid has {GRID_LIMIT} configurations or more; coarsen the steps"
    elif "trials" in spec.model_fields_set and spec.trials > size:
        yield "trials", f"the grid has {size} configurations, but got {spec.trials}; lower it"


def _budget(spec: SweepSpec) -> Iterator[Mistake]:
    budget = spec.budget
    if budget.gpu_hours is not None and not spec.resources.gpus:
        yield "budget.gpu_hours", "the trials use no GPU; set resources.gpus, or budget.hours"
    if budget.target is not None and not 0 < budget.target <= 1:
        rule = f"{spec.objective.metric} lies between 0 and 1"
        yield "budget.target", f"{rule}, but got {budget.target:g}; correct it"


def _ablation(spec: SweepSpec) -> Iterator[Mistake]:
    if spec.ablate and spec.confirm is None:
        yield "ablate", "needs a confirmed winner; add confirm: {top_k: 3, seeds: 5}, or drop it"
    if spec.ablate and not spec.baselines:
        yield "ablate", "needs a baseline to set settings back to; add one, or drop it"
