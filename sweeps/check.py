"""A sweep held against the trainer and the machine, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fsdet.config import DataConfig, HealthConfig, TrainConfig
from fsdet.config_file import build_config
from fsdet.errors import ConfigError, FsdetError, nearest
from sweeps.errors import SweepError
from sweeps.machine import Machine
from sweeps.space import contains, read_value, to_distribution
from sweeps.spec import OWNED, SweepSpec
from sweeps.spec_file import PATHS, place

SEARCHABLE_DATA = {"batch_size", "n_episodes", "train_scenes"}
"""Data settings that change how a trial learns, not what it is measured on."""
UNSEARCHABLE = {
    "seed": "trials that differ in their seed cannot be compared; set it under fixed",
    **dict.fromkeys(
        [*(set(DataConfig.model_fields) - SEARCHABLE_DATA), "stage"],
        "trials must be measured alike; set it under fixed",
    ),
    **dict.fromkeys(HealthConfig.model_fields, "it changes no trial; set it under fixed"),
}
"""Settings that must be the same for all trials, with the reason."""


def check_spec(spec: SweepSpec, lines: dict[str, int] | None = None) -> None:
    """Hold every value that a trial can get against `TrainConfig`. Cheap; loads no torch.

    Args:
        spec: the sweep.
        lines: line of each dotted key in its file, for messages.

    Raises:
        SweepError: with one line per mistake.
    """
    mistakes = [
        f"{place(spec.source, key, lines or {})}: {complaint}" for key, complaint in _mistakes(spec)
    ]
    if mistakes:
        raise SweepError("\n".join(mistakes))


def _mistakes(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    """Dotted key and complaint of each mistake; later rules assume that earlier ones hold."""
    names = [*_unknown(spec), *_misplaced(spec)]
    yield from names
    if names:
        return
    ranges = list(_ranges(spec))
    yield from ranges
    if ranges:
        return
    yield from _baselines(spec)
    if spec.trials < len(spec.baselines):
        rule = f"must be at least the number of baselines, {len(spec.baselines)}"
        yield "trials", f"{rule}, but got {spec.trials}; raise it"


def _unknown(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    known = list(TrainConfig.model_fields)
    for group, keys in (("space", spec.space), ("fixed", spec.fixed)):
        for key in keys:
            if key not in known:
                cure = nearest(key, known) or "; `python -m fsdet.train --help` lists all settings"
                yield f"{group}.{key}", f"unknown setting '{key}'{cure}"


def _misplaced(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    for group, keys in (("space", spec.space), ("fixed", spec.fixed)):
        for key in keys:
            if key in OWNED:
                yield f"{group}.{key}", f"the sweep sets this itself: {OWNED[key]}"
    for key in spec.space:
        if key in spec.fixed:
            yield f"fixed.{key}", "is searched in space too; remove one of them"
        if key.startswith("explosion_"):
            yield (
                f"space.{key}",
                "what counts as an explosion must be the same for all trials; set it under fixed",
            )
        if key in UNSEARCHABLE:
            yield f"space.{key}", UNSEARCHABLE[key]


def _ranges(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    """Both ends of every range and every choice, built into a config one at a time."""
    try:
        build_config(spec.settings, "fixed")
    except ConfigError as error:
        yield from (_split(line) for line in str(error).splitlines())
        return
    for key, parameter in spec.space.items():
        try:
            to_distribution(key, parameter)
        except ValueError as error:
            yield f"space.{key}", str(error)
            continue
        others = {k: p.ends[-1] for k, p in spec.space.items() if k != key}
        for value in parameter.ends:
            yield from _rejected(spec, f"space.{key}", {**others, key: value}, only=key)


def _rejected(
    spec: SweepSpec, where: str, parameters: dict[str, Any], only: str | None = None
) -> Iterator[tuple[str, str]]:
    """What the trainer says against `parameters`; of the key `only` or of none in particular."""
    try:
        build_config({**spec.settings, **parameters}, "value")
    except ConfigError as error:
        for line in str(error).splitlines():
            complaint = line.removeprefix("value: ")
            named = complaint.partition(":")[0]
            if only is None or named == only or named not in TrainConfig.model_fields:
                yield where, complaint


def _split(line: str) -> tuple[str, str]:
    """`fixed: key: complaint` as dotted key and complaint."""
    key, _, complaint = line.removeprefix("fixed: ").partition(": ")
    return (f"fixed.{key}", complaint) if complaint else ("fixed", key)


def _baselines(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    distributions = spec.distributions()
    for name, values in spec.baselines.items():
        where = f"baselines.{name}"
        for key in values:
            if key not in spec.space:
                cure = (
                    nearest(key, spec.space) or "; give it a range in space, or set it under fixed"
                )
                yield f"{where}.{key}", f"'{key}' is not searched{cure}"
        for key, parameter in spec.space.items():
            if key not in values:
                yield where, f"lacks a value for the searched '{key}'; add it"
                continue
            value = read_value(key, values[key])
            if not contains(distributions[key], value):
                ends = ", ".join(str(end) for end in parameter.ends)
                rule = f"must lie in the range of space.{key} ({ends}), but got {values[key]!r}"
                yield f"{where}.{key}", f"{rule}; widen the range or move the baseline"
        if set(values) == set(spec.space):
            yield from _rejected(spec, where, dict(values))


def to_fill_in(spec: SweepSpec) -> list[str]:
    """Dotted keys that stand in the file as null and wait for a path of the user's."""
    empty = [key for key in PATHS if key in spec.fixed and spec.fixed[key] is None]
    if spec.fixed.get("dataset", "openmoji") != "openmoji" and not spec.fixed.get("data_root"):
        empty.append("data_root")
    return [f"fixed.{key}" for key in dict.fromkeys(empty)]


def check_machine(spec: SweepSpec, machine: Machine) -> None:
    """Whether this machine can carry one trial.

    Raises:
        SweepError: it has too few CPUs or GPUs.
    """
    for name, wanted, there in (
        ("cpus", spec.resources.cpus, machine.cpus),
        ("gpus", spec.resources.gpus, machine.gpus),
    ):
        if wanted > there:
            raise SweepError(
                f"{spec.source}: resources.{name}: a trial asks for {wanted:g}, but this machine "
                f"has {there}; set resources.{name} to at most {there}"
            )


def check_files(spec: SweepSpec) -> None:
    """Look at the checkpoint, the dataset and the names that the trials will use. Loads torch.

    Raises:
        SweepError: the first one that cannot be used.
    """
    from fsdet.train import check

    try:
        check(_example(spec).model_copy(update={"device": "auto"}))
    except FsdetError as error:
        raise SweepError(f"{spec.source}: {error}") from None


def prepare_data(spec: SweepSpec) -> None:
    """Build the cache of images that the trials share, so that no trial has to wait for it.

    Raises:
        SweepError: the dataset is broken or too small.
    """
    from fsdet.train import prepare

    try:
        prepare(_example(spec))
    except FsdetError as error:
        raise SweepError(f"{spec.source}: {error}") from None


def _example(spec: SweepSpec) -> TrainConfig:
    """The config of one possible trial."""
    return spec.config({key: parameter.ends[-1] for key, parameter in spec.space.items()})
