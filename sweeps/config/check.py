"""Checks a sweep against the trainer, before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fsdet.config import TrainConfig
from fsdet.errors import MOST_LINES, FsdetError, more_mistakes
from sweeps.config import SweepSpec
from sweeps.config.error_format import Lines, location_of
from sweeps.config.paths import PATHS
from sweeps.config.rules import mistakes
from sweeps.errors import SweepError

FILES = (*PATHS, "support_encoder", "embed_dim", "reg_max")
"""Settings that name a file or a model, or must match one."""


def check_spec(spec: SweepSpec, lines: Lines | None = None) -> None:
    """Check every value that a trial can get with `TrainConfig`. Cheap; loads no torch.

    Args:
        spec: the sweep.
        lines: line of each dotted key in its file, for messages.

    Raises:
        SweepError: with one line per mistake.
    """
    found = [
        f"{location_of(spec.source, key, lines or {})}: {rule}" for key, rule in mistakes(spec)
    ]
    if len(found) > MOST_LINES:
        found[MOST_LINES:] = [more_mistakes(spec.source)]
    if found:
        raise SweepError("\n".join(dict.fromkeys(found)))


def missing_paths(spec: SweepSpec) -> list[str]:
    """Dotted keys of paths that the user has yet to fill in: they are null in the file."""
    empty = [key for key in PATHS if key in spec.fixed and spec.fixed[key] is None]
    if spec.fixed.get("dataset", "openmoji") != "openmoji" and not spec.fixed.get("data_root"):
        empty.append("data_root")
    return [f"fixed.{key}" for key in dict.fromkeys(empty)]


def check_files(spec: SweepSpec) -> None:
    """Check every checkpoint, dataset and name that a trial can use. Loads torch.

    Raises:
        SweepError: the first one that cannot be used.
    """
    from fsdet.train import check

    for config in configs(spec, FILES):
        try:
            check(config.model_copy(update={"device": "auto"}))
        except FsdetError as error:
            raise SweepError(f"{spec.source}: {error}") from None


def prepare_data(spec: SweepSpec) -> None:
    """Build the caches of images that the trials share, so that no trial has to wait for them.

    Raises:
        SweepError: the dataset is broken or too small.
    """
    from fsdet.train import prepare

    for config in configs(spec, ["train_scenes"]):
        try:
            prepare(config)
        except FsdetError as error:
            raise SweepError(f"{spec.source}: {error}") from None


def configs(spec: SweepSpec, keys: Iterable[str]) -> Iterator[TrainConfig]:
    """One config for each combination of values of the settings `keys`."""
    space, watched = spec.search_space, set(keys)
    branching = watched | {name for parameter in spec.space.values() for name in parameter.when}

    def values_of(key: str) -> list[Any]:
        return space.boundary_values(key) if key in branching else space.boundary_values(key)[-1:]

    seen = set()
    for parameters in space.configurations(values_of):
        config = spec.config(parameters)
        values = tuple(getattr(config, key) for key in sorted(watched))
        if values not in seen:
            seen.add(values)
            yield config
