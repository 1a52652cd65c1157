"""Which device a run computes on, and in which precision."""

from __future__ import annotations

import torch

from fsdet.config import RunConfig
from fsdet.errors import ConfigError


def pick_device(name: str) -> str:
    """`auto` becomes the first CUDA device, or the CPU without one; anything else is returned unchanged."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def kind_of(device: str) -> str:
    """`cpu` or `cuda`, whichever card it is."""
    return device.partition(":")[0]


def usable_device(name: str) -> str:
    """As `pick_device`, and check that this machine has the device.

    Raises:
        ConfigError: this machine has no such device.
    """
    device = pick_device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: '{name}' cannot be used ({reason}); set device: auto, cpu or cuda:N"
        ) from None
    return device


def check_cuda(device: str) -> None:
    """Raise for a CUDA device that does not exist; unlike `usable_device`, does not initialise CUDA.

    Raises:
        ConfigError: with what to set instead.
    """
    number = int(device.partition(":")[2] or 0)
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"device: '{device}' does not exist ({torch.cuda.device_count()} CUDA devices found); "
            "set device: auto or cpu"
        )


def autocast_type(config: RunConfig, device: str) -> torch.dtype | None:
    """The type of mixed precision; None on a CPU, which is many times slower with it."""
    if config.mixed_precision == "off" or not device.startswith("cuda"):
        return None
    return torch.bfloat16 if config.mixed_precision == "bf16" else torch.float16
