import datetime
import pickle
import sys
from collections import OrderedDict
from copy import deepcopy
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import IterableSimpleNamespace

from fsdet.checkpoint.content import load_checkpoint
from fsdet.errors import CheckpointError
from fsdet.models.backbone import Backbone, load_yolo_weights
from fsdet.unpickling import (
    MAX_DEPTH,
    MAX_MODULES,
    StandIn,
    load_plain,
    load_with_stand_ins,
    module_tensors,
)


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "file.pt")
    return folder / "file.pt"


class Shared(nn.Module):
    """One activation and one weight under two names, an empty slot, and buffers kept and not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3))
        self.act = self.again = nn.SiLU()
        self.tied = self.first[0].weight
        self.register_buffer("count", torch.arange(3))
        self.register_parameter("nothing", None)
        self.none = None


@pytest.mark.parametrize("scale", "nsx")
def test_the_tensors_of_a_real_model_are_those_of_its_state_dict(tmp_path, scale):
    torch.manual_seed(2)
    model = DetectionModel(f"yolov8{scale}.yaml", verbose=False) if scale != "x" else Shared()
    state = model.state_dict()
    found = module_tensors(load_with_stand_ins(saved(model, tmp_path)))
    assert list(found) == list(state)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_what_a_real_checkpoint_holds_besides_does_not_hinder(tmp_path):
    model = DetectionModel("yolov8n.yaml", verbose=False)
    model.args = IterableSimpleNamespace(imgsz=64, save_dir=PurePosixPath("runs"))
    model.criterion = deepcopy(model.model[22])
    content = {
        "date": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "version": "8.4.0",
        "epoch": -1,
        "best_fitness": np.float64(0.5),
        "results": np.arange(3),
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "train_args": {"data": Path("data.yaml"), "seed": 0},
        "model": None,
        "ema": model.half(),
    }
    backbone = Backbone()
    load_yolo_weights(backbone, saved(content, tmp_path))
    state = model.state_dict()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[f"model.{name.removeprefix('layers.')}"].float())


def test_no_class_of_a_file_is_built_and_none_of_it_stays_allowed(tmp_path):
    path = saved({"model": nn.Linear(1, 1), "when": datetime.timedelta(1)}, tmp_path)
    with torch.serialization.safe_globals([nn.Linear, datetime.timedelta]):
        before = set(torch.serialization.get_safe_globals())
        found = load_with_stand_ins(path)
        assert {type(value) for value in found.values()} == {StandIn}
        with pytest.raises(pickle.UnpicklingError):
            load_plain(path)
        assert set(torch.serialization.get_safe_globals()) == before


def test_a_file_whose_classes_are_no_longer_there_is_read(tmp_path, monkeypatch):
    moved = ModuleType("an_old_package")
    moved.Old = type("Old", (nn.Sequential,), {"__module__": "an_old_package"})
    monkeypatch.setitem(sys.modules, "an_old_package", moved)
    layers = Backbone().layers
    path = saved({"model": moved.Old(*layers)}, tmp_path)
    monkeypatch.delitem(sys.modules, "an_old_package")
    backbone = Backbone()
    load_yolo_weights(backbone, path)
    assert all(
        torch.equal(t, layers.state_dict()[n]) for n, t in backbone.layers.state_dict().items()
    )


def chain(n: int) -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(torch.ones(1))
    for _ in range(n):
        outer = nn.Module()
        outer.inner = module
        module = outer
    return module


def test_a_module_may_lie_deep_but_not_without_end(tmp_path):
    found = module_tensors(load_with_stand_ins(saved(chain(MAX_DEPTH), tmp_path)))
    assert [name.count(".") for name in found] == [MAX_DEPTH]
    with pytest.raises(ValueError, match="deep"):
        module_tensors(load_with_stand_ins(saved(chain(MAX_DEPTH + 1), tmp_path)))


def around() -> nn.Module:
    module = nn.Module()
    module._modules["self"] = module
    return module


def doubling() -> nn.Module:
    """2 ** 40 modules in 41 objects."""
    module = nn.Module()
    for _ in range(40):
        outer = nn.Module()
        outer.one = outer.two = module
        module = outer
    return module


def wide() -> nn.Module:
    return nn.ModuleList([nn.Module()] * (MAX_MODULES + 1))


@pytest.mark.parametrize("build", [around, doubling, wide, lambda: chain(100)])
def test_a_network_without_end_is_refused_in_one_line(tmp_path, build):
    path = saved({"model": build()}, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"file\.pt: yolo_weights .*contain themselves"
    ) as told:
        load_yolo_weights(Backbone(), path)
    assert "\n" not in str(told.value)


def odd_tables() -> nn.Module:
    module = nn.Module()
    module._parameters = OrderedDict({3: torch.ones(1), "w": "text"})
    module._buffers = ["no table"]
    module._modules = {"a": 3, "b": nn.Module, ("c",): nn.Module()}
    return module


class Masked:
    """Is unpickled as a state dict with other methods."""

    def __reduce__(self):
        methods = {"items": torch.Size, "get": torch.Size, "keys": torch.Size}
        return OrderedDict, (), methods, None, iter(Backbone().layers.state_dict().items())


@pytest.mark.parametrize(
    "content",
    [
        odd_tables(),
        {"model": torch.ones(3), "ema": torch.zeros(2)},
        {"ema": None},
        {"model": {3: torch.ones(1)}},
        {"model": nn.Linear},
        {name: t.to("meta") for name, t in Backbone().state_dict().items()},
        {name: t.to_sparse() for name, t in Backbone().state_dict().items() if t.dim()},
    ],
    ids=range(7),
)
def test_a_file_of_odd_values_is_refused_in_one_line(tmp_path, content):
    with pytest.raises(CheckpointError, match=r"file\.pt: yolo_weights ") as told:
        load_yolo_weights(Backbone(), saved(content, tmp_path))
    assert "\n" not in str(told.value)


def test_a_state_dict_whose_methods_the_file_replaces_is_read_by_its_own(tmp_path):
    backbone = Backbone()
    report = load_yolo_weights(backbone, saved({"model": Masked()}, tmp_path))
    assert report.loaded == len(backbone.state_dict())


@pytest.mark.parametrize(
    ("name", "told"),
    [("README.md", "it is not a file that torch.save wrote"), ("", "it is a folder")],
)
def test_what_is_no_checkpoint_at_all_is_called_that(tmp_path, name, told):
    (tmp_path / "README.md").write_text("# A text, not a checkpoint")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / name)
    assert told in str(caught.value)
    assert "weights_only" not in str(caught.value)
