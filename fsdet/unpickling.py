"""The one place that reads a `.pt` file: no code of the file runs, and none of its classes is built.

torch's restricted unpickler (`weights_only`) makes tensors and plain values. What a program has declared safe for it
is taken away while we read: only torch's own list counts, and inert stand-ins where a file holds modules.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_MODULES = 10_000
"""Modules that a network may have; YOLOv8n has 225, and a module that contains itself has no end."""
MOST_LEVELS = 64
"""Modules that may lie within one another."""


class StandIn:
    """Takes the place of every object whose class or function is not on torch's own list.

    It can be called and built with anything, keeps the state it is given, and does nothing with it.
    """

    __slots__ = ("state",)

    state: dict[str, Any]

    def __new__(cls, *_: object) -> StandIn:
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}


def load_plain(path: Path) -> Any:
    """Tensors and plain values, on the CPU; a file that holds anything else is refused.

    Raises:
        Exception: whatever torch raises for a file that it cannot read; see `reason`.
    """
    with _allowing([]):
        return torch.load(path, map_location="cpu", weights_only=True)


def load_with_stand_ins(path: Path) -> Any:
    """The same, with a `StandIn` for each object of any other class or function.

    Raises:
        Exception: see `load_plain`.
    """
    with _allowing([]):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    with _allowing([(StandIn, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)


def module_tensors(module: StandIn) -> dict[str, Tensor]:
    """Parameters and buffers of a pickled `nn.Module` under the names, and in the order, of its `state_dict()`.

    Raises:
        ValueError: it has no end, or lies too deep.
    """
    tensors: dict[str, Tensor] = {}
    waiting = [("", 0, module)]
    for _ in range(MOST_MODULES):
        if not waiting:
            return tensors
        prefix, level, module = waiting.pop()
        for table in ("_parameters", "_buffers"):
            tensors |= {prefix + name: t for name, t in _named(module, table, Tensor)}
        children = [
            (f"{prefix}{name}.", level + 1, child)
            for name, child in _named(module, "_modules", StandIn)
        ]
        if children and level == MOST_LEVELS:
            break
        waiting += reversed(children)
    raise ValueError(
        f"its modules lie more than {MOST_LEVELS} deep, are more than {MOST_MODULES}, or contain themselves"
    )


def _named(module: StandIn, table: str, kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """The entries of one of a module's tables; an empty one holds None."""
    entries = module.state.get(table)
    # the class's own method: an object of a file may carry another under the same name
    for name, value in dict.items(entries) if isinstance(entries, dict) else ():
        if isinstance(name, str) and isinstance(value, kind):
            yield name, value


def dense(tensor: Tensor) -> Tensor:
    """Its values alone, without attributes that the file gave it.

    Raises:
        ValueError: it has no plain values.
    """
    if tensor.is_meta or tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        raise ValueError("it holds tensors without plain values")
    return Tensor.detach(tensor)


def reason(error: Exception) -> str:
    """One line; torch's own advice for a refused file is to read it without this guard."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds objects that only code of the file could build"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def _allowing(allowed: list[Any]) -> Iterator[None]:
    """Let the restricted unpickler build `allowed` beside torch's own list, and nothing else."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)
