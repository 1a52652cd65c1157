"""Embeds support crops, with any timm model or with `small_conv`, which needs no download."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsdet.config import TrainConfig
from fsdet.data.cache import cache_root
from fsdet.errors import ConfigError, nearest

log = logging.getLogger(__name__)

SMALL_CONV = "small_conv"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HUB_TIMEOUT = 10.0
"""Seconds to wait for the model hub."""


class SmallConv(nn.Sequential):
    """Five strided convolutions and a global average to 128 features. 0.3 M parameters."""

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
    """Embeds support crops: a trunk and a linear projection.

    Args:
        trunk: normalised crops -> features.
        features: number of features of the trunk.
        embed_dim: number of features that the detector compares.
        mean: of each colour channel, as the trunk was trained.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        features: int,
        embed_dim: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.project = nn.Linear(features, embed_dim)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, crops: Float[Tensor, "crops 3 side side"]
    ) -> Float[Tensor, "crops embed_dim"]:
        embedding: Tensor = self.project(self.features(crops))
        return embedding

    def features(
        self, crops: Float[Tensor, "crops 3 side side"]
    ) -> Float[Tensor, "crops features"]:
        """Output of the trunk for crops in 0 … 1."""
        found: Tensor = self.trunk((crops - self.mean) / self.std)
        return found


def build_support_encoder(config: TrainConfig) -> SupportEncoder:
    """Build the encoder of `config.support_encoder`.

    Args:
        config: `support_encoder`, `support_pretrained`, `cache_dir` (which may hold its weights), and
            `support_size`, for which a vision transformer is built.

    Raises:
        ConfigError: no such model, a size it does not support, or weights that cannot be found.
    """
    name = config.support_encoder
    if name == SMALL_CONV:
        return SupportEncoder(SmallConv(), SmallConv.num_features, config.embed_dim)
    source = find_weights(config)
    trunk, features = _build_timm(name, config.support_size, source)
    defaults: dict[str, Any] = trunk.pretrained_cfg
    mean, std = defaults.get("mean") or IMAGENET_MEAN, defaults.get("std") or IMAGENET_STD
    return SupportEncoder(trunk, features, config.embed_dim, mean, std)


def check_support_encoder(name: str) -> None:
    """Raise for a name that is neither `small_conv` nor a timm model.

    Raises:
        ConfigError: the message suggests the nearest known name.
    """
    if name == SMALL_CONV or timm.is_model(name.split(".")[0]):
        return
    known = [SMALL_CONV, *timm.list_models()]
    raise ConfigError(
        f"support_encoder: '{name}' is neither '{SMALL_CONV}' nor a timm model"
        f"{nearest(name.split('.')[0], known) or '; see timm.list_models()'}"
    )


def find_weights(config: TrainConfig) -> dict[str, Any]:
    """Arguments with which `timm.create_model` finds pretrained weights: a local file, or the hub.

    Raises:
        ConfigError: no such model, or there is no such file and the hub does not answer.
    """
    name = config.support_encoder
    check_support_encoder(name)
    if name == SMALL_CONV or not config.support_pretrained:
        return {}
    file = cache_root(config.cache_dir) / "weights" / f"{name}.safetensors"
    if file.is_file():
        log.info("support_encoder: weights from %s", file.name)
        return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    _check_hub(name, file)
    return {"pretrained": True}


def _check_hub(name: str, file: Path) -> None:
    """Query the hub once with a short timeout, since its own client retries for a minute.

    Raises:
        ConfigError: it cannot be reached or has no weights of this name.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    found = timm.get_pretrained_cfg(name)
    repository = found.hf_hub_id if found is not None else None
    if not repository:
        raise ConfigError(
            f"support_encoder: timm has no pretrained weights for '{name}'; set support_pretrained: false for "
            "random weights, or name one of timm.list_pretrained()"
        )
    repository = f"{repository}{name}" if repository.endswith("/") else repository
    weights = "model.safetensors"
    if isinstance(try_to_load_from_cache(repository, weights), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(repository, weights), timeout=HUB_TIMEOUT)
    except Exception as error:
        raise ConfigError(
            f"support_encoder: no weights for '{name}': the model hub cannot be reached "
            f"({type(error).__name__}) and {file} does not exist; put the file {weights} of the hub's "
            f"repository {repository} there under this name, or set support_pretrained: false for random "
            f"weights, or support_encoder: {SMALL_CONV}"
        ) from None


def _build_timm(name: str, support_size: int, source: dict[str, Any]) -> tuple[Any, int]:
    """The model without its classifier, and its number of features."""
    try:
        try:  # transformers are built for one size, others do not have the argument
            trunk = timm.create_model(name, num_classes=0, img_size=support_size, **source)
        except TypeError:
            trunk = timm.create_model(name, num_classes=0, **source)
        with torch.no_grad():
            features = trunk.eval()(torch.zeros(1, 3, support_size, support_size)).shape[-1]
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if file := source.get("pretrained_cfg_overlay", {}).get("file"):
            raise ConfigError(
                f"{file}: support_encoder: cannot be loaded as weights of '{name}' at support_size "
                f"{support_size} ({reason}); copy the file again"
            ) from None
        raise ConfigError(
            f"support_encoder: '{name}' could not be built for support_size {support_size} ({reason}); "
            f"choose another size, or support_encoder: {SMALL_CONV}"
        ) from None
    return trunk.train(), int(features)
