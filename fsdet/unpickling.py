"""Reads `.pt` files safely: no code of the file runs, and none of its classes is instantiated.

torch's restricted unpickler (`weights_only`) builds tensors and plain values. Classes that a program has declared safe
are removed while a file is read, so that only torch's own list applies; inert stand-ins replace the modules in a file.
The archive is checked before (`fsdet.archive`): torch does not notice damage.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsdet.archive import check_archive, check_claims
from fsdet.files import open_regular

MAX_MODULES = 10_000
"""Limit for the modules of a network; YOLOv8n has 225, a module that contains itself would never end."""
MAX_DEPTH = 64
"""Limit for the nesting of modules."""


class StandIn:
    """Replaces every object whose class or function is not on torch's own list.

    It accepts any arguments, and stores the state it receives without using it.
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
        Exception: of `fsdet.archive`, or whatever torch raises for a file that it cannot read; see `reason`.
    """
    check_archive(path)
    check_claims(path)
    with _allowing([]):
        return torch.load(path, map_location="cpu", weights_only=True)


def load_with_stand_ins(path: Path) -> Any:
    """The same, with a `StandIn` for each object of any other class or function.

    Raises:
        Exception: see `load_plain`.
    """
    with open_regular(path) as file:
        is_archive = zipfile.is_zipfile(file)  # torch before version 1.6 wrote none
    if is_archive:
        check_archive(path)
    with _allowing([]):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    with _allowing([(StandIn, name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)


def module_tensors(module: StandIn) -> dict[str, Tensor]:
    """Parameters and buffers of a pickled `nn.Module` with the names and in the order of its `state_dict()`.

    Raises:
        ValueError: its modules are too many or nested too deeply, or contain themselves.
    """
    tensors: dict[str, Tensor] = {}
    waiting = [("", 0, module)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return tensors
        prefix, level, module = waiting.pop()
        for table in ("_parameters", "_buffers"):
            tensors |= {prefix + name: t for name, t in _named(module, table, Tensor)}
        children = [
            (f"{prefix}{name}.", level + 1, child)
            for name, child in _named(module, "_modules", StandIn)
        ]
        if children and level == MAX_DEPTH:
            break
        waiting += reversed(children)
    raise ValueError(
        f"its modules are nested more than {MAX_DEPTH} deep, are more than {MAX_MODULES}, or contain themselves"
    )


def _named(module: StandIn, table: str, kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """The entries of one of a module's tables; an empty one holds None."""
    entries = module.state.get(table)
    # the class's own method: an object of a file may carry another under the same name
    for name, value in dict.items(entries) if isinstance(entries, dict) else ():
        if isinstance(name, str) and isinstance(value, kind):
            yield name, value


def dense(tensor: Tensor) -> Tensor:
    """The values of a tensor, without attributes that the file added to it.

    Raises:
        ValueError: it has no plain values.
    """
    if tensor.is_meta or tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        raise ValueError("it holds tensors without plain values")
    return Tensor.detach(tensor)


def reason(error: Exception, path: Path) -> str:
    """One line for a message; torch itself would advise to read a refused file without the restriction."""
    if path.is_dir():
        return "it is a folder"
    if path.is_file() and not is_saved(path):
        return "it is not a file that torch.save wrote"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds objects that only code of the file could build"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def is_saved(path: Path) -> bool:
    """Whether the first bytes are those of a file that `torch.save` writes, now or before version 1.6."""
    with path.open("rb") as file:
        return file.read(2)[:1] in (b"P", b"\x80")


@contextmanager
def _allowing(allowed: list[Any]) -> Iterator[None]:
    """Allow the restricted unpickler to build `allowed` besides torch's own list, and nothing else."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)
