"""No reader of the product runs code of a file that it is given."""

import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch.utils import collect_env
from ultralytics.nn.tasks import DetectionModel

import fsdet
import fsdet.evaluate
import fsdet.export
import fsdet.predict
import fsdet.train
from fsdet.errors import FsdetError
from fsdet.models.backbone import Backbone, load_yolo_weights
from sweeps.run import main as run_sweeps


class Calls:
    """Is unpickled by calling a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


LAYERS = {
    "nc": 1,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]]],
    "head": [],
}


def hooked(code: str) -> nn.Module:
    """A network whose `state_dict()` calls a hook."""
    module = nn.Linear(1, 1)
    module._state_dict_pre_hooks = Calls(dict, [(0, Calls(partial, eval, code))])
    return module


WAYS: dict[str, Callable[[str], Any]] = {
    "an activation": lambda code: Calls(DetectionModel, {"activation": code, **LAYERS}),
    "eval": lambda code: Calls(eval, code),
    "exec": lambda code: Calls(exec, code),
    "a hook": hooked,
    "a function of torch": lambda code: Calls(
        collect_env.run,
        [sys.executable, "-c", code.removeprefix("__import__('torch').nn.SiLU() or ")],
    ),
    "a type": lambda code: Calls(
        torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (code,), {}
    ),
}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture(params=WAYS)
def bad(request, tmp_path: Path, marker: Path) -> Path:
    """A file that writes `marker` where its code runs; in every place that a reader looks at."""
    evil = WAYS[request.param](f"__import__('pathlib').Path({str(marker)!r}).touch()")
    content = {"format": 1, "config": evil, "model": evil, "ema": evil, "stage": 1}
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(content, folder / "stage1_epoch0001.pt")
    Image.new("RGB", (64, 64)).save(folder / "picture.png")
    return folder / "stage1_epoch0001.pt"


READERS: dict[str, tuple[Callable[[], int], list[str]]] = {
    "yolo_weights": (fsdet.train.main, ["--yolo_weights", "BAD"]),
    "resume": (fsdet.train.main, ["--resume", "BAD"]),
    "evaluate": (fsdet.evaluate.main, ["--checkpoint", "BAD"]),
    "predict": (
        fsdet.predict.main,
        ["--checkpoint", "BAD", "--supports", "FOLDER", "--images", "FOLDER"],
    ),
    "export": (fsdet.export.main, ["FOLDER", "OUT.pt"]),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_command_ends_with_one_line_and_runs_no_code(
    reader, bad, marker, tmp_path, monkeypatch, capsys
):
    main, flags = READERS[reader]
    names = {"BAD": str(bad), "FOLDER": str(bad.parent), "OUT.pt": str(tmp_path / "out.pt")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [reader, *(names.get(flag, flag) for flag in flags)])
    code = main()
    error = capsys.readouterr().err
    assert not marker.exists()
    assert code == 2
    assert error.count("\n") == 1
    assert str(bad) in error


def test_load_refuses_and_runs_no_code(bad, marker):
    with pytest.raises(FsdetError, match=rf"{bad}: "):
        fsdet.load(bad)
    assert not marker.exists()


@pytest.mark.parametrize("key", ["yolo_weights", "resume"])
def test_the_check_of_a_sweep_ends_with_one_line_and_runs_no_code(
    key, bad, marker, tmp_path, monkeypatch, capsys
):
    sweep = {
        "name": "s",
        "space": {"lr": {"low": 1e-5, "high": 1e-3, "log": True}},
        "objective": {"metric": "val/nAP50", "mode": "max"},
        "trials": 2,
        "fixed": {key: str(bad)},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    monkeypatch.chdir(tmp_path)
    code = run_sweeps([str(tmp_path / "sweep.yaml"), "--check"])
    error = capsys.readouterr().err
    assert not marker.exists()
    assert code == 2
    assert error.strip().count("\n") == 0
    assert str(bad) in error


@pytest.mark.parametrize("way", WAYS)
def test_the_network_beside_code_is_loaded_and_the_code_is_not_run(way, marker, tmp_path):
    torch.manual_seed(3)
    model = DetectionModel("yolov8n.yaml", verbose=False)
    evil = WAYS[way](f"__import__('pathlib').Path({str(marker)!r}).touch()")
    state = model.state_dict()
    model.note = evil
    torch.save({"optimizer": evil, "model": model}, tmp_path / "weights.pt")
    backbone = Backbone()
    try:
        load_yolo_weights(backbone, tmp_path / "weights.pt")
    except FsdetError:
        assert way == "a type"  # torch's own function is called, and finds no tensor
    else:
        for name, tensor in backbone.state_dict().items():
            assert torch.equal(tensor, state[f"model.{name.removeprefix('layers.')}"])
    assert not marker.exists()


@pytest.mark.parametrize("way", ["an activation", "eval", "exec", "a function of torch"])
def test_these_files_do_run_code_where_nothing_guards(way, marker):
    with suppress(TypeError):  # what Ultralytics makes of the result comes after the code
        pickle.loads(
            pickle.dumps(WAYS[way](f"__import__('pathlib').Path({str(marker)!r}).touch()"))
        )
    assert marker.exists()
