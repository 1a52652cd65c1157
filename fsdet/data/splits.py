"""Splits the classes into base, validation and test classes.

`split_file` takes precedence over `base_classes` and `novel_classes`, and these over a seeded split. Classes are named,
or given by index if no class has that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fsdet.config import DataConfig
from fsdet.data.image_set import Split
from fsdet.errors import DataError, nearest, shown
from fsdet.reading import read_yaml

MIN_CLASSES = 2
"""Minimum number of classes of each half; not `n_way`, since val and test must not depend on it."""
MAX_DIGITS = 9
"""Of the index of a class; Python refuses to read numbers of some thousand digits."""


@dataclass(frozen=True)
class ClassSplit:
    """Class indices, each in ascending order. No novel class is a base class."""

    base: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def novel(self) -> tuple[int, ...]:
        """Classes of `val` and `test`."""
        return tuple(sorted({*self.val, *self.test}))

    @property
    def shared(self) -> bool:
        """Whether `val` and `test` have classes in common; their images are then divided."""
        return bool({*self.val} & {*self.test})

    def classes(self, split: Split, config: DataConfig) -> tuple[int, ...]:
        """The classes of one split."""
        if split in ("train", "base"):
            return self.base
        novel_split = config.novel_split if split == "shots" else split
        return self.val if novel_split == "val" else self.test


def split_classes(config: DataConfig, names: Sequence[str], present: Iterable[int]) -> ClassSplit:
    """Split the classes as configured.

    Args:
        config: `split_file`, `base_classes`, `novel_classes`, `novel_fraction`, `split_seed`.
        names: of all classes, by index.
        present: classes with instances; a seeded split and "all others" mean these.

    Raises:
        DataError: an unknown name, a class that is base and novel, no base or no novel class.
    """
    order = np.random.default_rng((config.split_seed, len(names))).permutation(len(names))
    with_instances = set(present)
    shuffled = [int(c) for c in order if c in with_instances]
    lists = _file_lists(config.split_file, names) if config.split_file else _given(config, names)
    base, val, test = lists.get("base", []), lists.get("val", []), lists.get("test", [])
    novel = lists.get("novel", [])
    if not (val or test or novel):
        given = {*base}
        rest = [c for c in shuffled if c not in given]
        novel = rest if base else rest[: max(1, round(len(rest) * config.novel_fraction))]
    if novel and not (val or test):
        chosen = {*novel}
        val, test = _halves([c for c in order.tolist() if c in chosen])
    taken = {*val, *test}
    base = base or [c for c in shuffled if c not in taken]
    split = ClassSplit(*(tuple(sorted({*part})) for part in (base, val, test)))
    _check(split, names)
    return split


def _halves(novel: list[int]) -> tuple[list[int], list[int]]:
    """Every other class; all classes in both if a half would be too small for an episode."""
    if len(novel) < 2 * MIN_CLASSES:
        return novel, novel
    return novel[::2], novel[1::2]


def _check(split: ClassSplit, names: Sequence[str]) -> None:
    both = sorted({*split.base} & {*split.novel})
    if both:
        raise DataError(
            f"base_classes: '{names[both[0]]}' is also novel; a class is either base or novel, remove it from one list"
        )
    for part, what in ((split.base, "base"), (split.val, "val"), (split.test, "test")):
        if not part:
            raise DataError(
                f"split: no class is left for '{what}'; give other base_classes, novel_classes, split_file or "
                "novel_fraction"
            )


def _given(config: DataConfig, names: Sequence[str]) -> dict[str, list[int]]:
    return {
        "base": _indices(config.base_classes, names, "base_classes"),
        "novel": _indices(config.novel_classes, names, "novel_classes"),
    }


def _file_lists(file: Path, names: Sequence[str]) -> dict[str, list[int]]:
    content = read_yaml(file, lambda text: DataError(f"split_file: {text}")).values
    allowed = ({"novel"}, {"novel", "base"}, {"val", "test"}, {"val", "test", "base"})
    if not isinstance(content, dict) or set(content) not in allowed:
        raise DataError(
            f"split_file: {file}: must have the keys val and test, or novel, and optionally base, each with a list of "
            f"class names, but has {shown(sorted(content) if isinstance(content, dict) else content)}"
        )
    return {key: _indices(value, names, f"{file}: {key}") for key, value in content.items()}


def _indices(wanted: Any, names: Sequence[str], source: str) -> list[int]:
    if not isinstance(wanted, list | tuple):
        raise DataError(f"{source}: must be a list of class names, but is {shown(wanted)}")
    known = {name: index for index, name in enumerate(names)}
    return [_index(str(name), known, source) for name in wanted]


def _index(name: str, names: Mapping[str, int], source: str) -> int:
    if name in names:
        return names[name]
    if name.isdecimal() and len(name) <= MAX_DIGITS and int(name) < len(names):
        return int(name)
    some = ", ".join(islice(names, 5))
    fix = nearest(name, names) or f"; the dataset has {len(names)} classes: {some}, …"
    raise DataError(f"{source}: unknown class '{name}'{fix}")
