"""How busy a step keeps the card: `python benchmarks/gpu_step.py --image_size 512 --mixed_precision bf16`.

Side by side in one run, in blocks of steps that take turns, the device awaited at the end of each block only:

- *bare*: forward, loss, backward, clip by `torch.nn.utils.clip_grad_norm_` and AdamW on a batch in memory;
- *full*: the trainer's own step with new batches, norms, signals and verdict, one kernel at a time;
- *again*: the same once more, for what chance gives;
- *graph*: the trainer's own step as CUDA graphs.

Printed are milliseconds a step, the ratio to *bare*, the share of the time in which the card works (by torch's
profiler), and how many batches a second the loader makes by itself. Without a card it runs on the CPU, without *graph*.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from trainer import bare_step, build

from fsdet.training.inputs import step_input
from fsdet.training.state import TrainState
from fsdet.training.trainer import stepper

SETTLE = 20
"""Steps before the first block: algorithms are chosen, and steps are recorded."""


def wait(device: str) -> None:
    """Until the device has done what it was asked to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def block(take: Callable[[], object], steps: int, device: str) -> float:
    """Seconds a step."""
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        take()
    wait(device)
    return (time.perf_counter() - began) / steps


def busy(take: Callable[[], object], steps: int, device: str) -> float | None:
    """Share of the wall time in which kernels run; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        seconds = block(take, steps, device) * steps
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return covered(kernels) / 1e6 / seconds


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals: kernels may run side by side."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def batches_per_second(run: TrainState, seconds: float = 5.0) -> float:
    """What the loader makes when nothing else is done."""
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        following = [(number + ahead, 1) for ahead in (1, 2)]
        run.batches.take((number, 1), following)
        number += 1
    wait(run.device)
    return number / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40, help="of a block")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--n_way", type=int, default=8)
    parser.add_argument("--data_root", help="dataset in YOLO layout; none: the embedded data")
    parser.add_argument("--mixed_precision", default="off", choices=["off", "bf16"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {
        "n_way": options.n_way, "n_query": 1, "batch_size": 1, "gradient_accumulation": 1, "lr": 1e-3,
        "threads": 1, "epochs": 10**6, "device": options.device, "image_size": options.image_size,
        "mixed_precision": options.mixed_precision,
    }  # fmt: skip
    if options.data_root:
        settings |= {"dataset": "yolo", "data_root": options.data_root}
    bare = build(settings)
    part = step_input(bare, bare.batches.take((0, 1)))
    takes: dict[str, Callable[[], object]] = {
        "bare": lambda: bare_step(bare, part),
        "full": stepper(build(settings, cuda_graph="off")),
        "again": stepper(build(settings, cuda_graph="off")),
    }
    if options.device.startswith("cuda"):
        takes["graph"] = stepper(build(settings, cuda_graph="on"))
    for take in takes.values():
        block(take, SETTLE, options.device)
    times: dict[str, list[float]] = {name: [] for name in takes}
    for _ in range(options.rounds):
        for name, take in takes.items():
            times[name].append(block(take, options.steps, options.device))
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(f"{options.image_size} px, {options.n_way} images a step, {options.mixed_precision}")
    for name, median in medians.items():
        share = busy(takes[name], options.steps, options.device)
        shown = "" if share is None else f"   card busy {share:.0%}"
        print(f"  {name:<6} {1e3 * median:8.2f} ms   {median / medians['bare']:.3f} x{shown}")
    print(f"  the loader alone: {batches_per_second(bare):.0f} batches/s", flush=True)
    if options.device.startswith("cuda"):
        print(f"  peak GPU memory {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
