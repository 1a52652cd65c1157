"""What one optimiser step is given: its batches on the device, and what is to be measured besides."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fsdet.config import GradientConfig, TrainConfig
from fsdet.data.episodes import Request
from fsdet.structures import Batch
from fsdet.training.state import TrainState

LOG_INTERVAL = 10
"""Steps between two entries of the debug log, and between two measurements of the update ratio."""


@dataclass(frozen=True)
class StepInput:
    """A batch of a step, with what is known of its supports beforehand."""

    batch: Batch
    features: Float[Tensor, "episodes n_way n_shot features"] | None = None
    """Of its supports, if the trunk of their encoder is frozen."""


@dataclass(frozen=True)
class StepInputs:
    """Everything that a step depends on besides the state of the run."""

    parts: list[StepInput]
    """One for each batch whose gradients are accumulated."""
    with_shares: bool = False
    """Whether the gradient of each loss term and each scale is measured."""
    with_ratios: bool = False
    """Whether the update ratio of each module is measured."""

    def map(self, change: Callable[[Tensor], Tensor]) -> StepInputs:
        """The same with `change` applied to every tensor on the device."""
        parts = [
            StepInput(
                part.batch.map(change), None if part.features is None else change(part.features)
            )
            for part in self.parts
        ]
        return replace(self, parts=parts)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors on the device, in a fixed order."""
        found: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.map(keep)
        return found

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for steps that differ in the values of these tensors alone."""
        limits = [part.batch.targets.limit for part in self.parts]
        shapes = [(tensor.shape, tensor.dtype) for tensor in self.tensors]
        return (*limits, *shapes, self.with_shares, self.with_ratios)


def next_inputs(state: TrainState) -> StepInputs:
    """The inputs of the run's next step."""
    return replace(
        inputs_of_step(state, state.step),
        with_shares=shares_due(state.config, state.step, state.detector.frozen),
        with_ratios=is_logged(state.step + 1),
    )


def inputs_of_step(state: TrainState, step: int) -> StepInputs:
    """The batches of 0-based step `step`; those of the step behind it are prefetched."""
    requests, following = (step_batches(state.config, number) for number in (step, step + 1))
    parts = []
    for place, request in enumerate(requests):
        batch = state.batches.take(request, [*requests[place + 1 :], *following])
        parts.append(step_input(state, batch))
    return StepInputs(parts)


def step_input(state: TrainState, batch: Batch) -> StepInput:
    """A batch with the features of its supports, if they need not be computed anew."""
    frozen = state.frozen_features
    return StepInput(batch, None if frozen is None else frozen.look_up(batch.support_ids))


def is_logged(step: int) -> bool:
    """Whether this step (from 1) is logged at level INFO."""
    return step % LOG_INTERVAL == 1


def shares_due(config: GradientConfig, step: int, frozen: Collection[str]) -> bool:
    """Whether 0-based step `step` measures the gradient of each loss term and each scale."""
    interval = config.share_interval
    return interval is not None and step % interval == 0 and "backbone" not in frozen


def step_batches(config: TrainConfig, step: int) -> list[Request]:
    """The batches of 0-based optimiser step `step`, each as (first episode or image, count)."""
    epoch, within = divmod(step, config.steps_per_epoch)
    numbers = range(
        within * config.gradient_accumulation,
        min((within + 1) * config.gradient_accumulation, config.batches_per_epoch),
    )
    size = config.batch_size
    if config.stage == 1:
        return [((epoch * config.n_episodes + n) * size, size) for n in numbers]
    start = epoch * config.n_episodes
    return [(start + n * size, min(size, config.n_episodes - n * size)) for n in numbers]
