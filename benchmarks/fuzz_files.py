"""Images that are damaged, lie about their size, or are no files at all, and a training to work with; see `fuzz.py`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from fsdet.config import TrainConfig
from fsdet.config.parsing import save_config
from fsdet.data.__main__ import main as check_data
from fsdet.predict import main as predict
from fsdet.train import main as train

Command = Callable[[], int]
DESCRIPTION = "path: .\ntrain: images\nval: images\nnames: {0: cat, 1: dog, 2: fox, 3: hen}\n"
LABEL = "".join(f"{label} {0.2 + 0.15 * label:.2f} 0.5 0.3 0.3\n" for label in range(4))
SIDE = 64
"""Pixels of an image."""
SETTINGS: dict[str, Any] = {
    "dataset": "yolo",
    "data_root": "data",
    "cache_dir": "cache",
    "checkpoint_dir": "run",
    "embed_dim": 16,
    "image_size": SIDE,
    "support_size": 32,
    "support_encoder": "small_conv",
    "epochs": 2,
    "save_interval": 1,
    "n_episodes": 1,
    "batch_size": 1,
    "n_way": 1,
    "n_shot": 1,
    "n_query": 1,
    "eval_episodes": 2,
    "eval_draws": 1,
    "threads": 1,
    "device": "cpu",
}
"""Of the smallest training."""


def make_run() -> int:
    """The smallest real training, in the working directory: its dataset `data` and its run `run`."""
    write_dataset(Path("data"))
    save_config(TrainConfig(**SETTINGS), Path("c.yaml"))
    return called(train, ["--config", "c.yaml"])()


def write_dataset(folder: Path) -> None:
    """Six images of noise, each with four objects."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (6, SIDE, SIDE, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
        (folder / f"labels/{number}.txt").write_text(LABEL, encoding="utf-8")
    (folder / "data.yaml").write_text(DESCRIPTION, encoding="utf-8")


def called(main: Callable[[], int], arguments: list[str]) -> Command:
    """A command line that reads `sys.argv`."""

    def call() -> int:
        sys.argv[1:] = arguments
        return int(main())

    return call


def image_case(chance: Random, made: Path) -> Command:
    """A dataset, or inputs of a search, of which one or all images are not what they should be."""
    write_dataset(Path("data"))
    images = sorted(Path("data/images").iterdir())
    for path in images if chance.random() < 0.3 else [chance.choice(images)]:
        path.unlink()
        replace_image(chance, path)
    if chance.random() < 0.5:
        flags = ["--data_root", "data", "--cache_dir", "cache", "--sheet", "s.png"]
        return lambda: check_data(["check", "--dataset", "yolo", "--n_way", "1", *flags])
    supports = f"data/images/{chance.randrange(6)}.png"
    flags = ["--supports", supports, "--images", "data/images", "--device", "cpu"]
    weights = f"{made / 'run' / 'best.pt'}"
    return called(predict, ["--checkpoint", weights, *flags])


MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


def replace_image(chance: Random, path: Path) -> None:
    """Something odd under the name of an image."""
    match chance.randrange(10):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(chance.choice((path.name, "nowhere", "/dev/zero", "..", "/dev/stdin")))
        case 3:
            path.write_bytes(b"" if chance.random() < 0.5 else chance.randbytes(5000))
        case 4 | 5:
            path.write_bytes(claiming(chance, image_bytes(chance)))
        case _:
            data = image_bytes(chance)
            path.write_bytes(damaged(chance, data) if chance.random() < 0.8 else data)


def image_bytes(chance: Random) -> bytes:
    """An image of any format, mode and size that the format has."""
    size = chance.choice(((SIDE, SIDE), (1, 1), (1, 3000), (3000, 1), (9000, 9000)))
    image = Image.new("L", size, 7)
    for _ in range(20):
        file = io.BytesIO()
        with suppress(OSError, ValueError, KeyError):  # not every format has every mode
            kind = chance.choice(FORMATS if size[0] < 9000 else ("PNG", "GIF"))
            mode = chance.choice(MODES if size[0] < 9000 else ("1", "L"))
            exif = Image.Exif()
            exif[0x0112] = chance.choice((1, 3, 6, 8, 0, 99))
            image.convert(mode).save(file, kind, exif=exif)
            return file.getvalue()
    return b""


def claiming(chance: Random, data: bytes) -> bytes:
    """A PNG or the like whose header claims another size."""
    size = chance.choice((0, 1, 2**31 - 1, 2**32 - 1, 65_535, 9001, 8000)).to_bytes(4, "big")
    at = data.find(b"IHDR")
    at = at + 4 if at >= 0 else chance.randrange(1, max(2, min(len(data), 200)))
    return data[:at] + size + chance.choice((size, data[at + 4 : at + 8])) + data[at + 8 :]


def damaged(chance: Random, data: bytes) -> bytes:
    """`data` with bytes flipped, or a part zeroed, cut out or cut off, anywhere."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        if not changed:
            break
        at = chance.randrange(len(changed))
        length = chance.choice((1, 1, 8, 1000, len(changed)))
        match chance.randrange(5):
            case 0 | 1:
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                changed[at : at + length] = bytes(min(length, len(changed) - at))
            case 3:
                del changed[at : at + length]
            case _:
                changed[at:at] = chance.randbytes(chance.randint(1, 9))
    return bytes(changed)
