"""Measures the cost of one trial: the real trainer runs a few steps and evaluates twice.

The probe runs in a separate process, which is killed afterwards, and in a temporary folder. Only the run is
shortened; batches, images and evaluations are those of a trial. `resources: {gpus: auto}` uses it to find
how many trials fit on a card, of which `sweeps.resources.packing` finds the best number.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from fsdet.config import TrainConfig
from fsdet.errors import FsdetError
from sweeps.config import SweepSpec
from sweeps.config.sections import AUTO
from sweeps.errors import SweepError
from sweeps.resources.cost import (
    TrialCost,
    costliest,
    peak_card_bytes,
    share_of_card,
    trials_on_a_card,
)
from sweeps.resources.machine import Machine
from sweeps.resources.packing import measure_packing
from sweeps.storage.folder import SweepFolder
from sweeps.trial.failures import cause_of, first_line
from sweeps.trial.messages import find_metric
from sweeps.trial.worker import peak_memory

STEPS, WARM = 5, 3
"""Optimiser steps of each of the two epochs, and the number of warm-up steps that are not counted."""
NICE = 15
"""Niceness of Ray's workers; the probe uses the same, so that timings are comparable."""
LIMIT_SECONDS = 1800
"""Timeout of the probe."""


def shortened(config: TrainConfig, folder: Path) -> TrainConfig:
    """`config` with two short epochs, each evaluated and saved, in `folder`."""
    batches = STEPS * config.gradient_accumulation
    changes = {
        "epochs": 2,
        "n_episodes": batches * (config.batch_size if config.stage > 1 else 1),
        "eval_interval": 1,
        "save_interval": 1,
        "checkpoint_dir": folder,
        "num_workers": 0,  # a process that is killed with its parent may not have children
        "stop_on_explosion": False,
    }
    return config.model_copy(update=changes)


def measure(config: TrainConfig, limit: float = LIMIT_SECONDS) -> TrialCost:
    """Run a short trial of `config` and measure it. Its images are prepared first, if necessary.

    Raises:
        SweepError: it failed, died, or took longer than `limit` seconds.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="probe_") as scratch:
        process = context.Process(target=_run, args=(there, config, Path(scratch)), daemon=True)
        process.start()
        there.close()  # so that the child's death is noticed
        try:
            if not here.poll(limit):
                raise SweepError(f"the probe took longer than {limit:g} s; it was stopped")
            answer = here.recv()
        except EOFError:
            process.join()
            how = f"exit code {process.exitcode}; -9 often means out of memory"
            raise SweepError(f"the probe's process died ({how})") from None
        finally:
            process.kill()
            process.join()
    if isinstance(answer, TrialCost):
        return answer
    raise SweepError(f"the probe failed: {answer}")


def _run(pipe: Connection, config: TrainConfig, scratch: Path) -> None:
    """Body of the child process: sends the measurements, or why it failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it and ends this process
    threading.Thread(target=_end_with_parent, args=(pipe, scratch), daemon=True).start()
    os.nice(NICE)
    os.environ |= {"OMP_NUM_THREADS": str(config.threads or 1), "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        pipe.send(_measure(shortened(config, scratch / "run")))
    except FsdetError as error:
        pipe.send(str(error))
    except Exception as error:
        pipe.send(first_line(cause_of(error)))


def _end_with_parent(pipe: Connection, scratch: Path) -> None:
    """End this process when its parent ends, which closes the pipe; nothing is ever sent through it."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)


class Timeline(logging.Handler):
    """Records the times at which the trainer logs a step, a checkpoint and an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, float] = {}
        self.saves: list[float] = []
        self.evaluations: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if record.funcName == "log_step" and isinstance(record.args, tuple):
            self.steps.setdefault(int(str(record.args[0])), now)
        elif record.funcName == "save_epoch":
            self.saves.append(now)
        elif record.funcName == "log_metrics":
            self.evaluations.append(now)

    def step_seconds(self) -> float:
        """Median without the warm-up steps and the first step of an epoch, which follows an evaluation."""
        times = self.steps
        return statistics.median(
            times[n] - times[n - 1] for n in times if n > WARM and n % STEPS != 1
        )


def _measure(config: TrainConfig) -> TrialCost:
    began = time.monotonic()
    import fsdet.training.trainer  # noqa: F401  loads torch and all else that is slow to load
    from fsdet.train import prepare, train

    imported = time.monotonic()
    prepare(config)
    times, ready = Timeline(), time.monotonic()
    logging.getLogger("fsdet.run").addHandler(times)
    result = train(config)
    rest = time.monotonic() - times.evaluations[-1]
    step = times.step_seconds()
    card, total = _card()
    return TrialCost(
        import_seconds=imported - began,
        startup_seconds=max(0.0, times.steps[1] - ready - step) + rest,
        step_seconds=step,
        save_seconds=times.saves[0] - times.steps[STEPS],
        evaluation_seconds=times.evaluations[0] - times.saves[0],
        final_seconds=times.evaluations[-1] - times.saves[1],
        host_bytes=peak_memory(),
        card_bytes=card,
        card_total=total,
        standard_error=find_metric(result.metrics, f"{config.best_metric}_se"),
    )


def _card() -> tuple[int, int]:
    """Peak bytes of the GPU and its memory; zeros without one."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return 0, 0
    free, total = torch.cuda.mem_get_info()
    reserved, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved()
    return peak_card_bytes(free, total, reserved, peak), int(total)


def with_gpus(spec: SweepSpec, gpus: float, mps: bool = False) -> SweepSpec:
    """`spec` with this many GPUs per trial, and with or without MPS."""
    resources = spec.resources.model_copy(update={"gpus": float(gpus), "mps": mps})
    return spec.model_copy(update={"resources": resources})


def with_measured_gpus(spec: SweepSpec, folder: SweepFolder) -> SweepSpec:
    """`spec` with the GPU share that an earlier session of the sweep in `folder` measured for `auto`."""
    if spec.resources.gpus != AUTO:
        return spec
    resources = folder.load_spec().resources
    return with_gpus(spec, resources.gpu_share, resources.mps)


def find_gpus(spec: SweepSpec, machine: Machine, print_line: Callable[[str], None]) -> SweepSpec:
    """`spec` with a number in place of `auto`; measured where the machine has a GPU.

    Args:
        spec: checked.
        machine: that the trials run on.
        print_line: prints a line of progress.

    Raises:
        SweepError: the measured trial failed, or the machine is a cluster.
    """
    if spec.resources.gpus != AUTO:
        return spec
    if not machine.gpus:
        return with_gpus(spec, 0)
    if not machine.here:
        raise SweepError(
            f"{spec.source}: resources.gpus: auto measures the card of this machine, not those of a "
            "cluster; give a number, such as the one that `--check --probe` finds on one of its nodes"
        )
    print_line("resources.gpus auto: measuring a trial (some steps, two evaluations)")
    return with_shared_card(spec, machine, measure(costliest(with_gpus(spec, 1))), print_line)


def with_shared_card(
    spec: SweepSpec, machine: Machine, measured: TrialCost, print_line: Callable[[str], None]
) -> SweepSpec:
    """`spec` with the share of a card at which its trials take most steps together.

    Args:
        spec: with `gpus: auto`.
        machine: this one, with a card.
        measured: on one trial.
        print_line: prints what is found.

    Raises:
        SweepError: a trial failed.
    """
    most = trials_that_fit(spec, machine, measured)
    if most == 1:
        print_line("resources.gpus auto: one trial on a card; memory or cores allow no more")
        return with_gpus(spec, 1)
    print_line(
        f"resources.gpus auto: up to {most} trials fit on a card; letting them train together"
    )
    packing = measure_packing(costliest(with_gpus(spec, 1)), most, print_line)
    print_line(f"resources.gpus auto: {packing.describe()}")
    trials, mps = packing.best
    return with_gpus(spec, share_of_card(trials), mps)


def trials_that_fit(spec: SweepSpec, machine: Machine, measured: TrialCost) -> int:
    """How many trials like the measured one fit on a card by its memory and by the cores of the machine."""
    cores = machine.cpus / machine.gpus / spec.resources.cpus
    return trials_on_a_card(measured.card_bytes, measured.card_total, cores)
