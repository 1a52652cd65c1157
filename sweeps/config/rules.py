"""The rules of a sweep that need more than one value: each mistake as dotted key and message.

Loads no torch. `sweeps.config.check` turns them into one error with files and lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from fsdet.config import DataConfig, HealthConfig, TrainConfig
from fsdet.config.parsing import build_config
from fsdet.errors import MOST_LINES, ConfigError, nearest
from sweeps.config import OWNED, SweepSpec
from sweeps.config.distribution import contains, to_distribution
from sweeps.config.parameter import kind_of, read_value
from sweeps.config.search_rules import Mistake, grid_mistakes, search_mistakes
from sweeps.config.space import CycleError, Space

SEARCHABLE_DATA = {"batch_size", "n_episodes", "train_scenes"}
"""Data settings that change how a trial learns, not what it is measured on."""
UNSEARCHABLE = {
    **dict.fromkeys(
        [*(set(DataConfig.model_fields) - SEARCHABLE_DATA), "stage"],
        "trials must be measured alike; set it under fixed",
    ),
    **dict.fromkeys(HealthConfig.model_fields, "it changes no trial; set it under fixed"),
    "resume_with_changes": "trials resume as they were; remove the line",
}
"""Settings that must be the same for all trials, with the reason."""
HELP = "; `python -m fsdet.train --help` lists all settings"


def mistakes(spec: SweepSpec) -> Iterator[Mistake]:
    """Every mistake, the first ones of many; a stage runs only if the earlier ones found none."""
    stages = (
        (_unknown, _misplaced, _thresholds),
        (_fixed_alone,),
        (_searched_epochs,),
        (search_mistakes,),
        (_ties, _order),
        (_ranges, _fixed),
        (_conditions,),
        (_ends,),
        (_joint, _baselines),
        (grid_mistakes,),
    )
    for stage in stages:
        every = (mistake for rule in stage for mistake in rule(spec))
        found = list(islice(every, MOST_LINES + 1))
        yield from found
        if found:
            return


def _fixed_alone(spec: SweepSpec) -> Iterator[Mistake]:
    """Values under `fixed` that no trial could have; all other rules compute with them."""
    try:
        build_config(spec.fixed, "value")
    except ConfigError as error:
        for line in str(error).splitlines():
            key, _, rule = line.removeprefix("value: ").partition(": ")
            if key in spec.fixed:
                yield f"fixed.{key}", rule


def _searched_epochs(spec: SweepSpec) -> Iterator[Mistake]:
    """Lengths of a trial that are no numbers; the rungs and the early evaluations are computed from them."""
    for key in spec.space.keys() & {"epochs", "eval_episodes"}:
        for value in spec.space[key].ends:
            try:
                build_config({key: value}, "value")
            except ConfigError as error:
                yield f"space.{key}", str(error).removeprefix(f"value: {key}: ")


def _unknown(spec: SweepSpec) -> Iterator[Mistake]:
    known = list(TrainConfig.model_fields)
    named = [(f"space.{key}", key) for key in spec.space]
    named += [
        (f"space.{key}.when.{name}", name) for key, p in spec.space.items() for name in p.when
    ]
    named += [(f"fixed.{key}", key) for key in spec.fixed]
    for where, key in named:
        if key not in known:
            yield where, f"unknown setting '{key}'{nearest(key, known) or HELP}"


def _misplaced(spec: SweepSpec) -> Iterator[Mistake]:
    for group, keys in (("space", spec.space), ("fixed", spec.fixed)):
        for key in keys:
            if key in OWNED:
                yield f"{group}.{key}", f"the sweep sets this itself: {OWNED[key]}"
    for key, parameter in spec.space.items():
        if key in spec.fixed:
            yield f"fixed.{key}", "is searched in space too; remove one of them"
        if key == "seed" and spec.sampler.name != "bisection":  # which compares no trials
            rule = "trials that differ in their seed cannot be compared"
            yield "space.seed", f"{rule}; set it under fixed"
        if key in UNSEARCHABLE:
            yield f"space.{key}", UNSEARCHABLE[key]
        for name in parameter.when:
            if name in OWNED:
                yield f"space.{key}.when.{name}", "is the same in every trial; remove the condition"


def _thresholds(spec: SweepSpec) -> Iterator[Mistake]:
    """What counts as an explosion must not depend on a searched value."""
    for key in spec.space:
        if key.startswith("explosion_"):
            yield (
                f"space.{key}",
                "what counts as an explosion must be the same for all trials; set it under fixed",
            )


def _ties(spec: SweepSpec) -> Iterator[Mistake]:
    searched = spec.search_space.searched
    for key, parameter in spec.space.items():
        source, where = parameter.tie, f"space.{key}.tie"
        if source == key:
            yield where, "a setting cannot be tied to itself; name another one"
        elif source in spec.space and source not in searched:
            origin = spec.space[source].tie
            yield where, f"'{source}' is itself tied to {origin}; tie to that one"
        elif source is not None and source not in spec.space:
            cure = nearest(source, searched) or f"; searched are {', '.join(searched)}"
            yield where, f"'{source}' is not searched{cure}"
        elif source is not None:
            yield from _tied_kinds(key, source, parameter.times)


def _tied_kinds(key: str, source: str, times: float | None) -> Iterator[Mistake]:
    """A number can be tied to numbers only, an integer to integers only."""
    kind, other = kind_of(key), kind_of(source)
    if times is not None and "choice" in (kind, other):
        yield f"space.{key}.times", f"{key} and {source} must be numbers to be multiplied; drop it"
    if kind == "int" and (other != "int" or (times or 1) % 1):
        factor = "" if times is None else f" times {times:g}"
        yield f"space.{key}.tie", f"is a whole number, but {source}{factor} need not be one"


def _order(spec: SweepSpec) -> Iterator[Mistake]:
    for key, parameter in spec.space.items():
        for name in parameter.when:
            if name in spec.space and (origin := spec.space[name].tie) is not None:
                rule = f"'{name}' is tied to {origin}; make the condition on that one"
                yield f"space.{key}.when.{name}", rule
    try:
        spec.search_space.order()
    except CycleError as error:
        yield f"space.{error.keys[0]}.when", f"conditions must not form a cycle: {error}"


def _ranges(spec: SweepSpec) -> Iterator[Mistake]:
    for key, parameter in spec.search_space.searched.items():
        try:
            to_distribution(key, parameter)
        except ValueError as error:
            yield f"space.{key}", str(error)


def _fixed(spec: SweepSpec) -> Iterator[Mistake]:
    for complaint in rejected(spec, {}):
        key, _, rule = complaint.partition(": ")
        yield (f"fixed.{key}", rule) if key in TrainConfig.model_fields else ("fixed", complaint)


def rejected(spec: SweepSpec, parameters: dict[str, Any]) -> list[str]:
    """What the trainer rejects in `parameters`, one message a line; empty if it accepts them."""
    try:
        build_config({**spec.settings, **parameters}, "value")
    except ConfigError as error:
        return [line.removeprefix("value: ") for line in str(error).splitlines()]
    return []


def _conditions(spec: SweepSpec) -> Iterator[Mistake]:
    """Conditions that can never hold."""
    space = spec.search_space
    for key, parameter in spec.space.items():
        before = list(_never(space, key))
        yield from before
        if before or not parameter.when:
            continue
        for name, values in space.requirements(key).items():
            if not values:
                rule = f"can never apply: the conditions on {name} exclude one another"
                yield f"space.{key}.when", f"{rule}; correct one of them"


def _never(space: Space, key: str) -> Iterator[Mistake]:
    for name, values in space.parameters[key].conditions.items():
        where = f"space.{key}.when.{name}"
        read = [read_value(name, value) for value in values]
        if name not in space.parameters:
            constant = space.constant(name)
            if constant not in read:
                rule = f"never holds: {name} is {constant!r} in every trial"
                yield where, f"{rule}; search it, or remove {key} from space"
            continue
        parent = space.parameters[name]
        distribution = to_distribution(name, parent)
        if parent.choices is None and kind_of(name) == "float" and parent.step is None:
            rule = f"{name} hardly ever has exactly one value of its range"
            yield where, f"{rule}; give {name} choices or a step"
            continue
        for value, given in zip(read, values, strict=True):
            if not contains(distribution, value):
                ends = ", ".join(str(end) for end in parent.ends)
                yield where, f"{name} is never {given!r}; space.{name} holds {ends}"


def _ends(spec: SweepSpec) -> Iterator[Mistake]:
    """Both ends of every range and every choice, built into a config one at a time."""
    space = spec.search_space
    for key in space.searched:
        for value in space.boundary_values(key):
            for complaint in rejected(spec, space.example({key: value})):
                named = complaint.partition(":")[0]
                if named == key or named not in TrainConfig.model_fields:
                    yield f"space.{key}", complaint


def _joint(spec: SweepSpec) -> Iterator[Mistake]:
    """Ends that are legal one at a time but not together, tied settings included."""
    space, reported = spec.search_space, set()
    for corner in space.corners():
        for complaint in rejected(spec, corner):
            named = complaint.partition(":")[0]
            where = f"space.{named}" if named in spec.space else "space"
            if where not in reported:
                reported.add(where)
                values = ", ".join(f"{key} {value}" for key, value in corner.items())
                yield where, f"{complaint} (with {values})"


def _baselines(spec: SweepSpec) -> Iterator[Mistake]:
    for name, given in spec.baselines.items():
        found = list(_baseline(spec, f"baselines.{name}", given))
        yield from found
        if not found:
            parameters = spec.search_space.complete(spec.baseline_parameters()[name])
            for complaint in rejected(spec, parameters):
                yield f"baselines.{name}", complaint
    if spec.trials < len(spec.baselines):
        rule = f"must be at least the number of baselines, {len(spec.baselines)}"
        yield "trials", f"{rule}, but got {spec.trials}; raise it"


def _baseline(spec: SweepSpec, where: str, given: dict[str, Any]) -> Iterator[Mistake]:
    space = spec.search_space
    for key in given:
        if key not in spec.space:
            cure = nearest(key, spec.space) or "; give it a range in space, or set it under fixed"
            yield f"{where}.{key}", f"'{key}' is not searched{cure}"
    values = {key: read_value(key, value) for key, value in given.items() if key in spec.space}
    for key, parameter in spec.space.items():
        if parameter.tie is not None:
            if key in values:
                yield f"{where}.{key}", f"'{key}' is tied to {parameter.tie}; remove it"
        elif not space.applies(key, values):
            if key in values:
                rule = f"'{key}' does not apply to this baseline"
                yield f"{where}.{key}", f"{rule}, see space.{key}.when; remove it"
        elif key not in values:
            yield where, f"has no value for the searched '{key}'; add it"
        elif not contains(to_distribution(key, parameter), values[key]):
            ends = ", ".join(str(end) for end in parameter.ends)
            step = "" if parameter.step is None else f" in steps of {parameter.step:g}"
            rule = f"must lie in the range of space.{key} ({ends}{step}), but got {given[key]!r}"
            yield f"{where}.{key}", f"{rule}; widen the range or move the baseline"
