"""How many trials should share a card: measured, by letting 1, 2, 4, 8 … of them train side by side for some seconds.

Memory and cores say how many fit; only a measurement says how many are worth it. A card serves the small
kernels of several processes in turns, and under CUDA's Multi-Process Service (MPS) at once. All trials are started; the
first one trains alone, the first two, the first four, while the others wait, so that loading is paid for once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from fsdet.config import TrainConfig
from sweeps.errors import SweepError
from sweeps.resources.mps import MpsServer, mps_is_there
from sweeps.trial.failures import cause_of, first_line

WINDOW, SETTLING = 4.0, 1.0
"""Seconds for which steps are counted, and before them, in which clocks and caches settle."""
START_SECONDS = 600.0
"""Seconds for all trials to take their first steps."""
WARM_STEPS = 8
"""Steps before the first window: libraries choose their algorithms, and steps are recorded as graphs."""
WORTH = 1.05
"""A larger number of trials must give this many times the steps of a smaller one."""


@dataclass(frozen=True)
class Packing:
    """What was measured, and the best of it."""

    alone: float
    """Steps per second of one trial that has the card to itself."""
    rates: Mapping[tuple[int, bool], float]
    """Number of trials, whether under MPS -> steps per second of all together."""
    lost: str = ""
    """Why some trials could not be started; empty if all were."""
    clients: Sequence[int] = field(default_factory=tuple)
    """Processes that the MPS server served."""

    @property
    def best(self) -> tuple[int, bool]:
        """Number of trials and whether under MPS: the fewest that nearly give the most, MPS only if it gains."""
        most = max(self.rates.values())
        return min(key for key, rate in self.rates.items() if rate * WORTH >= most)

    def describe(self) -> str:
        """What was found, in a line."""
        trials, mps = self.best
        shown = ", ".join(
            f"{number}{' with MPS' if under else ''}: {rate:.1f}"
            for (number, under), rate in sorted(self.rates.items(), key=lambda item: item[0][::-1])
        )
        gain = self.rates[self.best] / self.alone
        how = f"{trials} on a card{' with MPS' if mps else ''}"
        text = (
            f"{how}, {gain:.1f} times the steps of one alone (steps/s by trials at once: {shown})"
        )
        return f"{text}; {self.lost}" if self.lost else text


def measure_packing(
    config: TrainConfig, most: int, print_line: Callable[[str], None], with_mps: bool | None = None
) -> Packing:
    """Measure which number of trials takes most steps per second.

    Args:
        config: of a trial; its images are prepared, and its run folder is not touched.
        most: trials that memory and cores have room for.
        print_line: prints a line of progress.
        with_mps: whether MPS is tried too; None: where its control program is there.

    Raises:
        SweepError: not even one trial could be started.
    """
    rates: dict[tuple[int, bool], float] = {}
    clients: list[int] = []
    lost = ""
    for under in (False, True):
        if under and (most == 1 or not (mps_is_there() if with_mps is None else with_mps)):
            break
        with ExitStack() as stack:
            server = stack.enter_context(MpsServer()) if under else None
            environment = {} if server is None else server.environment
            try:
                trials = stack.enter_context(TrialsAtOnce(config, most, environment))
            except SweepError as error:
                if not under:
                    raise
                lost = f"MPS could not be used ({error})"
                break
            lost = lost or trials.lost
            if server is not None:
                clients = server.clients()
                if not clients:
                    lost = "MPS served none of the trials"
                    break
            for number in numbers_up_to(trials.count):
                rates[number, under] = trials.rate(number)
                name = f"{number} trial{'s' if number > 1 else ''}{' with MPS' if under else ''}"
                print_line(f"  {name} at once: {rates[number, under]:.1f} steps/s")
    return Packing(rates[1, False], rates, lost, clients)


def numbers_up_to(most: int) -> list[int]:
    """1, 2, 4, 8 … and `most` itself."""
    found = []
    number = 1
    while number < most:
        found.append(number)
        number *= 2
    return [*found, most]


class TrialsAtOnce:
    """Trials of one configuration, each in a process of its own, that train when they are told to.

    Args:
        config: of all of them.
        most: number of processes; those that cannot start are left out.
        environment: of the processes, besides this one's.

    Raises:
        SweepError: not even the first one could be started.
    """

    def __init__(self, config: TrainConfig, most: int, environment: Mapping[str, str]) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="packing_")
        self._processes: list[tuple[BaseProcess, Connection]] = []
        context = multiprocessing.get_context("spawn")
        for number in range(most):
            here, there = context.Pipe()
            own = config.model_copy(
                update={
                    "checkpoint_dir": Path(self._scratch.name) / str(number),
                    "num_workers": 0,  # a process that is killed with its parent may not have children
                    "seed": config.seed + number,
                    "epochs": 10**6,
                    "stop_on_explosion": False,
                }
            )
            process = context.Process(
                target=_train_when_told, args=(there, own, dict(environment)), daemon=True
            )
            process.start()
            there.close()
            self._processes.append((process, here))
        self.lost = ""
        """Why some could not start; empty if all did."""
        try:
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise

    @property
    def count(self) -> int:
        """Number of trials that have started."""
        return len(self._processes)

    def rate(self, number: int) -> float:
        """Steps per second of the first `number` trials together, the others waiting."""
        chosen = self._processes[:number]
        begin = time.monotonic() + SETTLING
        for _, pipe in chosen:
            pipe.send((begin, begin + WINDOW))
        steps = 0
        for _, pipe in chosen:
            answer = _received(pipe, SETTLING + 10 * WINDOW)
            if not isinstance(answer, int):
                raise SweepError(f"a trial that shared the card ended: {answer}")
            steps += answer
        return steps / WINDOW

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        answers = [
            _received(pipe, max(0.0, deadline - time.monotonic())) for _, pipe in self._processes
        ]
        wrong = [str(answer) for answer in answers if answer != 0]
        alive = [p for p, answer in zip(self._processes, answers, strict=True) if answer == 0]
        if not alive:
            raise SweepError(f"the trial that is measured failed: {wrong[0]}")
        _stop(own for own, answer in zip(self._processes, answers, strict=True) if answer != 0)
        self._processes = alive
        if wrong:
            self.lost = f"of {len(answers)} trials only {len(alive)} could start ({wrong[0]})"

    def __enter__(self) -> TrialsAtOnce:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        _stop(self._processes)
        self._scratch.cleanup()


def _stop(processes: Iterable[tuple[BaseProcess, Connection]]) -> None:
    for process, _ in processes:
        process.kill()
        process.join()


def _received(pipe: Connection, seconds: float) -> Any:
    """What a trial sent; a text if it sent nothing in time, or died."""
    if not wait([pipe], seconds):
        return f"it did not answer within {seconds:.0f} s"
    try:
        return pipe.recv()
    except EOFError:
        return "its process died; often that means that it ran out of memory"


def _train_when_told(pipe: Connection, config: TrainConfig, environment: dict[str, str]) -> None:
    """Body of a process: send 0 when ready, then the number of steps in each window that comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it and ends this process
    threads = str(config.threads or 1)
    os.environ |= {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", **environment}
    try:
        take = _stepper(config)
        for _ in range(WARM_STEPS):
            take()
        pipe.send(0)
        while True:
            begin, end = pipe.recv()
            pipe.send(_count_steps(take, begin, end))
    except EOFError:  # the parent has ended
        return
    except Exception as error:
        pipe.send(first_line(cause_of(error)))


def _count_steps(take: Callable[[], None], begin: float, end: float) -> int:
    """Steps that end between two times of the clock that all processes share."""
    steps = 0
    while (now := time.monotonic()) < end:
        take()
        steps += now >= begin
    return steps


def _stepper(config: TrainConfig) -> Callable[[], None]:
    """A function that takes a step of the trainer, and waits for the values of an earlier one as the trainer does."""
    import torch

    from fsdet.data.sources import load_image_set
    from fsdet.training.build import build_state
    from fsdet.training.trainer import stepper

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return stepper(build_state(config, load_image_set(config, config.train_split), None))
