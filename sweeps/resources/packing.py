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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

from fsdet.config import TrainConfig
from sweeps.errors import SweepError
from sweeps.resources.mps import mps_is_there, mps_server
from sweeps.trial.failures import cause_of, first_line

WINDOW, SETTLING = 4.0, 1.0
"""Seconds for which steps are counted, and before them, in which clocks and caches settle."""
START_SECONDS = 600.0
"""Seconds for all trials to take their first steps."""
DIED = "its process died; often that means that it ran out of memory"
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
    clients: Sequence[int] = ()
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
        SweepError: not even one trial could be trained.
    """
    with trials_at_once(config, most, {}) as trials:
        plain, lost = _rates(trials, numbers_up_to(trials.count), "", print_line)
    rates = {(number, False): rate for number, rate in plain.items()}
    clients: list[int] = []
    if most > 1 and (mps_is_there() if with_mps is None else with_mps):
        try:
            under, lost_under, clients = _measure_under_mps(config, most, print_line)
        except SweepError as error:
            under, lost_under = {}, f"MPS could not be used ({error})"
        rates |= {(number, True): rate for number, rate in under.items()}
        lost = lost or lost_under
    return Packing(rates[1, False], rates, lost, clients)


def _measure_under_mps(
    config: TrainConfig, most: int, print_line: Callable[[str], None]
) -> tuple[dict[int, float], str, list[int]]:
    """As `_rates`, of several trials under a server of our own, and the processes that it served.

    Raises:
        SweepError: the server or a trial could not be started, or it served none.
    """
    with mps_server() as server, trials_at_once(config, most, server.environment) as trials:
        clients = server.clients()
        if not clients:
            raise SweepError("it served none of the trials")
        several = [number for number in numbers_up_to(trials.count) if number > 1]
        return *_rates(trials, several, " with MPS", print_line), clients


def _rates(
    trials: TrialsAtOnce, numbers: Sequence[int], how: str, print_line: Callable[[str], None]
) -> tuple[dict[int, float], str]:
    """Steps per second by number of trials, and why some could not take part.

    Raises:
        SweepError: not even the first number of trials could be trained.
    """
    found: dict[int, float] = {}
    for number in numbers:
        try:
            found[number] = trials.rate(number)
        except SweepError as error:
            if not found:
                raise
            return found, f"{number} at once are too many ({error})"
        name = f"{number} trial{'s' if number > 1 else ''}{how}"
        print_line(f"  {name} at once: {found[number]:.1f} steps/s")
    return found, trials.lost


def numbers_up_to(most: int) -> list[int]:
    """1, 2, 4, 8 … and `most` itself."""
    found = []
    number = 1
    while number < most:
        found.append(number)
        number *= 2
    return [*found, most]


Trial: TypeAlias = tuple[BaseProcess, Connection]
"""A process that trains, and the pipe to it."""


@contextmanager
def trials_at_once(
    config: TrainConfig, most: int, environment: Mapping[str, str]
) -> Iterator[TrialsAtOnce]:
    """Trials of one configuration, each in a process of its own, that train when they are told to.

    Args:
        config: of all of them.
        most: number of processes; those that cannot start are left out.
        environment: of the processes, besides this one's.

    Raises:
        SweepError: not even one could be started.
    """
    with tempfile.TemporaryDirectory(prefix="packing_") as scratch:
        started: list[Trial] = []
        try:
            for number in range(most):
                own = _endless(config, number, Path(scratch) / str(number))
                started.append(_start(own, dict(environment)))
            yield _ready_ones(started)
        finally:
            for process, _ in started:
                process.kill()
                process.join()


@dataclass(frozen=True)
class TrialsAtOnce:
    """Trials that wait to be told when to train."""

    started: Sequence[Trial]
    lost: str = ""
    """Why some could not start; empty if all did."""

    @property
    def count(self) -> int:
        """Number of trials that have started."""
        return len(self.started)

    def rate(self, number: int) -> float:
        """Steps per second of the first `number` trials together, the others waiting.

        Raises:
            SweepError: one of them ended.
        """
        chosen = self.started[:number]
        begin = time.monotonic() + SETTLING
        try:
            for _, pipe in chosen:
                pipe.send((begin, begin + WINDOW))
        except OSError:
            raise SweepError(f"a trial that shared the card ended: {DIED}") from None
        answers = [_received(pipe, SETTLING + 10 * WINDOW) for _, pipe in chosen]
        if wrong := [answer for answer in answers if not isinstance(answer, int)]:
            raise SweepError(f"a trial that shared the card ended: {wrong[0]}")
        return float(sum(answers)) / WINDOW


def _endless(config: TrainConfig, number: int, folder: Path) -> TrainConfig:
    """`config` at a seed of its own, in `folder`, without an end."""
    changes = {
        "checkpoint_dir": folder,
        "num_workers": 0,  # a process that is killed with its parent may not have children
        "seed": config.seed + number,
        "epochs": 10**6,
        "stop_on_explosion": False,
    }
    return config.model_copy(update=changes)


def _start(config: TrainConfig, environment: dict[str, str]) -> Trial:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_train_when_told, args=(there, config, environment), daemon=True
    )
    process.start()
    there.close()  # so that the child's death is noticed
    return process, here


def _ready_ones(started: Sequence[Trial]) -> TrialsAtOnce:
    """The trials that have taken their first steps; the others are ended.

    Raises:
        SweepError: none has.
    """
    deadline = time.monotonic() + START_SECONDS
    answers = [_received(pipe, max(0.0, deadline - time.monotonic())) for _, pipe in started]
    ready = [trial for trial, answer in zip(started, answers, strict=True) if answer == 0]
    wrong = [answer for answer in answers if answer != 0]
    if not ready:
        raise SweepError(f"the trial that is measured failed: {wrong[0]}")
    for trial in started:
        if trial not in ready:
            trial[0].kill()  # what it holds of the card is for the others
    lost = f"of {len(started)} trials only {len(ready)} could start ({wrong[0]})" if wrong else ""
    return TrialsAtOnce(ready, lost)


def _received(pipe: Connection, seconds: float) -> Any:
    """What a trial sent; a text if it sent nothing in time, or died."""
    if not wait([pipe], seconds):
        return f"it did not answer within {seconds:.0f} s"
    try:
        return pipe.recv()
    except EOFError:
        return DIED


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
    except (EOFError, ConnectionError):  # the parent has ended
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
