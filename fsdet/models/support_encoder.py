"""Turns support crops into one embedding each: any timm model, or the small embedded one."""

from __future__ import annotations

import logging
from itertools import pairwise

import timm
import torch
from torch import Tensor, nn

from fsdet.config import ModelConfig
from fsdet.errors import ConfigError, nearest

log = logging.getLogger(__name__)

SMALL_CONV = "small_conv"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SmallConv(nn.Sequential):
    """Five strided convolutions and a global average: (N, 3, s, s) -> (N, 128). 0.3 M parameters."""

    num_features = 128

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        widths = (3, 32, 64, 96, 128, 128)
        for i, (before, after) in enumerate(pairwise(widths)):
            layers += [
                nn.Conv2d(before, after, 3, stride=1 if i == 4 else 2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.SiLU(),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class SupportEncoder(nn.Module):
    """(N, 3, s, s) in 0 … 1 -> (N, embed_dim): a trunk and a linear projection."""

    def __init__(self, trunk: nn.Module, features: int, embed_dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.project = nn.Linear(features, embed_dim)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, crops: Tensor) -> Tensor:
        embedding: Tensor = self.project(self.trunk((crops - self.mean) / self.std))
        return embedding


def build_support_encoder(config: ModelConfig, support_size: int) -> SupportEncoder:
    """The encoder that `config.support_encoder` names.

    Args:
        config: names the encoder; `support_pretrained` asks timm for its weights.
        support_size: side of the crops in pixels; a vision transformer is built for it.

    Raises:
        ConfigError: no such model, a size it cannot take, or weights that cannot be had.
    """
    name = config.support_encoder
    if name == SMALL_CONV:
        return SupportEncoder(SmallConv(), SmallConv.num_features, config.embed_dim)
    check_support_encoder(name)
    trunk, features = _build_timm(name, config.support_pretrained, support_size)
    return SupportEncoder(trunk, features, config.embed_dim)


def check_support_encoder(name: str) -> None:
    """Refuse a name that is neither `small_conv` nor a timm model.

    Raises:
        ConfigError: with the nearest known name.
    """
    if name == SMALL_CONV or timm.is_model(name.split(".")[0]):
        return
    known = [SMALL_CONV, *timm.list_models()]
    raise ConfigError(
        f"support_encoder: '{name}' is neither '{SMALL_CONV}' nor a timm model"
        f"{nearest(name.split('.')[0], known) or '; see timm.list_models()'}"
    )


def _build_timm(name: str, pretrained: bool, support_size: int) -> tuple[nn.Module, int]:
    """The model without its classifier, and the width of what it gives for a crop."""
    try:
        try:  # transformers are built for one size, others do not know the word
            trunk = timm.create_model(
                name, pretrained=pretrained, num_classes=0, img_size=support_size
            )
        except TypeError:
            trunk = timm.create_model(name, pretrained=pretrained, num_classes=0)
        with torch.no_grad():
            features = trunk.eval()(torch.zeros(1, 3, support_size, support_size)).shape[-1]
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"support_encoder: '{name}' could not be built for support_size {support_size} ({reason}). "
            "Without access to the model hub put its weights into the hub's cache ($HF_HOME, else "
            "~/.cache/huggingface), or set support_pretrained: false for random weights, or "
            f"support_encoder: {SMALL_CONV}"
        ) from None
    return trunk.train(), int(features)
