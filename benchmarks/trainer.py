"""What a training step costs beyond its arithmetic: `python benchmarks/trainer.py`.

Three kinds of steps of the same model, interleaved in one run so that noise of the machine hits all alike:
*bare* is forward, loss, backward, clip by `torch.nn.utils.clip_grad_norm_` and AdamW on a batch in memory;
*with data* draws each batch anew; *full* is the trainer's own step: data, norms per module, verdicts, history.
Prints medians and their ratios to *bare*.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fsdet.config import TrainConfig
from fsdet.data.sources import load_image_set
from fsdet.engine.logs import StepHistory, log_step
from fsdet.engine.run import Run, build_run
from fsdet.engine.trainer import backward, forward, judge, optimizer_step, step_values

LOGGED = 10


def bare_step(run: Run, batch: object = None) -> None:
    run.detector.train()
    run.optimizer.zero_grad(set_to_none=True)
    forward(run, batch or run.source.batch(run.step, 1)).total.backward()  # type: ignore[arg-type]
    torch.nn.utils.clip_grad_norm_(run.detector.parameters(), run.config.gradient_clip_norm)
    run.optimizer.step()
    run.step += 1


def full_step(run: Run, history: StepHistory) -> None:
    losses = backward(run)
    norms = run.gradients.measure()
    run.gradients.clip_(norms[0], run.config.gradient_clip_norm)
    values = step_values(run, norms, losses, None)
    judge(run, values, measured=False)
    optimizer_step(run, finite=math.isfinite(values["grad/norm"]))
    run.step += 1
    history.append(values)
    log_step(values, LOGGED)


def seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    config = TrainConfig(
        n_way=8, n_query=1, batch_size=1, gradient_accumulation=1, lr=1e-3, device="cpu"
    )
    run = build_run(config, load_image_set(config, "train"), None)
    batch = run.source.batch(0, 1)
    times: dict[str, list[float]] = {"bare": [], "with data": [], "full": []}
    with tempfile.TemporaryDirectory() as folder:
        history = StepHistory(Path(folder), 0)
        for _ in range(rounds):
            times["bare"].append(seconds(lambda: bare_step(run, batch)))
            times["with data"].append(seconds(lambda: bare_step(run)))
            times["full"].append(seconds(lambda: full_step(run, history)))
        history.close()
    medians = {name: statistics.median(values[5:]) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:<10} {1000 * median:7.1f} ms   {median / medians['bare']:.3f} x bare")


if __name__ == "__main__":
    main()
