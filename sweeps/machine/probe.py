"""Measures what one trial costs: the real trainer takes a few steps and evaluates twice.

It runs in a process of its own, which is killed when it is not wanted any more, and in a folder that
is removed. Only the length of the run is cut; batches, images and evaluations are those of a trial.
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
from multiprocessing.connection import Connection
from pathlib import Path

from fsdet.config import TrainConfig
from fsdet.errors import FsdetError
from sweeps.errors import SweepError
from sweeps.machine.cost import Measured, taken
from sweeps.trial.causes import cause_of, first_line
from sweeps.trial.worker import peak_memory

STEPS, WARM = 5, 3
"""Optimiser steps of each of the two epochs, and how many of the first are not counted."""
NICE = 15
"""Priority of Ray's workers; else the probe were faster than a trial where other work goes on."""
PATIENCE = 1800
"""Seconds after which the probe is given up."""


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


def measure(config: TrainConfig, patience: float = PATIENCE) -> Measured:
    """Run a short trial of `config` and measure it. Its images are made first, if need be.

    Raises:
        SweepError: it failed, died, or took longer than `patience` seconds.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="probe_") as scratch:
        process = context.Process(target=_run, args=(there, config, Path(scratch)), daemon=True)
        process.start()
        there.close()  # so that the child's death is heard
        try:
            if not here.poll(patience):
                raise SweepError(f"the probe took longer than {patience:g} s; it was stopped")
            answer = here.recv()
        except EOFError:
            process.join()
            how = f"exit code {process.exitcode}; -9 often means a lack of memory"
            raise SweepError(f"the probe's process died ({how})") from None
        finally:
            process.kill()
            process.join()
    if isinstance(answer, Measured):
        return answer
    raise SweepError(f"the probe failed: {answer}")


def _run(pipe: Connection, config: TrainConfig, scratch: Path) -> None:
    """The child: sends what it measured, or what went wrong in words."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends this process
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
    """Nothing is ever sent to the child: its pipe ends when the parent does."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)


class Timeline(logging.Handler):
    """Notes when the trainer logs a step, a checkpoint and an evaluation."""

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
        """Median of the steps behind the first few; the first of an epoch follows an evaluation."""
        times = self.steps
        return statistics.median(
            times[n] - times[n - 1] for n in times if n > WARM and n % STEPS != 1
        )


def _measure(config: TrainConfig) -> Measured:
    began = time.monotonic()
    import fsdet.training.trainer  # noqa: F401  loads torch and all else that is slow to load
    from fsdet.train import prepare, train

    imported = time.monotonic()
    prepare(config)
    times, ready = Timeline(), time.monotonic()
    logging.getLogger("fsdet.run").addHandler(times)
    train(config)
    rest = time.monotonic() - times.evaluations[-1]
    step = times.step_seconds()
    card, total = _card()
    return Measured(
        import_seconds=imported - began,
        startup_seconds=max(0.0, times.steps[1] - ready - step) + rest,
        step_seconds=step,
        save_seconds=times.saves[0] - times.steps[STEPS],
        evaluation_seconds=times.evaluations[0] - times.saves[0],
        final_seconds=times.evaluations[-1] - times.saves[1],
        host_bytes=peak_memory(),
        card_bytes=card,
        card_total=total,
    )


def _card() -> tuple[int, int]:
    """Most bytes taken of the GPU, and what it has; zeros without one."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return 0, 0
    free, total = torch.cuda.mem_get_info()
    reserved, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved()
    return taken(free, total, reserved, peak), int(total)
