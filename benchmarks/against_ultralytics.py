"""Images per second compared with Ultralytics' own trainer: `python benchmarks/against_ultralytics.py DATA_ROOT`.

DATA_ROOT is a dataset in YOLO layout, such as coco128; it is only read. Both train a YOLOv8n backbone with P2
to P5 on the same images, of the same size, in the same batches, data included, validation off. Ours is base
training (stage 1), which embeds 48 support crops a batch on top. Their epochs alternate; medians are printed.
Ultralytics runs twice: with its default augmentation, and with mirroring only, which is the augmentation of ours. On a
card: `--device cuda --image_size 640 --batch 16 --mixed_precision bf16 --workers 8`; Ultralytics then trains with AMP.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from gpu_step import wait
from ultralytics.utils import SETTINGS

from fsdet.config import TrainConfig
from fsdet.data.sources import load_image_set
from fsdet.training.build import build_state
from fsdet.training.state import TrainState
from fsdet.training.trainer import stepper

for tracker in ("mlflow", "raytune"):
    dict.__setitem__(SETTINGS, tracker, False)  # in this process only, not in the user's file
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402

MIRROR_ONLY = dict.fromkeys(
    ("mosaic", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "erasing"), 0.0
)


def copied(data_root: Path, folder: Path) -> Path:
    """A data.yaml in `folder` with links to the images: Ultralytics writes beside the labels."""
    description = yaml.safe_load((data_root / "data.yaml").read_text(encoding="utf-8"))
    shutil.copytree(data_root / "labels", folder / "labels")
    (folder / "images").symlink_to(data_root.resolve() / "images")
    text = yaml.safe_dump({**description, "path": str(folder)})
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return folder / "data.yaml"


def theirs(data: Path, options: argparse.Namespace, **more: Any) -> float:
    """Images per second of the second epoch of Ultralytics' trainer."""
    began: list[float] = []
    ended: list[float] = []

    def note(times: list[float]) -> None:
        wait(options.device)
        times.append(time.perf_counter())

    trainer = DetectionTrainer(overrides={
        "model": "yolov8n-p2.yaml", "data": str(data), "imgsz": options.image_size, "batch": options.batch,
        "nbs": options.batch, "epochs": 2, "device": options.device, "workers": options.workers, "cache": "ram",
        "amp": options.mixed_precision != "off",
        "val": False, "plots": False, "save": False, "verbose": False, "project": str(data.parent / "run"),
        "exist_ok": True, **more,
    })  # fmt: skip
    trainer.add_callback("on_train_start", lambda _: torch.set_num_threads(1))
    trainer.add_callback("on_train_epoch_start", lambda _: note(began))
    trainer.add_callback("on_train_epoch_end", lambda _: note(ended))
    trainer.train()
    return len(trainer.train_loader.dataset) / (ended[1] - began[1])


def peak_memory(device: str) -> float:
    """Gigabytes of the card since the last call; 0 on a CPU."""
    if device == "cpu":
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return peak


def ours(run: TrainState, images: int) -> float:
    """Images per second of our trainer over about `images` images."""
    steps = round(images / run.config.batch_size)
    take = stepper(run)
    for _ in range(5):
        take()
    wait(run.device)
    began = time.perf_counter()
    for _ in range(steps):
        take()
    wait(run.device)
    return steps * run.config.batch_size / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--mixed_precision", default="off", choices=["off", "bf16"])
    parser.add_argument("--workers", type=int, default=0, help="of Ultralytics' loader")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig(
        dataset="yolo", data_root=options.data_root, stage=1, batch_size=options.batch, epochs=10**6,
        gradient_accumulation=1, image_size=options.image_size, device=options.device,
        mixed_precision=options.mixed_precision,
    )  # fmt: skip
    image_set = load_image_set(config, "train")
    run = build_state(config, image_set, None)
    rates: dict[str, list[float]] = {}
    memory: dict[str, float] = {}

    def measure(name: str, call: Callable[[], float]) -> None:
        peak_memory(options.device)
        rates.setdefault(name, []).append(call())
        memory[name] = peak_memory(options.device)

    with tempfile.TemporaryDirectory() as folder:
        data = copied(options.data_root, Path(folder) / "data")
        for _ in range(options.rounds):
            measure("Ultralytics", lambda: theirs(data, options))
            measure("  mirror only", lambda: theirs(data, options, **MIRROR_ONLY))
            measure("fsdet", lambda: ours(run, 128))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        held = f"   {memory[name]:.2f} GB" if memory[name] else ""
        print(f"{name:<14} {rate:7.1f} images/s   {rate / medians['Ultralytics']:.2f} x{held}")


if __name__ == "__main__":
    main()
