"""`scs_fusion`: conditions every scale of the query features on the supports of every class, by cross-attention.

A top-down pathway (Lin et al. 2017, Feature Pyramid Networks) first brings all scales to one width.
Then, scale by scale, each location attends to the prototypes of *all* classes of the episode and to a
learned "none of them" token (Vaswani et al. 2017). The module does not know for which class an image
was drawn, nor the order of the classes: permuting the classes does not change its output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

HEADS = 4
"""Attention heads."""


class FusionBlock(nn.Module):
    """Cross-attention of one scale: every location attends to the tokens of its image."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        # starts close to the identity, so that the features of stage 1 stay useful
        self.gain = nn.Parameter(torch.full((dim,), 0.1))

    def forward(
        self,
        features: Float[Tensor, "images dim height width"],
        tokens: Float[Tensor, "images tokens dim"],
    ) -> Float[Tensor, "images dim height width"]:
        batch, dim, height, width = features.shape
        locations = features.flatten(2).transpose(1, 2)
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            _split_heads(self.query(self.norm(locations))), _split_heads(key), _split_heads(value)
        )
        merged = attended.transpose(1, 2).reshape(batch, height * width, dim)
        change: Tensor = self.gain * self.out(merged)
        return features + change.transpose(1, 2).view_as(features)


class SCSFusion(nn.Module):
    """Backbone features of four scales -> fused features of one width.

    Args:
        channels: channels of the backbone's scales.
        dim: width of the fused features and of the prototypes.
    """

    def __init__(self, channels: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([Conv(c, dim, 1) for c in channels])
        self.smooth = nn.ModuleList([Conv(dim, dim, 3) for _ in channels])
        self.blocks = nn.ModuleList([FusionBlock(dim) for _ in channels])
        self.token_norm = nn.LayerNorm(dim)
        self.none_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)

    def forward(
        self,
        pyramid: list[Float[Tensor, "images dim _ _"]],
        prototypes: Float[Tensor, "images n_way dim"],
    ) -> list[Float[Tensor, "images dim _ _"]]:
        """Condition every scale on the prototypes.

        Args:
            pyramid: of `top_down`.
            prototypes: the same for all images of an episode.
        """
        none = self.none_token.expand(len(prototypes), -1, -1)
        tokens = torch.cat([self.token_norm(prototypes), none], dim=1)
        return [block(x, tokens) for block, x in zip(self.blocks, pyramid, strict=True)]

    def top_down(
        self, features: list[Float[Tensor, "images _ _ _"]]
    ) -> list[Float[Tensor, "images dim _ _"]]:
        """P2 … P5 with one number of channels, coarse scales added to fine ones."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            merged[level - 1] = merged[level - 1] + F.interpolate(
                merged[level], size=merged[level - 1].shape[-2:]
            )
        return [smooth(x) for smooth, x in zip(self.smooth, merged, strict=True)]


def _split_heads(
    tokens: Float[Tensor, "images tokens dim"],
) -> Float[Tensor, "images heads tokens head_dim"]:
    batch, count, dim = tokens.shape
    return tokens.view(batch, count, HEADS, dim // HEADS).transpose(1, 2)
