"""What a step measures: copied from the device all at once, and read when it is there, so that nothing waits for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from fsdet.config import MODULES
from fsdet.losses.criterion import Losses
from fsdet.training.state import TrainState

LOSS_SCALE = "grad/loss_scale"
"""Scale of the loss in half precision; measured only there."""


@dataclass(frozen=True)
class Measured:
    """What a step measured, on the device."""

    names: list[str]
    values: Float[Tensor, " values"]


@dataclass(frozen=True)
class StepValues:
    """The values of one step, on their way to the host."""

    step: int
    """Its number, from 1."""
    names: list[str]
    measured: Float[Tensor, " values"]
    """On the host; not to be read before `copied`."""
    copied: torch.cuda.Event | None
    """When the copy from the device is complete; None on a CPU, which copies nothing."""
    rates: dict[str, float]
    """Learning rates of the step."""

    def read(self) -> dict[str, float]:
        """All values by name. Waits if they are not there yet, which one step later they are."""
        if self.copied is not None:
            self.copied.synchronize()
        values = dict(zip(self.names, self.measured.tolist(), strict=True))
        out = {"step": float(self.step), **values}
        return out | derived_values(out) | self.rates


def measured_values(
    norms: Float[Tensor, " total_and_modules"],
    clipped: Float[Tensor, ""],
    losses: list[Losses],
    further: Mapping[str, Float[Tensor, ""]],
    ratios: Float[Tensor, " modules"] | None,
) -> Measured:
    """Everything measured in one step, in one tensor.

    Args:
        norms: total and per module, before clipping.
        clipped: total norm after clipping.
        losses: of each batch of the step.
        further: of `gradient_shares` on some steps, and of `fsdet.training.step.signals`.
        ratios: update ratio of each module, if measured.
    """
    terms = list(losses[0].raw)
    raw = torch.stack([torch.stack([part.raw[t].detach() for t in terms]) for part in losses])
    weighted = torch.stack(
        [torch.stack([part.weighted[t].detach() for t in terms]) for part in losses]
    )
    positives = torch.stack([part.positives for part in losses]).sum()
    names = [
        "grad/norm",
        *(f"grad/norm/{name}" for name in MODULES),
        "grad/norm_after",
        *(f"train/loss/{term}" for term in terms),
        *(f"train/weighted/{term}" for term in terms),
        "train/positives",
        *further,
        *(f"update_ratio/{name}" for name in MODULES if ratios is not None),
    ]
    pieces = [norms, clipped[None], raw.mean(0), weighted.mean(0), positives[None]]
    pieces += [value[None] for value in further.values()]
    pieces += [ratios] if ratios is not None else []
    return Measured(names, torch.cat([piece.float() for piece in pieces]))


def copy_values(state: TrainState, measured: Measured) -> StepValues:
    """The values of a step that was just taken; their copy to the host starts: the one copy from the device.

    Args:
        state: before its counter and its learning rates advance.
        measured: in the step.
    """
    on_host, copied = _to_host(measured.values)
    return StepValues(state.step + 1, measured.names, on_host, copied, _rates(state.optimizer))


def _to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy on the host, which is complete after the event; on a CPU the values themselves."""
    on_host = values.to("cpu", non_blocking=True)
    if not values.is_cuda:
        return on_host, None
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return on_host, copied


def _rates(optimizer: Optimizer) -> dict[str, float]:
    rates = {f"lr/{name}": 0.0 for name in MODULES}
    return rates | {f"lr/{group['name']}": group["lr"] for group in optimizer.param_groups}


def derived_values(measured: Mapping[str, float]) -> dict[str, float]:
    """Values that follow from those measured in a step."""
    weighted = "train/weighted/"
    terms = [name.removeprefix(weighted) for name in measured if name.startswith(weighted)]
    total = sum(measured[f"{weighted}{term}"] for term in terms)
    values = {"train/loss/total": total}
    for term in terms:
        part = measured[f"{weighted}{term}"]
        values[f"train/share/{term}"] = part / total if total else math.nan
    each = sum(measured.get(f"grad/term/{term}", 0.0) for term in terms)
    if each > 0:
        values |= {f"grad/share/{term}": measured[f"grad/term/{term}"] / each for term in terms}
    if "grad/clipped" not in measured:
        after, before = measured["grad/norm_after"], measured["grad/norm"]
        values["grad/clipped"] = float(after < before * (1 - 1e-6))
    return values
