"""Everything that a checkpoint must hold: keys and their types, and weights that fit its settings and are finite."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, NonNegativeInt, ValidationError
from torch import Tensor

from fsdet.archive import finite
from fsdet.config import MODULES, TrainConfig
from fsdet.config.parsing import build_config
from fsdet.errors import ConfigError
from fsdet.models.detector import Detector

ARCHITECTURE = ("support_encoder", "embed_dim", "reg_max", "support_size")
"""Settings that decide the names and shapes of the weights."""
MOMENTS = {"adamw": ("step", "exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
"""Optimiser -> what it stores of each parameter that it has moved."""
MAX_VALUES = 1_000_000
"""Limit for the plain values in a checkpoint; a list that contains itself, or the same list many times, exceeds it."""
RNG_BYTES = len(torch.get_rng_state())

Tensors = dict[str, InstanceOf[Tensor]]


class Part(BaseModel):
    """Base of the parts: types are not converted, unknown keys are those of another version."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)


class Settings(Part):
    """The part of the config by which a checkpoint is judged; `TrainConfig` checks the rest where it is used."""

    stage: Literal[1, 2, 3]
    support_encoder: str
    embed_dim: int
    reg_max: int
    support_size: int
    optimizer: Literal["adamw", "sgd"] = "adamw"


class Content(Part):
    """What every checkpoint holds: of a run, of its best epoch, exported."""

    config: Settings
    stage: Literal[1, 2, 3]
    step: NonNegativeInt
    epoch: NonNegativeInt = 0
    detector: Tensors
    ema: Tensors | None = None
    criterion: Tensors
    trained_on: list[str]
    changed: list[dict[str, Any]] = []


class OptimizerState(Part):
    """State of AdamW or SGD; its groups are those of the config."""

    state: dict[NonNegativeInt, Tensors]


class Monitor(Part):
    """State of `fsdet.health.stability.StabilityMonitor`."""

    reference: float | None = None
    above: list[bool]
    module_norms: dict[str, list[float]]
    losses: list[float]
    best_loss: float
    counts: dict[str, int]
    seen: NonNegativeInt
    nonfinite: bool
    worst: float
    peak_norm: float


class StoredSeries(Part):
    """One series of `StoredSpikes`."""

    window: list[float]
    spikes: NonNegativeInt
    steps: NonNegativeInt


class StoredSpikes(Part):
    """State of `fsdet.health.spikes.SpikeScores`."""

    norm: StoredSeries
    loss: StoredSeries


class StoredExplosion(Part):
    """`fsdet.report.Explosion`."""

    model_config = ConfigDict(extra="forbid")

    reason: str
    step: int
    module: str
    detail: str


class StoredBest(Part):
    """`fsdet.report.Best`."""

    model_config = ConfigDict(extra="forbid")

    epoch: NonNegativeInt
    step: NonNegativeInt
    metrics: dict[str, float]
    full: bool = True


class Resumable(Content):
    """What a checkpoint with an optimiser holds besides, so that its stage can resume."""

    optimizer: OptimizerState
    scaler: dict[str, float]
    clipping: Tensors = Field(default_factory=dict)
    stability: Monitor
    spikes: StoredSpikes | None = None
    gradient_peaks: dict[str, float]
    explosion: StoredExplosion | None
    best: StoredBest | None
    inputs: dict[str, str] = Field(default_factory=dict)
    rng: InstanceOf[Tensor]


def check_content(state: Mapping[Any, Any]) -> None:
    """Refuse the content of a checkpoint that lacks something or cannot be used.

    Args:
        state: as it was saved.

    Raises:
        ValueError: the first thing that is wrong, in one line.
    """
    check_size(state)
    try:
        content = (Resumable if "optimizer" in state else Content).model_validate(state)
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}") from None
    expected = expected_weights(*(getattr(content.config, key) for key in ARCHITECTURE))
    for name, tensors in (("detector", content.detector), ("ema", content.ema)):
        if tensors is not None:
            check_weights(name, tensors, expected)
    check_values("criterion", content.criterion)
    if isinstance(content, Resumable):
        check_training_state(content)


def check_size(state: object) -> None:
    """Refuse values that are too many to be walked, written or shown.

    Raises:
        ValueError: they are more than `MAX_VALUES`.
    """
    waiting = [state]
    for _ in range(MAX_VALUES):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
    raise ValueError(f"it holds more than {MAX_VALUES} values, or a list that contains itself")


def check_weights(part: str, tensors: Tensors, expected: Mapping[str, Tensor]) -> None:
    """Refuse weights whose names, shapes or types are not those of the detector, or that are not finite.

    Raises:
        ValueError: with the first tensor that is wrong.
    """
    if odd := sorted(expected.keys() ^ tensors.keys()):
        what = "is missing" if odd[0] in expected else "is no part of it"
        raise ValueError(
            f"its weights do not fit this version of the detector: {part}.{odd[0]} {what}"
        )
    for name, own in expected.items():
        stored = tensors[name]
        same_kind = stored.is_floating_point() == own.is_floating_point()
        if stored.shape != own.shape or not same_kind:
            raise ValueError(
                f"its weights do not fit this version of the detector: {part}.{name} must be "
                f"{describe(own)}, but is {describe(stored)}"
            )
    check_values(part, tensors)


def check_values(part: str, tensors: Tensors) -> None:
    """Refuse tensors that are not finite, or that have more values than the file holds.

    Raises:
        ValueError: with the first such tensor.
    """
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{part}.{name} has more values ({describe(tensor)}) than the file holds"
            )
        if not finite(tensor):
            raise ValueError(
                f"{part}.{name} is not finite: the run had exploded; name an earlier checkpoint"
            )


def check_training_state(content: Resumable) -> None:
    """Refuse an optimiser or random state that training cannot continue from.

    Raises:
        ValueError: with what is wrong.
    """
    for number, tensors in content.optimizer.state.items():
        check_moments(f"optimizer.state.{number}", tensors, content.config.optimizer)
    for name, tensor in content.clipping.items():
        if not tensor.is_floating_point() or not (tensor >= 0).all():
            raise ValueError(f"clipping.{name}: must hold numbers of at least 0")
    if content.stability.module_norms.keys() != {*MODULES}:
        raise ValueError(f"stability.module_norms: must have the keys {', '.join(MODULES)}")
    if content.rng.dtype != torch.uint8 or content.rng.shape != (RNG_BYTES,):
        raise ValueError(f"rng: must be ({RNG_BYTES},) uint8, but is {describe(content.rng)}")
    try:
        torch.Generator().set_state(content.rng)
    except RuntimeError:
        raise ValueError("rng: not a state of torch's random numbers") from None


def check_moments(part: str, tensors: Tensors, optimizer: str) -> None:
    """Refuse the state of one parameter in an optimiser that cannot step from it.

    Raises:
        ValueError: with what is wrong.
    """
    names = MOMENTS[optimizer]
    if tensors.keys() != {*names}:
        listed = " and ".join(names).replace(" and ", ", ", len(names) - 2)
        raise ValueError(f"{part}: must hold {listed}")
    check_values(part, tensors)
    fit = all(tensor.is_floating_point() for tensor in tensors.values())
    if optimizer == "sgd":
        if not fit:
            raise ValueError(f"{part}.momentum_buffer: must be floating point")
        return
    fit &= tensors["exp_avg"].shape == tensors["exp_avg_sq"].shape
    if not fit or tensors["step"].numel() != 1:
        raise ValueError(f"{part}: step, exp_avg and exp_avg_sq do not fit each other")
    if (tensors["exp_avg_sq"] < 0).any():
        raise ValueError(f"{part}.exp_avg_sq: must be at least 0")


def describe(tensor: Tensor) -> str:
    """Shape and type."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


@lru_cache(maxsize=4)
def expected_weights(
    support_encoder: str, embed_dim: int, reg_max: int, support_size: int
) -> dict[str, Tensor]:
    """Name -> tensor without values of a detector of this architecture; takes no memory.

    Raises:
        ValueError: a setting is out of range, or there is no such encoder.
    """
    settings = dict(
        zip(ARCHITECTURE, (support_encoder, embed_dim, reg_max, support_size), strict=True)
    )
    try:
        config = build_config({**settings, "support_pretrained": False}, "config")
        return _built_on("meta", config)
    except ConfigError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _built_on(device: str, config: TrainConfig) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        return dict(Detector(config).state_dict())
