"""The YOLOv8n backbone with outputs P2-P5, and the loading of its weights from Ultralytics files.

Layers and their numbers are those of Ultralytics' `yolov8.yaml` (layers 0-9), so that the weights of any
YOLOv8n checkpoint fit by name.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from ultralytics.nn.modules import SPPF, C2f, Conv

from fsdet.archive import finite
from fsdet.errors import CheckpointError
from fsdet.unpickling import StandIn, dense, load_with_stand_ins, module_tensors, reason

log = logging.getLogger(__name__)

STRIDES = (4, 8, 16, 32)
"""Strides of P2, P3, P4 and P5."""
CHANNELS = (32, 64, 128, 256)
"""Channels of P2, P3, P4 and P5 at width "n"."""
_TAPS = (2, 4, 6, 9)


class Backbone(nn.Module):
    """YOLOv8n layers 0-9: images in 0 … 1 -> P2, P3, P4, P5, each 1 / stride of the image's side."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                Conv(3, 16, 3, 2),
                Conv(16, 32, 3, 2),
                C2f(32, 32, 1, True),
                Conv(32, 64, 3, 2),
                C2f(64, 64, 2, True),
                Conv(64, 128, 3, 2),
                C2f(128, 128, 2, True),
                Conv(128, 256, 3, 2),
                C2f(256, 256, 1, True),
                SPPF(256, 256, 5),
            ]
        )
        # YOLOv8 has an activation here; the default of Ultralytics' module changed later
        self.layers[9].cv1.act = nn.SiLU()  # type: ignore[union-attr]
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.03  # as Ultralytics trains it

    @property
    def shared_weight(self) -> nn.Parameter:
        """A weight that all scales depend on: the last convolution before P2."""
        weight: nn.Parameter = self.layers[_TAPS[0]].cv2.conv.weight  # type: ignore[union-attr, assignment]
        return weight

    def forward(
        self, images: Float[Tensor, "images 3 side side"]
    ) -> list[Float[Tensor, "images _ _ _"]]:
        features = []
        x = images
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in _TAPS:
                features.append(x)
        return features


class LoadedWeights(NamedTuple):
    """Which tensors of a weights file were loaded."""

    loaded: int
    """Number of tensors copied into the backbone: all it has."""
    unused: tuple[str, ...]
    """Names in the file that are not part of the backbone: neck, head, counters."""

    def __str__(self) -> str:
        layers = sorted({_layer(name) for name in self.unused})
        rest = f"layers {layers[0]} to {layers[-1]}, the neck and the head" if layers else "none"
        return (
            f"loaded {self.loaded} tensors, the whole backbone (layers 0 to 9); not loaded: "
            f"{len(self.unused)} tensors ({rest})"
        )


def load_yolo_weights(backbone: Backbone, path: Path) -> LoadedWeights:
    """Copy layers 0-9 of an Ultralytics YOLOv8n checkpoint into `backbone`.

    Args:
        backbone: changed in place.
        path: a `.pt` file: a checkpoint of the Ultralytics package, a DetectionModel or a state dict.

    Returns:
        what was copied and what was not.

    Raises:
        CheckpointError: missing, damaged, not a checkpoint, another architecture, or not finite.
    """
    state = _read(path)
    found = _backbone_tensors(state)
    own = backbone.state_dict()
    wrong = [name for name in own if name not in found or found[name].shape != own[name].shape]
    if wrong:
        name = wrong[0]
        got = tuple(found[name].shape) if name in found else "nothing"
        raise CheckpointError(
            f"{path}: yolo_weights must hold a YOLOv8n backbone, but {len(wrong)} of {len(own)} tensors do not "
            f"fit (layers.{name.removeprefix('layers.')}: need {tuple(own[name].shape)}, got {got}); "
            "use a YOLOv8 file of size n, such as yolov8n.pt"
        )
    if broken := [name for name in own if not finite(found[name])]:
        raise CheckpointError(
            f"{path}: yolo_weights: {broken[0]} is not finite; download the file again"
        )
    backbone.load_state_dict({name: found[name].float() for name in own})
    return LoadedWeights(len(own), tuple(name for name in state if _own_name(name) not in own))


def _read(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file's network under its name in the file."""
    try:
        found = {n: dense(t) for n, t in _tensors(load_with_stand_ins(path)).items()}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: yolo_weights: no such file; check the path") from None
    except Exception as error:
        raise CheckpointError(
            f"{path}: yolo_weights is not a PyTorch checkpoint that can be read ({reason(error, path)}); "
            "use a YOLOv8 file of size n, such as yolov8n.pt"
        ) from None
    if not found:
        raise CheckpointError(
            f"{path}: yolo_weights holds neither a model nor a state dict; use a YOLOv8 file of size n, such as "
            "yolov8n.pt"
        )
    return found


def _tensors(content: Any) -> dict[str, Tensor]:
    """Those of a checkpoint (the moving average, if there is one), a module or a state dict; otherwise empty."""
    if isinstance(content, dict) and ("model" in content or "ema" in content):
        average = dict.get(content, "ema")
        content = dict.get(content, "model") if average is None else average
    if isinstance(content, StandIn):
        return module_tensors(content)
    if not isinstance(content, dict):
        return {}
    named = dict(dict.items(content))
    plain = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in named.items())
    return named if plain else {}


def _backbone_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of layers 0-9 under our names."""
    return {_own_name(name): tensor for name, tensor in state.items() if _layer(name) in range(10)}


def _own_name(name: str) -> str:
    """Our name of a tensor; theirs begin with `model.` once or twice."""
    while name.startswith("model."):
        name = name.removeprefix("model.")
    return f"layers.{name}"


def _layer(name: str) -> int:
    """Number of the layer that a tensor belongs to; -1 if it belongs to none."""
    number = _own_name(name).split(".")[1]
    return int(number) if number.isdigit() else -1
