"""What a training step costs beyond its arithmetic, side by side in one run: `python benchmarks/trainer.py`.

The kinds of steps are interleaved, so that load on the machine affects all of them; prints medians and their ratios.

- `step`: *bare* is forward, loss, backward, clip by `torch.nn.utils.clip_grad_norm_` and AdamW on a batch in memory;
  *with data* draws a new batch for each step; *full* is the trainer's own step with norms, verdict and logs;
- `frozen`: stage 2 with a frozen support encoder, encoding every crop in each step or only once;
- `loading`: images a second that one thread loads, in the order of channels that a CPU wants and in that of a GPU;
- `memory`: memory of a run of `--steps` steps at its evaluations.

On a GPU add `--device cuda --image_size 640 --mixed_precision bf16`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch

from fsdet.config import TrainConfig
from fsdet.data.sources import load_image_set
from fsdet.report import EVALUATIONS_FILE
from fsdet.run_files import StepHistory
from fsdet.train import train
from fsdet.training.build import build_source, build_state
from fsdet.training.inputs import StepInput, step_input
from fsdet.training.logs import log_step
from fsdet.training.state import TrainState
from fsdet.training.step import autocast, forward
from fsdet.training.trainer import judge_step, steps_behind, take_step
from fsdet.training.values import StepValues

WARM_UP = 5
"""First rounds that do not count."""


def bare_step(run: TrainState, part: StepInput) -> None:
    run.detector.train()
    run.optimizer.zero_grad(set_to_none=True)
    with autocast(run.config, run.device):
        losses, _ = forward(run, part)
    losses.total.backward()
    torch.nn.utils.clip_grad_norm_(run.detector.parameters(), run.config.gradient_clip_norm)
    run.optimizer.step()


def next_part(run: TrainState, number: int) -> StepInput:
    """Episode `number`; the next one is prefetched."""
    return step_input(run, run.batches.take((number, 1), [(number + 1, 1)]))


def full_step(run: TrainState, history: StepHistory, outstanding: deque[StepValues]) -> None:
    outstanding.append(take_step(run))
    while len(outstanding) > steps_behind(run, run.config.total_steps):
        values, _ = judge_step(run, outstanding.popleft())
        history.append(values)
        log_step(values, level=10)


def interleaved(rounds: int, device: str, **calls: Callable[[], object]) -> None:
    """Time `calls` in turns; print medians and ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + WARM_UP):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in times.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"  {name:<12} {1000 * median:8.1f} ms   {median / first:.3f} x", flush=True)


def build(settings: dict[str, Any], **more: Any) -> TrainState:
    config = TrainConfig(**{**settings, **more})
    return build_state(config, load_image_set(config, "train"), None)


def measure_steps(settings: dict[str, Any], rounds: int) -> None:
    run = build(settings)
    part = step_input(run, run.batches.take((0, 1)).to(run.device))
    numbers = iter(range(10**9))
    outstanding: deque[StepValues] = deque()
    with tempfile.TemporaryDirectory() as folder:
        history = StepHistory(Path(folder), 0)
        interleaved(rounds, run.device, **{
            "bare": lambda: bare_step(run, part),
            "with data": lambda: bare_step(run, next_part(run, next(numbers))),
            "full": lambda: full_step(run, history, outstanding),
        })  # fmt: skip
        history.close()


def measure_frozen(settings: dict[str, Any], rounds: int, encoder: str, size: int) -> None:
    more = {"support_encoder": encoder, "support_size": size, "support_pretrained": False}
    anew, once = (build(settings, support_encoder_lr_mult=0.0, **more) for _ in range(2))
    anew.frozen_features = None
    batches = [once.batches.take((n, 1)).to(once.device) for n in range(4)]
    for batch in batches:
        step_input(once, batch)  # what is encoded once is not part of a step
    turns = iter(range(10**9))
    print(f" {encoder} at {size} px")
    interleaved(
        rounds,
        once.device,
        anew=lambda: bare_step(anew, StepInput(batches[next(turns) % 4])),
        once=lambda: bare_step(once, step_input(once, batches[next(turns) % 4])),
    )


def loading(config: TrainConfig, device: str) -> Callable[[], object]:
    """A function that loads the next batch in the order of channels that `device` wants; no device is needed."""
    source, turns = build_source(config, load_image_set(config, "train"), device), count()
    return lambda: source.batch(next(turns) * config.batch_size, config.batch_size)


def measure_loading(settings: dict[str, Any], rounds: int) -> None:
    for stage, size, what in ((1, 16, "16 images"), (2, 1, "an episode of 8 images")):
        config = TrainConfig(**{**settings, "stage": stage, "batch_size": size})
        print(f" stage {stage}: {what}")
        interleaved(rounds, "cpu", cpu=loading(config, "cpu"), gpu=loading(config, "cuda"))


def measure_memory(settings: dict[str, Any], steps: int) -> None:
    """A whole run with ten evaluations; what it holds at each of them, and the most it ever held."""
    with tempfile.TemporaryDirectory() as folder:
        epochs = {"epochs": 10, "n_episodes": steps // 10, "eval_episodes": 8}
        train(TrainConfig(**{**settings, **epochs, "checkpoint_dir": Path(folder)}))
        lines = (Path(folder) / EVALUATIONS_FILE).read_text(encoding="utf-8").splitlines()
    for line in map(json.loads, lines):
        print(f"  step {line['step']:6.0f}: {line['memory'] / 1e6:8.1f} MB", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux
    print(f"  most, memory-mapped images included: {peak / 1e3:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["step", "frozen"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--mixed_precision", default="off", choices=["off", "bf16", "fp16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--data_root", help="dataset in YOLO layout; none: the embedded data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {
        "n_way": 8, "n_query": 1, "batch_size": 1, "gradient_accumulation": 1, "lr": 1e-3, "threads": 1,
        "epochs": 10**6, "device": options.device, "image_size": options.image_size,
        "mixed_precision": options.mixed_precision, "compile": options.compile,
    }  # fmt: skip
    if options.data_root:
        settings |= {"dataset": "yolo", "data_root": options.data_root}
    for part in options.parts:
        print(part, flush=True)
        if part == "step":
            measure_steps(settings, options.rounds)
        elif part == "frozen":
            measure_frozen(settings, options.rounds, "small_conv", 48)
            measure_frozen(settings, options.rounds, "vit_small_patch14_dinov2.lvd142m", 98)
        elif part == "loading":
            measure_loading(settings, options.rounds)
        elif part == "memory":
            measure_memory(settings, options.steps)
        else:
            parser.error(f"{part}: must be step, frozen, loading or memory")
    if options.device == "cuda":
        print(f"peak GPU memory {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
