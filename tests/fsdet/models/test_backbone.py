import re
from copy import deepcopy

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import IterableSimpleNamespace

from fsdet.errors import CheckpointError
from fsdet.models.backbone import CHANNELS, STRIDES, Backbone, load_yolo_weights


@pytest.fixture(scope="module")
def yolov8n() -> DetectionModel:
    torch.manual_seed(1)
    model = DetectionModel("yolov8n.yaml", verbose=False)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer) * 0.1)
    return model.eval()


def with_settings(model: DetectionModel) -> DetectionModel:
    """As Ultralytics saves it between two epochs."""
    copy = deepcopy(model)
    copy.args = IterableSimpleNamespace(imgsz=64, data="data.yaml")
    return copy


CONTENT = {
    "checkpoint": lambda model: {"model": model, "ema": None, "epoch": 3},
    "unfinished training": lambda model: {"model": None, "ema": with_settings(model).half()},
    "ema": lambda model: {"model": None, "ema": model},
    "model": lambda model: model,
    "state dict": lambda model: model.state_dict(),
    "nested state dict": lambda model: {"model": model.state_dict()},
}


@pytest.mark.parametrize("kind", CONTENT)
@torch.no_grad()
def test_features_equal_those_of_the_model_that_the_weights_are_from(yolov8n, kind, tmp_path):
    torch.save(CONTENT[kind](yolov8n), tmp_path / "weights.pt")
    backbone = Backbone().eval()
    report = load_yolo_weights(backbone, tmp_path / "weights.pt")
    assert report.loaded == len(backbone.state_dict())
    assert report.loaded + len(report.unused) == len(yolov8n.state_dict())
    images = torch.rand(2, 3, 96, 96)
    expected, x = [], images
    for index, layer in enumerate(yolov8n.model[:10]):
        x = layer(x)
        if index in (2, 4, 6, 9):
            expected.append(x)
    features = backbone(images)
    assert [tuple(f.shape[1:]) for f in features] == [
        (channels, 96 // stride, 96 // stride)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]
    for ours, theirs in zip(features[:3], expected[:3], strict=True):
        tolerance = 2e-2 if kind == "unfinished training" else 0  # it is saved in half precision
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_p5_equals_that_of_the_model_that_the_weights_are_from(yolov8n, tmp_path):
    torch.save(yolov8n.state_dict(), tmp_path / "weights.pt")
    backbone = Backbone().eval()
    load_yolo_weights(backbone, tmp_path / "weights.pt")
    images = torch.rand(2, 3, 96, 96)
    torch.testing.assert_close(backbone(images)[3], yolov8n.model[:10](images), rtol=0, atol=0)


def test_the_report_says_what_was_loaded_and_what_was_not(yolov8n, tmp_path):
    torch.save({"model": yolov8n}, tmp_path / "weights.pt")
    report = load_yolo_weights(Backbone(), tmp_path / "weights.pt")
    assert all(int(name.split(".")[1]) >= 10 for name in report.unused)
    line = f"loaded {report.loaded} tensors, .* not loaded: {len(report.unused)} tensors .layers 12 to 22"
    assert re.search(line, str(report))


def test_half_precision_weights_become_single(yolov8n, tmp_path):
    halved = {name: tensor.half() for name, tensor in yolov8n.state_dict().items()}
    torch.save(halved, tmp_path / "half.pt")
    backbone = Backbone()
    load_yolo_weights(backbone, tmp_path / "half.pt")
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_another_size_is_refused(tmp_path):
    model = DetectionModel("yolov8s.yaml", verbose=False)
    torch.save({"model": model}, tmp_path / "yolov8s.pt")
    backbone = Backbone()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"yolov8s\.pt: .*YOLOv8n.*need \(16, 3, 3, 3\)"):
        load_yolo_weights(backbone, tmp_path / "yolov8s.pt")
    assert all(torch.equal(before[name], t) for name, t in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip file", "not a PyTorch checkpoint"),
        (b"", "not a PyTorch checkpoint"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"weights\.pt: .*{message}"):
        load_yolo_weights(Backbone(), tmp_path / "weights.pt")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="neither a model nor a state dict"):
        load_yolo_weights(Backbone(), tmp_path / "weights.pt")


def test_damage_is_noticed(yolov8n, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(yolov8n.state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pt: .*it is damaged: the checksum of"):
        load_yolo_weights(Backbone(), path)


def test_weights_that_are_not_finite_are_refused(yolov8n, tmp_path):
    state = yolov8n.state_dict()
    name = next(name for name in state if state[name].is_floating_point())
    torch.save({**state, name: torch.full_like(state[name], torch.inf)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt: yolo_weights: .* is not finite"):
        load_yolo_weights(Backbone(), tmp_path / "weights.pt")
