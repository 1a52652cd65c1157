"""Steps as CUDA graphs: the kernels of one step are recorded once and then launched as one.

A step of this detector is some two thousand small kernels, and at small images the host takes longer to launch them
than the device to run them. `fsdet.training.step.run_step` depends on its inputs, on the learning rates and on tensors
that it changes in place, so what one step launched is right for every other of its kind. A kind is what
`StepInputs.kind` says: the shapes of the batches, and what is measured besides.

The first steps of a kind run one kernel at a time: the libraries choose their algorithms, and the optimiser allocates
its moments. All are steps of the run; nothing is computed twice. The moving average of the weights is not recorded,
since its decay changes from step to step, and steps that measure gradient shares are too rare to be worth the memory.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from fsdet.errors import ConfigError, first_line
from fsdet.training.inputs import StepInputs
from fsdet.training.state import TrainState
from fsdet.training.step import run_step
from fsdet.training.values import Measured

log = logging.getLogger("fsdet.run")

WARM_UP = 3
"""Steps of a kind that run one kernel at a time before one is recorded."""
MOST_GRAPHS = 8
"""Kinds of steps that are recorded; further ones run one kernel at a time."""


class Recorder(Protocol):
    """Records what a function launches, without running it."""

    def beside(self) -> AbstractContextManager[None]:
        """Context in which every step runs, recorded or not."""

    def record(self, run: Callable[[], Measured]) -> tuple[Callable[[], None], Measured]:
        """A function that runs what `run` launches, and the tensors that it fills."""


class CudaRecorder:
    """Records CUDA graphs, which share one pool of memory."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """A stream of its own: autograd accumulates gradients on the stream that a weight was first used on."""
        before = torch.cuda.current_stream()
        self._stream.wait_stream(before)
        with torch.cuda.stream(self._stream):
            yield
        before.wait_stream(self._stream)

    def record(self, run: Callable[[], Measured]) -> tuple[Callable[[], None], Measured]:
        graph = torch.cuda.CUDAGraph()
        # the threads that prefetch batches may allocate pinned memory meanwhile
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            measured = run()
        return graph.replay, measured


@dataclass(frozen=True)
class Recorded:
    """A recorded step."""

    inputs: StepInputs
    """The tensors that it reads."""
    rates: Float[Tensor, " groups"]
    """The learning rates that it reads."""
    replay: Callable[[], None]
    measured: Measured
    """What it fills."""

    def run(self, inputs: StepInputs, rates: Sequence[float]) -> Measured:
        """The step with other inputs of its kind."""
        for own, given in zip(self.inputs.tensors, inputs.tensors, strict=True):
            own.copy_(given, non_blocking=True)
        on_host = torch.tensor(rates)
        if self.rates.is_cuda:
            on_host = on_host.pin_memory()
        self.rates.copy_(on_host, non_blocking=True)
        self.replay()
        return self.measured


class StepGraphs:
    """Runs the steps of a run, recorded where their kind is frequent.

    Args:
        run: takes a step, see `fsdet.training.step.run_step`.
        optimizer: that it uses.
        recorder: of the device.
        required: raise if a step cannot be recorded; otherwise the run goes on without, and a warning says so.
    """

    def __init__(
        self,
        run: Callable[[StepInputs], Measured],
        optimizer: Optimizer,
        recorder: Recorder,
        required: bool = False,
    ) -> None:
        self._run, self._optimizer, self._recorder = run, optimizer, recorder
        self._required, self._most = required, MOST_GRAPHS
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._recorded: dict[tuple[Any, ...], Recorded] = {}

    def run(self, inputs: StepInputs) -> Measured:
        """Take a step. What it returns is overwritten by the next one.

        Raises:
            RuntimeError: it could not be recorded, and that is required.
        """
        kind = inputs.kind
        with self._recorder.beside():
            if kind not in self._recorded and self._is_due(inputs, kind):
                self._try_to_record(inputs, kind)
            if kind in self._recorded:
                rates = [group["lr"] for group in self._optimizer.param_groups]
                return self._recorded[kind].run(inputs, rates)
            self._seen[kind] += 1
            return self._run(inputs)

    def _is_due(self, inputs: StepInputs, kind: tuple[Any, ...]) -> bool:
        frequent = self._seen[kind] >= WARM_UP and len(self._recorded) < self._most
        return frequent and not inputs.with_shares

    def _try_to_record(self, inputs: StepInputs, kind: tuple[Any, ...]) -> None:
        try:
            self._recorded[kind] = self._record(inputs)
        except RuntimeError as error:
            if self._required:
                raise
            self._most = 0
            log.warning(
                "a step cannot be recorded as a CUDA graph, and runs as it is: %s",
                first_line(error),
            )

    def _record(self, inputs: StepInputs) -> Recorded:
        own = inputs.map(torch.clone)
        rates = torch.zeros(len(self._optimizer.param_groups), device=own.tensors[0].device)
        with rates_from(self._optimizer, rates):
            replay, measured = self._recorder.record(partial(self._run, own))
        return Recorded(own, rates, replay, measured)


@contextmanager
def rates_from(optimizer: Optimizer, rates: Float[Tensor, " groups"]) -> Iterator[None]:
    """Let the optimiser read its learning rates from a tensor, so that a recorded step can get others."""
    before = [dict(group) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates.unbind(), strict=True):
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = rate.is_cuda
    try:
        yield
    finally:
        for group, old in zip(optimizer.param_groups, before, strict=True):
            group.update(old)


def build_graphs(state: TrainState) -> StepGraphs | None:
    """The graphs of a run on a GPU; None where the setting or another one rules them out, which is logged.

    Raises:
        ConfigError: `cuda_graph` is `on`, and there can be none.
    """
    config = state.config
    if config.cuda_graph == "off":
        return None
    if reason := config.graph_obstacle(state.device):
        if config.cuda_graph == "on":
            raise ConfigError(
                f"cuda_graph: 'on' is impossible with {reason}; set it to auto or off"
            )
        log.info("no CUDA graphs with %s", reason)
        return None
    step, required = partial(run_step, state), config.cuda_graph == "on"
    return StepGraphs(step, state.optimizer, CudaRecorder(), required)
