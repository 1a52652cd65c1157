"""The search space: which parameters apply to a configuration (`when`), and the values of tied ones.

A condition refers to another searched setting or to a fixed one. A condition on a parameter that does not
apply is false.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from fsdet.config import TrainConfig
from sweeps.config.distribution import (
    boundary_values_of,
    contains,
    grid_of,
    suggest,
    to_distribution,
)
from sweeps.config.parameter import Parameter, kind_of, read_value

CORNERS = 2000
"""Most configurations at the ends of the ranges that are checked."""


class CycleError(ValueError):
    """Parameters that depend on one another in a circle."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = list(keys)
        super().__init__(f"{' needs '.join([*keys, keys[0]])}; remove one of these conditions")


@dataclass(frozen=True)
class Space:
    """The searched parameters beside the settings that are the same for all trials."""

    parameters: Mapping[str, Parameter]
    fixed: Mapping[str, Any]

    @property
    def searched(self) -> dict[str, Parameter]:
        """The parameters that are not tied to another one."""
        return {key: p for key, p in self.parameters.items() if p.tie is None}

    def order(self) -> list[str]:
        """All keys, each after those that it depends on, otherwise in the order of the file.

        Raises:
            CycleError: parameters depend on one another in a circle.
        """
        done: dict[str, None] = {}

        def visit(key: str, path: tuple[str, ...]) -> None:
            if key in path:
                raise CycleError(path[path.index(key) :])
            if key in done:
                return
            for parent in self.parents(key):
                visit(parent, (*path, key))
            done[key] = None

        for key in self.parameters:
            visit(key, ())
        return list(done)

    def parents(self, key: str) -> list[str]:
        """The other parameters that `key` depends on."""
        parameter = self.parameters[key]
        names = [*parameter.when, *([parameter.tie] if parameter.tie is not None else [])]
        return [name for name in names if name in self.parameters]

    def constant(self, key: str) -> Any:
        """The value of a setting that is not searched, the same in every trial."""
        default = TrainConfig.model_fields[key].get_default(call_default_factory=True)
        return read_value(key, self.fixed.get(key, default))

    def applies(self, key: str, chosen: Mapping[str, Any]) -> bool:
        """Whether the conditions of `key` hold where the searched settings are `chosen`."""
        for name, values in self.parameters[key].conditions.items():
            if name in self.parameters and name not in chosen:
                return False
            value = chosen[name] if name in self.parameters else self.constant(name)
            if value not in [read_value(name, v) for v in values]:
                return False
        tie = self.parameters[key].tie
        return tie is None or tie in chosen

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Suggest every searched setting that applies (define-by-run), and compute the tied ones."""

        def values_of(key: str) -> list[Any]:
            return [suggest(trial, key, to_distribution(key, self.parameters[key]))]

        return next(self.configurations(values_of))

    def configurations(self, values_of: Callable[[str], Sequence[Any]]) -> Iterator[dict[str, Any]]:
        """Every configuration, tied settings included, with searched ones from `values_of`."""

        def extend(keys: list[str], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if not keys:
                yield self.complete(chosen)
                return
            key, rest = keys[0], keys[1:]
            values = values_of(key) if self.applies(key, chosen) else [...]
            for value in values:
                yield from extend(rest, chosen if value is ... else {**chosen, key: value})

        searched = self.searched
        yield from extend([key for key in self.order() if key in searched], {})

    def complete(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """`chosen` and the tied settings that follow from it, in the order of the file."""
        values = dict(chosen)
        for key, parameter in self.parameters.items():
            if parameter.tie is not None and self.applies(key, chosen):
                values[key] = derive(key, parameter, chosen[parameter.tie])
        first = [key for key in self.parameters if key in values]
        return {key: values[key] for key in [*first, *values]}

    def accepts(self, chosen: Mapping[str, Any]) -> bool:
        """Whether `chosen` could be suggested: exactly the settings that apply, each within its range."""
        applying = [key for key in self.searched if self.applies(key, chosen)]
        return set(applying) == set(chosen) and all(
            contains(to_distribution(key, self.parameters[key]), chosen[key]) for key in applying
        )

    def requirements(self, key: str) -> dict[str, list[Any]]:
        """Searched setting -> values that it may have where `key` applies, ancestors included."""
        found: dict[str, list[Any]] = {}
        seen, left = {key}, [key]
        while left:
            one = left.pop()
            for name, values in self.parameters[one].conditions.items():
                if name in self.parameters:
                    _narrow(found, name, [read_value(name, value) for value in values])
            left += (fresh := [name for name in self.parents(one) if name not in seen])
            seen.update(fresh)
        return found

    def example(self, forced: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One configuration in which the parameters in `forced` apply and have these values."""
        wanted = {name: v[0] for key in forced or {} for name, v in self.requirements(key).items()}
        wanted.update(forced or {})

        def values_of(key: str) -> list[Any]:
            return [wanted[key] if key in wanted else self.boundary_values(key)[-1]]

        return next(self.configurations(values_of))

    def boundary_values(self, key: str) -> list[Any]:
        """The values of one searched parameter that must be legal for all to be."""
        return boundary_values_of(to_distribution(key, self.parameters[key]))

    def corners(self) -> Iterator[dict[str, Any]]:
        """Configurations of boundary values: all, or the outermost and a random sample if they are too many."""
        ends = {key: self.boundary_values(key) for key in self.searched}
        some = list(itertools.islice(self.configurations(ends.__getitem__), CORNERS + 1))
        if len(some) <= CORNERS:
            yield from some
            return
        yield from self.configurations(lambda key: ends[key][:1])
        yield from self.configurations(lambda key: ends[key][-1:])
        chance = random.Random(0)
        for _ in range(CORNERS):
            yield from self.configurations(lambda key: [chance.choice(ends[key])])

    def grid(self, limit: int) -> list[dict[str, Any]]:
        """Every configuration of a finite space, at most `limit` of them."""

        def values_of(key: str) -> list[Any]:
            values = grid_of(to_distribution(key, self.parameters[key]))
            assert values is not None
            return values

        return list(itertools.islice(self.configurations(values_of), limit))

    def possible(self, key: str) -> list[Any]:
        """Boundary values that setting `key` can have, and its constant if it does not always apply."""
        if key not in self.parameters:
            return [self.constant(key)]
        parameter = self.parameters[key]
        tie = parameter.tie
        values = (
            self.boundary_values(key)
            if tie is None
            else [derive(key, parameter, value) for value in self.boundary_values(tie)]
        )
        sometimes = parameter.when or (tie is not None and self.parameters[tie].when)
        return [*values, *([self.constant(key)] if sometimes else [])]


def _narrow(found: dict[str, list[Any]], name: str, values: list[Any]) -> None:
    found[name] = [v for v in found[name] if v in values] if name in found else values


def derive(key: str, parameter: Parameter, value: Any) -> Any:
    """Value of the tied setting `key` if the setting that it is tied to has `value`."""
    if parameter.times is None:
        return read_value(key, value)
    product = parameter.times * value
    return round(product) if kind_of(key) == "int" else product
