"""Images and checkpoints that are damaged, lie about their size, or are no files at all; see `fuzz.py`."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from fsdet.checkpoint import load_checkpoint
from fsdet.command import run_command
from fsdet.config import TrainConfig
from fsdet.config.parsing import load_config, save_config
from fsdet.data.__main__ import main as check_data
from fsdet.evaluate import main as evaluate
from fsdet.export import main as export
from fsdet.predict import main as predict
from fsdet.train import main as train
from sweeps.trial.identity import newest_checkpoint

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


def checkpoint_case(chance: Random, made: Path) -> Command:
    """A checkpoint that is damaged or was made up, in the hands of each of its readers."""
    kind = chance.choice(("resume", "export", "load", "evaluate", "sweep", "yolo"))
    whole = kind in ("resume", "sweep")
    source = made / "run" / ("stage2_epoch0001.pt" if whole else "best.pt")
    Path("new").mkdir()
    path = Path("new/stage2_epoch0001.pt")
    match chance.randrange(5):
        case 0 | 1:
            path.write_bytes(damaged(chance, source.read_bytes()))
            if chance.random() < 0.3:
                return lambda: run_command(lambda: same_content(path, source))
        case 2 | 3:
            state = torch.load(source, weights_only=True)
            change_content(chance, state)
            torch.save(state, path)
        case _:
            path.write_bytes(other_archive(chance, source.read_bytes()))
    return reader_of(kind, f"{path}", made)


def same_content(path: Path, source: Path) -> int:
    """Read a damaged checkpoint; what is not refused must be what was written."""
    found, written = load_checkpoint(path), torch.load(source, weights_only=True)
    return 0 if f"{plain(found)}" == f"{plain(written)}" else 9


def plain(part: Any) -> Any:
    """The same with the values of its tensors."""
    if isinstance(part, dict):
        return {key: plain(value) for key, value in part.items()}
    return (part.dtype, part.tolist()) if isinstance(part, torch.Tensor) else part


def reader_of(kind: str, path: str, made: Path) -> Command:
    """The command that reads the checkpoint at `path`."""
    data = ["--data_root", f"{made / 'data'}", "--cache_dir", "cache"]
    if kind == "export":
        return called(export, [path, "small.pt"])
    if kind == "evaluate":
        return called(evaluate, ["--checkpoint", path, "--device", "cpu", *data[:2]])
    if kind == "load":
        images = f"{made / 'data' / 'images'}"
        flags = ["--supports", f"{images}/0.png", "--images", images, "--device", "cpu"]
        return called(predict, ["--checkpoint", path, *flags])
    run = ["--config", f"{made / 'c.yaml'}", "--checkpoint_dir", "new", *data]
    if kind == "sweep":
        return lambda: resumed_trial(load_config(made / "c.yaml"), Path(path).parent)
    return called(train, [*run, "--yolo_weights" if kind == "yolo" else "--resume", path])


def resumed_trial(config: TrainConfig, folder: Path) -> int:
    """What the worker of a trial reads before it trains on."""
    warned: list[str] = []
    own = config.model_copy(update={"checkpoint_dir": folder})
    newest = newest_checkpoint(own, warned.append)
    return 0 if newest is not None or len(warned) == 1 else 9


def change_content(chance: Random, state: dict[str, Any]) -> None:
    """Change one to three values of a checkpoint, in place."""
    for _ in range(chance.randint(1, 3)):
        places = list(places_in(state))
        part, key = chance.choice(places if chance.random() < 0.5 else places[:20])
        match chance.randrange(6):
            case 0:
                del part[key]
            case 1:
                part[chance.choice((*part, "foreign", 7, None))] = part[key]
            case 2 | 3 if isinstance(part[key], torch.Tensor):
                part[key] = other_tensor(chance, part[key])
            case _:
                part[key] = chance.choice(ODD)


def places_in(part: Any) -> Iterator[tuple[dict[Any, Any], Any]]:
    """Every dictionary in a checkpoint with each of its keys, the outer ones first."""
    waiting = [part]
    for part in waiting:
        yield from ((part, key) for key in part)
        waiting += [value for value in part.values() if isinstance(value, dict)]


def other_tensor(chance: Random, own: torch.Tensor) -> torch.Tensor:
    """A tensor that is not what `own` should be."""
    kinds = (torch.int64, torch.float64, torch.complex64, torch.bool, torch.uint8, torch.bfloat16)
    match chance.randrange(7):
        case 0:
            return own.to(chance.choice(kinds))
        case 1:
            return own.double() * chance.choice((np.nan, np.inf, 1e300, -1.0))
        case 2:
            return torch.zeros(1).expand(chance.choice(((9,), own.shape, (2**40,), (2**20, 2**20))))
        case 3:
            return own[None]
        case 4:
            return torch.zeros(0)
        case 5:
            return torch.sparse_coo_tensor(
                torch.zeros(1, 1, dtype=torch.int64), torch.ones(1), (9,)
            )
        case _:
            return torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.quint8)


LOOP: list[Any] = []
LOOP.append(LOOP)
ODD = (
    *(None, -1, 0, 2**63, 2**9999, float("nan"), float("inf"), 1e300, True, "x", "\ud800\x1b[31m"),
    *(b"x", [], {}, (), [None], {"x": {}}, {1: 2}, LOOP, "x" * 2_000_000, [0] * 2_000_000),
    *(torch.zeros(2), torch.tensor(float("nan")), {"x": torch.zeros(2)}),
)


def other_archive(chance: Random, data: bytes) -> bytes:
    """A zip file that `torch.save` would not write."""
    source = zipfile.ZipFile(io.BytesIO(data))
    entries = {name: source.read(name) for name in source.namelist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    kind = chance.randrange(8)
    if kind == 0:
        del entries[chance.choice(sorted(entries))]
    elif kind == 1:
        name = chance.choice(sorted(entries))
        entries[name] = damaged(chance, entries[name])  # with a checksum that fits
    elif kind == 2:
        entries[pickled] = chance.choice(PICKLES)
    elif kind == 3:
        entries[chance.choice(("../x", "/../../x", "x" * 9999, "archive/data.pkl"))] = b"x"
    elif kind == 4:
        entries[chance.choice(sorted(entries))] = bytes(1 << 20)
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if kind == 5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        if kind == 6:
            archive.writestr(pickled, entries[pickled])
    return huge_claim(chance, file.getvalue()) if kind == 7 else file.getvalue()


def huge_claim(chance: Random, data: bytes) -> bytes:
    """An archive whose directory claims that a part is larger than it is."""
    changed = bytearray(data)
    at = data.rfind(b"PK\1\2", 0, chance.randrange(data.find(b"PK\1\2") + 4, len(data)))
    size = chance.choice((0, 1 << 30, 0xFFFFFFFE, 0xFFFFFFFF)).to_bytes(4, "little")
    field = chance.choice((20, 24, 42))  # compressed size, size, place
    changed[at + field : at + field + 4] = size
    return bytes(changed)


PICKLES = (
    b"",
    b"\x80\x02.",
    b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # a text of a terabyte
    b"\x80\x02r" + (2**31).to_bytes(4, "little") + b".",  # a memo of 2**31
    b"\x80\x02]r" + (2**28).to_bytes(4, "little") + b".",
    b"\x80\x02" + b"(" * 100_000 + b".",
    b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",  # lists within lists
    b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
    pickle.dumps({"format": 1}, 2),
    pickle.dumps([[]] * 1_000_000, 2),
)
