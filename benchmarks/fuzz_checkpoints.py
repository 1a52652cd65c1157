"""Checkpoints that are damaged or made up, in the hands of each of their readers; see `fuzz.py`."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from fuzz_files import called, damaged

from fsdet.checkpoint.content import load_checkpoint
from fsdet.command import run_command
from fsdet.config import TrainConfig
from fsdet.config.parsing import load_config
from fsdet.evaluate import main as evaluate
from fsdet.export import main as export
from fsdet.predict import main as predict
from fsdet.train import main as train
from sweeps.trial.identity import newest_checkpoint

Command = Callable[[], int]


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
