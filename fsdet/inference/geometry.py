"""From the network's square back to the picture: the inverse of `fsdet.data.transforms.letterbox`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fsdet.data.transforms import letterbox_boxes


def from_letterbox(boxes: Tensor, height: int, width: int, size: int) -> Tensor:
    """Boxes in the letterboxed square -> boxes in the picture, cut off at its edges.

    Args:
        boxes: (n, 4) xyxy in pixels of the square.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        size: side of the square, in pixels.
    """
    whole = np.array([[0, 0, width, height]], np.float32)
    placed = torch.from_numpy(letterbox_boxes(whole, np.array([[width, height]]), size))[0]
    corner, extent = placed[:2].repeat(2), (placed[2:] - placed[:2]).repeat(2)
    inside = ((boxes - corner) / extent).clamp(0, 1)
    return inside * torch.tensor([width, height] * 2)
