"""The YOLOv8n backbone with outputs P2-P5, and the loading of its weights from Ultralytics files.

Layers and their numbers are those of Ultralytics' `yolov8.yaml` (layers 0-9), so that the weights of any
YOLOv8n checkpoint fit by name.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import SPPF, C2f, Conv

from fsdet.errors import CheckpointError

log = logging.getLogger(__name__)

STRIDES = (4, 8, 16, 32)
"""Strides of P2, P3, P4 and P5."""
CHANNELS = (32, 64, 128, 256)
"""Channels of P2, P3, P4 and P5 at width "n"."""
_TAPS = (2, 4, 6, 9)
_NETWORKS = ("ultralytics.nn.", "torch.nn.modules.")
"""Packages whose network classes a weights file may hold; their functions it may not."""
_SETTINGS = "ultralytics.utils.IterableSimpleNamespace"
"""Plain values under names, which checkpoints of a training hold beside the network."""


class Backbone(nn.Module):
    """YOLOv8n layers 0-9: (B, 3, S, S) in 0 … 1 -> P2, P3, P4, P5, each (B, C, S / stride, S / stride)."""

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
        # the module's own default changed after YOLOv8, whose models have an activation here
        self.layers[9].cv1.act = nn.SiLU()  # type: ignore[union-attr]
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-3, 0.03  # as Ultralytics trains it

    @property
    def shared_weight(self) -> nn.Parameter:
        """A weight that all scales depend on: the last convolution before P2."""
        weight: nn.Parameter = self.layers[_TAPS[0]].cv2.conv.weight  # type: ignore[union-attr, assignment]
        return weight

    def forward(self, images: Tensor) -> list[Tensor]:
        features = []
        x = images
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in _TAPS:
                features.append(x)
        return features


class LoadedWeights(NamedTuple):
    """What a weights file gave and what stayed behind."""

    loaded: int
    """Tensors copied into the backbone, which is all it has."""
    unused: tuple[str, ...]
    """Names in the file that the backbone has no place for: neck, head, counters."""

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
        CheckpointError: missing, not a checkpoint, holds classes we do not trust, or another architecture.
    """
    state = _state_dict(_load(path), path)
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
    backbone.load_state_dict({name: found[name].float() for name in own})
    return LoadedWeights(len(own), tuple(name for name in state if _own_name(name) not in own))


def _load(path: Path) -> Any:
    """Unpickle with `weights_only`, allowing network classes and nothing else."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        foreign = [name for name in names if name != _SETTINGS and not _is_network(name)]
        if foreign:
            raise CheckpointError(
                f"{path}: yolo_weights may hold network classes only, but holds {foreign[0]}; "
                "save its state_dict() with torch.save and name that file"
            )
        with torch.serialization.safe_globals([_resolve(name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: yolo_weights: no such file; check the path") from None
    except CheckpointError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: yolo_weights is not a PyTorch checkpoint that can be read ({reason})"
        ) from None


def _is_network(name: str) -> bool:
    """Whether `name` is a subclass of `nn.Module` from a package we trust; imports no other package."""
    if not name.startswith(_NETWORKS):
        return False
    found = _resolve(name)
    return isinstance(found, type) and issubclass(found, nn.Module)


def _resolve(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and ("model" in content or "ema" in content):
        content = content.get("ema") or content["model"]
    if isinstance(content, nn.Module):
        return dict(content.state_dict())
    if (
        isinstance(content, dict)
        and content
        and all(isinstance(v, Tensor) for v in content.values())
    ):
        return content
    raise CheckpointError(f"{path}: yolo_weights holds neither a model nor a state dict")


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
